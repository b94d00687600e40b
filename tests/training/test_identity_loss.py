import os
import socket
from pathlib import Path
from typing import get_args

import numpy as np
import pytest
import torch
import torch.multiprocessing as mp
from pydantic import TypeAdapter
from torch.testing import assert_close

from likeness import weights
from likeness.backbones import tiny, vae_forward
from likeness.errors import ConfigError, WeightsError
from likeness.faces.engines.registry import SHORT_NAMES
from likeness.faces.geometry.layouts import EYE_CORNERS
from likeness.identity.encoders.arcface import ARCFACE_ENGINES, ArcFace, IResNetConfig
from likeness.identity.encoders.recognizer import TEMPLATE, Recognizer
from likeness.training.data.datasets import ShardedDataset
from likeness.training.data.pairs import latent_frame_landmarks
from likeness.training.methods.settings import MethodRecipe
from likeness.training.methods.train import read_recognizer
from likeness.training.objectives.face_decoder import (
    FaceDecoder,
    VaeFrameDecoder,
    build_frame_decoder,
    face_windows,
)
from likeness.training.objectives.identity_loss import IdentityLoss, check_embedding_width, choose_samples

POINTS = torch.tensor([[22.0, 30], [28, 30], [36, 30], [42, 30], [32, 38]])
SMALL_ARCFACE = IResNetConfig(blocks=(1, 1, 1, 1), widths=(4, 4, 4, 4), embedding_width=128)


@pytest.fixture(scope="module")
def vae():
    torch.manual_seed(0)
    return tiny.build_vae(tiny.VaeSettings(widths=(8, 8, 8, 8), norm_num_groups=4)).requires_grad_(False)


@pytest.fixture(scope="module")
def recognizer():
    torch.manual_seed(0)
    model = Recognizer(128, (8, 8, 8), 32).requires_grad_(False)
    model.fit_standardization(3 * torch.randn(50, 128) + 1)
    return model


def make_loss(vae, recognizer, *, margin=8, is_checkpointed=False, **changes):
    decode = VaeFrameDecoder(vae=vae, dtype=torch.float32, is_checkpointed=is_checkpointed)
    return IdentityLoss(FaceDecoder(decode=decode, template=recognizer.template, margin=margin), recognizer, **changes)


def test_a_frame_is_decoded_as_the_stock_decoder_does_it_kept_or_checkpointed(vae):
    latents = torch.randn(2, 16, 4, 6, requires_grad=True)
    expected = vae.decode(latents.unsqueeze(2)).sample.squeeze(2)
    (wanted,) = torch.autograd.grad(expected.square().sum(), latents)
    for is_checkpointed in (False, True):
        found = vae_forward.decode_frame(vae, latents, is_checkpointed=is_checkpointed)
        (gradient,) = torch.autograd.grad(found.square().sum(), latents)
        assert_close(found, expected, atol=1e-5, rtol=1e-4)
        assert_close(gradient, wanted, atol=1e-4, rtol=1e-3)


def test_a_window_with_the_statistics_of_its_frame_is_that_part_of_the_frame(vae):
    torch.manual_seed(0)
    latents = torch.randn(2, 16, 24, 24) + torch.linspace(-2, 2, 24)
    whole = vae_forward.decode_frame(vae, latents)
    statistics = vae_forward.group_norm_statistics(vae, latents)
    assert_close(
        vae_forward.decode_frame(vae, latents, normalize=vae_forward.normalize_by(statistics)), whole, atol=1e-4, rtol=0
    )
    window = latents[..., 4:20, 4:20]
    inside = (slice(None), slice(None), slice(8 * 4, 8 * 12), slice(8 * 4, 8 * 12))  # 4 latent pixels of margin.
    expected = whole[..., 32:160, 32:160][inside]
    with_frame = vae_forward.decode_frame(vae, window, normalize=vae_forward.normalize_by(statistics))[inside]
    without = vae_forward.decode_frame(vae, window)[inside]
    errors = [float((found - expected).square().mean().sqrt() / expected.std()) for found in (with_frame, without)]
    assert errors[0] < 0.02
    assert errors[1] > 5 * errors[0]


def saved_bytes(vae, latents, *, is_checkpointed):
    """What autograd keeps: with checkpoints, what goes from one block to the next."""
    kept = {}

    def pack(tensor):
        kept[tensor.untyped_storage().data_ptr()] = tensor.untyped_storage().nbytes()
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(pack, lambda tensor: tensor):
        vae_forward.decode_frame(vae, latents, is_checkpointed=is_checkpointed)
    return sum(kept.values())


def test_checkpoints_do_not_keep_the_decoders_activations(vae):
    latents = torch.randn(1, 16, 8, 8, requires_grad=True)
    kept = saved_bytes(vae, latents, is_checkpointed=False)
    assert saved_bytes(vae, latents, is_checkpointed=True) < 0.15 * kept


def test_windows_hold_every_face_with_its_margin_and_lie_in_the_frame():
    generator = torch.Generator().manual_seed(0)
    for _ in range(50):
        corners = torch.rand(3, 2, 2, generator=generator) * torch.tensor([720.0, 480.0])
        corners[:, 1] = corners[:, 0] + 150 * torch.rand(3, 2, generator=generator)
        windows = face_windows(corners, height=60, width=90, margin=2)
        for top, left, points in zip(windows.top, windows.left, corners, strict=True):
            assert 0 <= top <= 60 - windows.height
            assert 0 <= left <= 90 - windows.width
            start = torch.stack([left, top]) * 8 - 0.5
            size = torch.tensor([windows.width, windows.height]) * 8
            low = (points.amin(dim=0) - 16).clamp(min=-0.5)
            high = torch.minimum(points.amax(dim=0) + 16, torch.tensor([719.5, 479.5]))
            assert (start <= low.clamp(max=719)).all()
            assert (start + size >= high).all()


def test_a_window_as_large_as_its_face_needs_and_shared_by_the_batch():
    small, large = (torch.tensor([[96.0, 96], [96 + s, 96 + s]]) for s in (15.0, 63.0))
    windows = face_windows(torch.stack([small, large]), height=60, width=90, margin=1)
    # The large one ends at 159.5 px, so it is in latent pixels 12 to 19, and has 1 more on each side.
    assert (windows.height, windows.width) == (10, 10)
    assert windows.crop(torch.zeros(2, 16, 60, 90)).shape == (2, 16, 10, 10)
    moved = windows.to_window_px(torch.stack([small, large]))
    assert moved.min() >= 0
    assert moved.max() < 80
    whole = face_windows(torch.stack([small, large]), height=60, width=90, margin=90)
    assert (whole.height, whole.width, int(whole.top.sum()), int(whole.left.sum())) == (60, 90, 0, 0)


def test_a_face_beyond_the_frame_gets_a_window_inside():
    corners = torch.tensor([[[-500.0, -500], [-400, -400]], [[5000.0, 5000], [5100, 5100]]])
    windows = face_windows(corners, height=60, width=90, margin=0)
    assert windows.crop(torch.zeros(2, 1, 60, 90)).shape == (2, 1, 1, 1)


def test_the_crop_sees_the_same_picture_whether_the_frame_or_its_window_is_decoded(recognizer):
    # With a decoder that looks at each latent pixel alone, a window changes nothing.
    plain = lambda latents, w: torch.nn.functional.interpolate(w.crop(latents)[:, :3], scale_factor=8.0)  # noqa: E731
    latents, views = torch.randn(2, 16, 10, 12), torch.stack([POINTS, POINTS + 11])[None]
    embeddings = []
    for margin in (1, 12):
        decoder = FaceDecoder(decode=plain, template=TEMPLATE, margin=margin)
        pictures, moved = decoder(latents, views)
        embeddings.append(recognizer.embed(pictures, moved[0]))
    assert pictures.shape[-2:] == (80, 96)
    assert_close(embeddings[0], embeddings[1], atol=1e-3, rtol=1e-3)


def test_the_loss_is_one_minus_the_cosine_of_standardized_embeddings(vae, recognizer):
    loss = make_loss(vae, recognizer, frames="first")
    latents, embedding = torch.randn(2, 5, 16, 8, 8), torch.randn(2, 128)
    metrics = {}
    found = loss("identity", latents, POINTS.expand(2, 5, 5, 2), embedding, metrics)
    frames = vae.decode(latents[:, :1].transpose(1, 2)).sample.squeeze(2)
    predicted = recognizer.standardize(recognizer.embed(frames, POINTS.expand(2, 5, 2)))
    expected = (1 - torch.cosine_similarity(predicted, recognizer.standardize(embedding))).mean()
    assert_close(found, expected, atol=1e-5, rtol=1e-4)
    assert metrics == {"identity": pytest.approx(float(expected), rel=1e-4)}


def test_arcface_is_a_recognizer_too(vae):
    torch.manual_seed(0)
    model = ArcFace(SMALL_ARCFACE, layout=EYE_CORNERS).requires_grad_(False)
    latents = torch.randn(2, 3, 16, 8, 8, requires_grad=True)
    loss = make_loss(vae, model, margin=1, is_checkpointed=True, num_views=2, contrast_weight=0.1)
    loss("identity", latents, POINTS.expand(2, 3, 5, 2), torch.randn(2, 128), {}).backward()
    assert latents.grad.abs().sum() > 0
    check_embedding_width(model, torch.zeros(3, 128))
    with pytest.raises(ConfigError, match="hold 512 numbers"):
        check_embedding_width(model, torch.zeros(3, 512))


def test_a_random_frame_with_a_face_gets_the_gradient(vae, recognizer):
    torch.manual_seed(0)
    latents = torch.randn(40, 4, 16, 8, 8, requires_grad=True)
    landmarks = POINTS.expand(40, 4, 5, 2).clone()
    landmarks[:, 2] = torch.nan
    loss = make_loss(vae, recognizer)
    assert loss.has_face(landmarks).all()
    loss("identity", latents, landmarks, torch.randn(40, 128), {}).backward()
    reached = latents.grad.flatten(2).abs().sum(dim=2) > 0
    assert (reached.sum(dim=1) == 1).all()
    assert reached.sum(dim=0)[2] == 0
    assert (reached.sum(dim=0)[[0, 1, 3]] >= 5).all()


def test_samples_without_any_face_do_not_qualify(vae, recognizer):
    landmarks = POINTS.expand(3, 2, 5, 2).clone()
    landmarks[1] = torch.nan
    landmarks[2, 0, 3, 1] = torch.nan
    assert make_loss(vae, recognizer).has_face(landmarks).tolist() == [True, False, True]
    assert make_loss(vae, recognizer, frames="first").has_face(landmarks).tolist() == [True, False, False]
    both = torch.stack([POINTS, POINTS.new_full((5, 2), torch.nan)]).expand(1, 1, 2, 5, 2)
    assert not make_loss(vae, recognizer).has_face(both).any()


def test_views_of_a_face_after_the_first_are_moved_and_mirrored():
    ramp = torch.linspace(-1, 1, 64).expand(2, 3, 64, 64)
    seen = []

    class Watching(Recognizer):
        def forward(self, faces):
            seen.append(faces)
            return torch.ones(len(faces), 128)

    watching = Watching(128, (8, 8, 8), 32)
    decoder = FaceDecoder(decode=lambda *_: ramp, template=TEMPLATE, margin=8)
    torch.manual_seed(0)
    loss = IdentityLoss(decoder, watching, num_views=3)
    distance, confusion = loss.terms(torch.randn(2, 5, 16, 8, 8), POINTS.expand(2, 5, 5, 2), -torch.ones(2, 128))
    assert confusion == 0
    assert_close(distance, torch.tensor(2.0))
    plain, mirrored, moved = seen
    for view in (mirrored.flip(-1), moved):
        assert 0 < (plain - view).abs().mean() < 0.1 < (plain + view).abs().mean()


def test_the_expected_loss_is_the_mean_over_what_qualifies_however_few_are_decoded():
    torch.manual_seed(0)
    losses = torch.tensor([9.0, 1.0, 9.0, 2.0, 3.0, 6.0])
    qualifies = torch.tensor([False, True, False, True, True, True])
    for limit in (1, 2, 4, 6):
        metrics, found = {}, []
        for _ in range(3000 if limit < 4 else 1):
            chosen = choose_samples(qualifies, limit, "identity", metrics)
            assert qualifies[chosen.rows].all()
            assert chosen.rows.tolist() == sorted(set(chosen.rows.tolist()))
            found.append(chosen.loss_factor * losses[chosen.rows].mean())
        assert metrics == {"identity_qualifying": 4, "identity_decoded": min(limit, 4)}
        assert float(torch.stack(found).mean()) == pytest.approx(3.0, abs=0.15)


def test_with_accumulation_the_loss_is_the_mean_over_the_whole_step():
    losses = torch.tensor([[9.0, 1.0, 2.0], [6.0, 9.0, 9.0], [9.0, 9.0, 9.0]])
    qualifies = torch.tensor([[False, True, True], [True, False, False], [False, False, False]])
    total = 0.0
    for own_losses, own in zip(losses, qualifies, strict=True):
        chosen = choose_samples(own, 3, "identity", {}, num_in_step=3, micro_batches=3)
        if len(chosen.rows):
            total += (
                chosen.loss_factor * float(own_losses[chosen.rows].mean()) / 3
            )  # The loop averages the micro-batches.
    assert total == pytest.approx((1 + 2 + 6) / 3)


def test_the_mean_over_all_samples_is_what_earlier_recipes_had():
    chosen = choose_samples(torch.tensor([True, False, True, True]), 2, "identity", {}, average="all")
    assert chosen.loss_factor == 0.5
    assert not len(choose_samples(torch.zeros(4, dtype=torch.bool), 2, "identity", {}).rows)


def choose_in_process(rank, port, results):
    os.environ |= {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port)}
    torch.distributed.init_process_group("gloo", rank=rank, world_size=2)
    # Three of four qualify here and one there; the third process-step has none at all.
    qualifies = [torch.tensor([True, True, True, False]), torch.tensor([False, False, True, False])][rank]
    metrics = {}
    chosen = choose_samples(qualifies, 2, "identity", metrics)
    none = choose_samples(torch.zeros(4, dtype=torch.bool), 2, "none", metrics)
    results[rank] = (chosen.loss_factor, len(chosen.rows), len(none.rows), metrics)
    torch.distributed.destroy_process_group()


@pytest.mark.slow
def test_averaged_gradients_of_two_processes_are_those_of_the_whole_batch():
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    with mp.get_context("spawn").Manager() as manager:
        results = manager.dict()
        mp.spawn(choose_in_process, args=(port, results), nprocs=2)
        (first, second) = results[0], results[1]
    # The mean of both processes: (1.5 * mean of three + 0.5 * the one) / 2 = (three + one) / 4.
    assert (first[0], second[0]) == (1.5, 0.5)
    assert (first[1], second[1]) == (2, 1)
    assert (first[2], second[2]) == (0, 0)
    counts = {"identity_qualifying": 4, "identity_decoded": 3, "none_qualifying": 0, "none_decoded": 0}
    assert first[3] == second[3] == counts


def test_landmarks_of_a_latent_frame_are_the_mean_of_its_four_frames():
    points = torch.arange(9.0).view(1, 9, 1, 1).expand(1, 9, 5, 2)
    found = latent_frame_landmarks(ShardedDataset({"landmarks": points}, [{}]), 64, 128)
    assert found.shape == (1, 3, 5, 2)
    assert_close(found[0, :, 0, 0], (torch.tensor([0, 2.5, 6.5]) + 0.5) * 2 - 0.5)


def test_taecvx_is_refused_for_latents_that_are_not_cogvideox(vae, tmp_path, monkeypatch):
    monkeypatch.setenv("LIKENESS_HOME", str(tmp_path))
    with pytest.raises(ConfigError, match="Use `vae`"):
        build_frame_decoder("taecvx", vae, torch.float32, is_checkpointed=True)
    large = type("Config", (), {**vae.config, "block_out_channels": (128, 256, 256, 512)})
    with pytest.raises(WeightsError, match="likeness models pull taecvx"):
        build_frame_decoder("taecvx", type("Vae", (), {"config": large}), torch.float32, is_checkpointed=True)
    assert weights.MODELS["taecvx"].licence == "MIT"


def test_a_recipe_names_a_folder_or_an_engine_with_arcface(tmp_path, monkeypatch, recognizer):
    kind = MethodRecipe.model_fields["recognizer"].annotation
    assert TypeAdapter(kind).validate_python("runs/recognizer/model") == Path("runs/recognizer/model")
    assert {name for name in get_args(get_args(kind)[0]) if "/" in name} == set(ARCFACE_ENGINES)
    assert {SHORT_NAMES.get(name, name) for name in get_args(get_args(kind)[0])} == set(ARCFACE_ENGINES)
    recognizer.save(tmp_path / "model")
    assert isinstance(read_recognizer(TypeAdapter(kind).validate_python(str(tmp_path / "model"))), Recognizer)
    monkeypatch.setenv("LIKENESS_HOME", str(tmp_path))
    with pytest.raises(WeightsError, match="likeness models pull buffalo_l"):
        read_recognizer(TypeAdapter(kind).validate_python("research"))


def test_random_embeddings_have_a_loss_of_one_on_average(vae, recognizer):
    torch.manual_seed(0)
    rng = np.random.default_rng(0)
    latents = torch.from_numpy(rng.standard_normal((16, 1, 16, 8, 8))).float()
    embedding = recognizer.mean + recognizer.spread * torch.randn(16, 128)
    loss = make_loss(vae, recognizer)("identity", latents, POINTS.expand(16, 1, 5, 2), embedding, {})
    assert float(loss) == pytest.approx(1.0, abs=0.1)
