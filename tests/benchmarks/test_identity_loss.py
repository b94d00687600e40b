"""The counters against counts made by hand."""

import sys
from pathlib import Path

import pytest
import torch
from torch import nn

from likeness.backbones import tiny
from likeness.training.objectives.face_decoder import VaeFrameDecoder

ROOT = Path(__file__).parents[2]


@pytest.fixture
def bench(monkeypatch):
    monkeypatch.syspath_prepend(str(ROOT / "benchmarks"))
    import identity_loss

    yield identity_loss
    for name in ("identity_loss", "overhead", "claims"):
        sys.modules.pop(name)


def test_live_bytes_are_those_that_the_backward_pass_needs_and_the_peak_has_more(bench):
    weight = torch.empty(256, 256, device="meta")
    latents = torch.empty(1024, 256, device="meta", requires_grad=True)
    live = bench.LiveBytes()
    with live:
        hidden = (latents @ weight).relu()
        kept = live.now
        assert kept == 1024 * 256 * 4  # What is before the relu is dropped.
        assert live.peak == 2 * kept
        del hidden
        assert live.now == 0


def test_counts_products_of_both_directions_without_those_of_frozen_weights(bench, monkeypatch):
    monkeypatch.setattr(bench, "LATENT", (13, 8, 4, 6))
    with torch.device("meta"):
        layer = nn.Conv2d(8, 8, 1, bias=False).requires_grad_(False)
    cost = bench.count(lambda latents: layer(latents).sum())
    assert cost.tflop * 1e12 == pytest.approx(2 * (2 * 8 * 8 * 24))


def test_faces_have_the_side_that_is_asked_for(bench):
    from likeness.identity.encoders.alignment import arcface_template, crop_corners

    corners = crop_corners(bench.face_of(224), arcface_template(bench.EYE_CENTERS))[0]
    assert float((corners[1] - corners[0]).norm()) == pytest.approx(224, rel=1e-4)


def test_a_window_as_large_as_the_frame_has_no_error_and_a_smaller_one_has(bench):
    torch.manual_seed(0)
    vae = tiny.build_vae(tiny.VaeSettings(widths=(8, 8, 8, 8), norm_num_groups=4)).requires_grad_(False)
    decode = VaeFrameDecoder(vae=vae, dtype=torch.float32, is_checkpointed=False)
    points = (bench.TEMPLATE[None] - 0.5) * 30 + 40
    latents = torch.randn(1, 16, 12, 12) + torch.linspace(-2, 2, 12)
    whole, part = (bench.window_error(decode, latents, points, margin) for margin in (12, 0))
    assert whole["rms"] < 1e-4
    assert whole["gradient"] > 0.9999
    assert part["rms"] > 0.01
    assert part["gradient"] < 0.999


@pytest.mark.slow
def test_the_loss_fits_its_budgets_at_5b_with_checkpoints(bench):
    benchmark = bench.Benchmark("identity_loss")
    benchmark.arguments([])
    bench.measure_costs(benchmark)
    assert benchmark.finish() == 0
