import pytest
import torch
import torch.nn.functional as F
from safetensors.torch import save_file

from likeness import weights
from likeness.backbones.taecvx import TaecvxDecoder, encoder_shapes
from likeness.errors import WeightsError


def state(seed=0):
    torch.manual_seed(seed)
    decoder = TaecvxDecoder().state_dict()
    return decoder | {name: 0.05 * torch.randn(shape) for name, shape in encoder_shapes().items()}


def save(path, tensors):
    save_file({name: value.half().contiguous() for name, value in tensors.items()}, path)
    return path


def published(tensors, latents):
    """The published decoder, layer by layer over all frames, for one clip: (frames, 16, h, w) to RGB in [0, 1]."""
    hidden = torch.tanh(latents / 3) * 3
    hidden = F.relu(F.conv2d(hidden, tensors["decoder.1.weight"], tensors["decoder.1.bias"], padding=1))
    for first in (3, 9, 15):
        for index in range(first, first + 3):
            past = torch.cat([torch.zeros_like(hidden[:1]), hidden[:-1]])
            inner = torch.cat([hidden, past], 1)
            for place in ("0", "2", "4"):
                weight, bias = (tensors[f"decoder.{index}.conv.{place}.{kind}"] for kind in ("weight", "bias"))
                inner = F.conv2d(inner, weight, bias, padding=1)
                inner = F.relu(inner) if place != "4" else inner
            hidden = F.relu(inner + hidden)
        hidden = F.interpolate(hidden, scale_factor=2)
        grown = F.conv2d(hidden, tensors[f"decoder.{first + 4}.conv.weight"])
        hidden = grown.reshape(-1, *hidden.shape[1:])
        hidden = F.conv2d(hidden, tensors[f"decoder.{first + 5}.weight"], padding=1)
    frames = F.conv2d(F.relu(hidden), tensors["decoder.22.weight"], tensors["decoder.22.bias"], padding=1).clamp(0, 1)
    return frames if len(latents) % 2 == 0 else frames[3:]


@pytest.mark.parametrize("frames", [1, 2, 3])
def test_matches_the_published_decoder(tmp_path, frames):
    tensors = state()
    model = TaecvxDecoder.load(save(tmp_path / "taecvx.safetensors", tensors))
    latents = 2 * torch.randn(1, frames, 16, 3, 4)
    found = model.decode(latents)
    tensors = {name: value.half().float() for name, value in tensors.items()}
    torch.testing.assert_close((found[0] + 1) / 2, published(tensors, latents[0]), atol=1e-5, rtol=1e-4)
    assert found.shape[1] == (4 * frames if frames % 2 == 0 else 4 * frames - 3)


def test_a_lone_latent_frame_needs_only_the_last_of_its_frames(tmp_path):
    model = TaecvxDecoder.load(save(tmp_path / "taecvx.safetensors", state()))
    latents = torch.randn(2, 16, 4, 4)
    expected = model.decode(latents[:, None])[:, 0]
    torch.testing.assert_close(model.decode_first(latents).clamp(-1, 1), expected)


def test_a_file_that_grows_time_further_gives_its_last_frames(tmp_path):
    tensors = state()
    more = dict(tensors)
    more["decoder.7.conv.weight"] = torch.cat([torch.randn(256, 256, 1, 1), tensors["decoder.7.conv.weight"]])
    latents = torch.randn(1, 16, 3, 3)
    a, b = (TaecvxDecoder.load(save(tmp_path / f"{i}.safetensors", t)) for i, t in enumerate((tensors, more)))
    torch.testing.assert_close(a.decode_first(latents), b.decode_first(latents))


def test_tensors_of_another_layout_are_refused(tmp_path):
    tensors = state()
    del tensors["encoder.17.bias"]
    tensors["decoder.22.weight"] = torch.zeros(12, 64, 3, 3)
    tensors["decoder.23.weight"] = torch.zeros(1)
    with pytest.raises(WeightsError, match=r"(?s)encoder\.17\.bias.*decoder\.23\.weight.*12x64x3x3"):
        TaecvxDecoder.load(save(tmp_path / "taecvx.safetensors", tensors))


def test_it_is_registered_with_its_licence_and_found_where_pull_puts_it(tmp_path, monkeypatch):
    monkeypatch.setenv("LIKENESS_HOME", str(tmp_path))
    with pytest.raises(WeightsError, match="likeness models pull taecvx"):
        TaecvxDecoder.load()
    assert weights.MODELS["taecvx"].licence == "MIT"
    folder = tmp_path / "models" / "taecvx"
    folder.mkdir(parents=True)
    save(folder / "taecvx.safetensors", state())
    assert TaecvxDecoder.load().decode_first(torch.zeros(1, 16, 2, 2)).shape == (1, 3, 16, 16)


def test_a_file_of_the_decoder_alone_is_enough_and_half_an_encoder_is_not(tmp_path):
    tensors = {name: value for name, value in state().items() if name.startswith("decoder.")}
    path = save(tmp_path / "taecvx.safetensors", tensors)
    assert TaecvxDecoder.load(path).decode_first(torch.zeros(1, 16, 2, 2)).isfinite().all()
    assert path.stat().st_size == pytest.approx(weights.MODELS["taecvx"].estimated_bytes, rel=0.01)
    save(path, tensors | {"encoder.0.bias": torch.zeros(64)})
    with pytest.raises(WeightsError, match="encoder"):
        TaecvxDecoder.load(path)
