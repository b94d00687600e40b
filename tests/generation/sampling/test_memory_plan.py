import logging
from dataclasses import replace
from functools import wraps
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from diffusers.models.autoencoders.autoencoder_kl_cogvideox import AutoencoderKLCogVideoX
from diffusers.models.transformers.cogvideox_transformer_3d import CogVideoXTransformer3DModel
from numpy.testing import assert_allclose
from transformers import T5Config, T5EncoderModel

from likeness.errors import ConfigError, ResourceError
from likeness.generation import GenerationRequest, Likeness
from likeness.generation.sampling.memory_plan import (
    Gpu,
    GpuMemory,
    apply_plan,
    count_model_sizes,
    find_gpu,
    remove_offload_hooks,
)
from likeness.methods.magic_mirror import MagicMirror
from likeness.runtime import COGVIDEOX_2B_SIZES, COGVIDEOX_5B_SIZES, HEADROOM, PLANS, choose_plan, predict_all_plans

HOST = torch.device("cpu")
LARGE = Gpu(device=HOST, num_bytes=1e12)
CAST_TOLERANCE = 8
"""Levels of 255 that a pixel may differ by when most of the text encoder is in 8 bits; moving models changes
nothing."""
TILES_TOLERANCE = 8
"""Levels that pixels may differ by on average when tiles are decoded without their surroundings and blended. The
greatest difference says little for a decoder with random weights, whose group norms see other numbers in a tile."""


def assert_close(frames, expected):
    """Equal but for the rounding of single pixels: another place in memory is another order of additions."""
    assert_allclose(frames, expected, rtol=0, atol=1)
    assert (frames != expected).mean() < 1e-3


@pytest.fixture(scope="module")
def fresh(checkpoint):
    """A pipeline of this file's own."""
    return Likeness.load(backbone=checkpoint, device="cpu")


@pytest.fixture(scope="module")
def film(face_of):
    face = face_of(0)

    def make(likeness, seed=3):
        request = GenerationRequest(prompt="a woman img in a red sweater nods", people=((face,),), seed=seed)
        settings = likeness.settings(steps=2, frames=9)
        return likeness.generate_many([request], settings, is_measured=False)[0].frames.astype(int)

    return make


@pytest.fixture(scope="module")
def plain(likeness, film):
    return film(likeness)


@pytest.mark.parametrize("plan", [plan for plan in PLANS if not plan.casts_text_encoder], ids=lambda plan: plan.name)
def test_where_models_lie_changes_no_pixel(fresh, plain, film, plan):
    apply_plan(fresh.pipeline, fresh.method, replace(plan, tiles=1), HOST)
    assert_close(film(fresh), plain)


def test_streaming_changes_no_pixel_with_any_method(either, film):
    plain = film(either)
    streamed = next(plan for plan in PLANS if plan.residency == "streamed" and not plan.casts_text_encoder)
    apply_plan(either.pipeline, either.method, replace(streamed, tiles=1), HOST)
    assert_close(film(either), plain)
    remove_offload_hooks(either.pipeline)


def test_tiles_change_little(fresh, plain, film):
    apply_plan(fresh.pipeline, fresh.method, PLANS[1], HOST)
    difference = np.abs(film(fresh) - plain)
    assert 0 < difference.mean() <= TILES_TOLERANCE


def test_a_text_encoder_in_8_bits_changes_little_and_stays_so(checkpoint, plain, film):
    likeness = Likeness.load(backbone=checkpoint, device="cpu")
    before = sum(p.nbytes for p in likeness.pipeline.text_encoder.parameters())
    for plan in PLANS[-2:]:
        apply_plan(likeness.pipeline, likeness.method, replace(plan, tiles=1), HOST)
        difference = np.abs(film(likeness) - plain)
        assert 0 < difference.max() <= CAST_TOLERANCE
    assert sum(p.nbytes for p in likeness.pipeline.text_encoder.parameters()) < before
    remove_offload_hooks(likeness.pipeline)
    assert np.abs(film(likeness) - plain).max() <= CAST_TOLERANCE


def test_a_released_pipeline_is_the_plain_one(fresh, plain, film):
    apply_plan(fresh.pipeline, fresh.method, PLANS[3], HOST)
    remove_offload_hooks(fresh.pipeline)
    assert not fresh.pipeline.vae.use_tiling
    assert_close(film(fresh), plain)


def test_model_offload_is_asked_of_the_device(fresh, monkeypatch):
    asked = []
    monkeypatch.setattr(fresh.pipeline, "enable_model_cpu_offload", lambda device: asked.append(device))
    apply_plan(fresh.pipeline, fresh.method, PLANS[2], torch.device("meta"))
    assert asked == [torch.device("meta")]
    assert fresh.pipeline.device == HOST


def gpu_for(memory, plan, *, batch=2) -> Gpu:
    predictions = predict_all_plans(memory.sizes, memory.clip_size(9, batch))
    return Gpu(device=HOST, num_bytes=HEADROOM * next(p.peak_bytes for p in predictions if p.plan is plan))


def plan_memory(likeness, plan) -> GpuMemory:
    """A GPU on which `plan` is the first that fits."""
    memory = GpuMemory(likeness.pipeline, likeness.method, LARGE, frames=9)
    return GpuMemory(likeness.pipeline, likeness.method, gpu_for(memory, plan), frames=9)


class FullCard:
    """Runs out of memory in the first `times` calls, in the middle of the loop."""

    def __init__(self, monkeypatch, pipeline, times):
        self.left = times
        step = pipeline.scheduler.step

        @wraps(step)  # The pipeline asks the signature whether steps take a generator.
        def fail(*args, **kwargs):
            if self.left:
                self.left -= 1
                raise torch.cuda.OutOfMemoryError("CUDA out of memory.")
            return step(*args, **kwargs)

        monkeypatch.setattr(pipeline.scheduler, "step", fail)


def test_out_of_memory_goes_one_plan_down_with_a_message_and_the_same_seed(fresh, plain, film, monkeypatch, caplog):
    memory = plan_memory(fresh, PLANS[0])
    assert memory.prediction.plan is PLANS[0]
    FullCard(monkeypatch, fresh.pipeline, times=1)
    with caplog.at_level(logging.WARNING):
        frames = memory.run(lambda: film(fresh), frames=9, batch=2)
    assert memory.prediction.plan is PLANS[1]
    assert "ran out of memory: going from plan `resident` to `tiled`" in caplog.text
    assert np.abs(frames - plain).mean() <= TILES_TOLERANCE
    assert fresh.pipeline.vae.use_tiling
    # What the failed call left behind would show without tiles.
    remove_offload_hooks(fresh.pipeline)
    assert_close(film(fresh), plain)


def test_out_of_memory_twice_is_an_error_that_says_what_to_do(fresh, film, monkeypatch):
    memory = plan_memory(fresh, PLANS[0])
    FullCard(monkeypatch, fresh.pipeline, times=2)
    with pytest.raises(ResourceError, match=r"Plan `tiled` was too large too\..*--memory-gb"):
        memory.run(lambda: film(fresh), frames=9, batch=2)
    assert memory.prediction.plan is PLANS[1]


def test_nothing_is_below_the_last_plan(fresh, film, monkeypatch):
    memory = GpuMemory(fresh.pipeline, fresh.method, LARGE, frames=9)
    least = predict_all_plans(memory.sizes, memory.clip_size(9, 2))[-1]
    memory.prediction = least
    FullCard(monkeypatch, fresh.pipeline, times=1)
    with pytest.raises(ResourceError, match="No smaller plan is left"):
        memory.run(lambda: film(fresh), frames=9, batch=2)


def test_other_errors_are_not_caught(fresh):
    memory = plan_memory(fresh, PLANS[0])

    def fail():
        raise ValueError("something else")

    with pytest.raises(ValueError, match="something else"):
        memory.run(fail, frames=9, batch=2)
    assert memory.prediction.plan is PLANS[0]


def test_a_larger_batch_is_planned_before_it_runs(fresh, caplog):
    memory = plan_memory(fresh, PLANS[0])
    memory.gpu = gpu_for(memory, PLANS[1], batch=64)
    with caplog.at_level(logging.WARNING):
        assert memory.run(lambda: "made", frames=9, batch=64) == "made"
    assert memory.prediction.plan is not PLANS[0]
    assert "larger than planned" in caplog.text


def test_a_stated_memory_is_planned_for_and_recorded(checkpoint, face):
    likeness = Likeness.load(backbone=checkpoint, device="cpu", memory_gb=8)
    clip = likeness.generate("a woman img nods", face, seed=3, steps=1, frames=1)
    assert clip.settings["memory_plan"] == "resident"
    assert likeness.memory.gpu.num_bytes == 8e9


def test_a_cpu_has_no_card_and_a_card_has_memory():
    assert find_gpu("cpu") is None
    with pytest.raises(ConfigError, match="`memory_gb` is -3"):
        find_gpu("cpu", -3)
    with pytest.raises(ResourceError, match="the smallest plan needs"):
        choose_plan(3e9, COGVIDEOX_5B_SIZES)


def test_sizes_count_every_parameter_once(either):
    sizes = count_model_sizes(either.pipeline, either.method)
    models = (either.pipeline.transformer, either.pipeline.text_encoder, either.pipeline.vae, either.method)
    unique = {id(p): p.numel() for model in models for p in model.parameters()}
    assert sizes.transformer + sizes.method_layers + sizes.face_encoders + sizes.text_encoder + sizes.vae == sum(
        unique.values()
    )
    assert sizes.bytes_per_value == 4


@pytest.mark.slow  # Three seconds each on a quiet core: seven thousand modules without memory.
@pytest.mark.parametrize(("heads", "layers", "sizes"), [(48, 42, COGVIDEOX_5B_SIZES), (30, 30, COGVIDEOX_2B_SIZES)])
def test_published_sizes_are_those_of_the_models(heads, layers, sizes):
    kind = "CogVideoX{}Block3D"
    t5 = T5Config(vocab_size=32128, d_model=4096, d_kv=64, d_ff=10240, num_layers=24, num_heads=64,
                  feed_forward_proj="gated-gelu")  # fmt: skip
    with torch.device("meta"):
        transformer = CogVideoXTransformer3DModel(
            num_attention_heads=heads, num_layers=layers, sample_width=90, sample_height=60
        )
        mirror = MagicMirror(**MagicMirror.cogvideox_5b_config(transformer.config))
        vae = AutoencoderKLCogVideoX(
            down_block_types=(kind.format("Down"),) * 4, up_block_types=(kind.format("Up"),) * 4,
            block_out_channels=(128, 256, 256, 512), latent_channels=16, layers_per_block=3,
        )  # fmt: skip
        pipeline = SimpleNamespace(transformer=transformer, text_encoder=T5EncoderModel(t5), vae=vae)
    mirror.attach(transformer)
    measured = replace(count_model_sizes(pipeline, mirror), bytes_per_value=2)
    assert measured == sizes
