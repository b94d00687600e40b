import pytest
import torch
from diffusers import AutoencoderKLCogVideoX
from torch.testing import assert_close

from likeness.backbones import vae_forward


def make_vae() -> AutoencoderKLCogVideoX:
    torch.manual_seed(0)
    return AutoencoderKLCogVideoX(
        block_out_channels=(4, 8, 8, 8), norm_num_groups=4, layers_per_block=1, latent_channels=4,
        sample_height=16, sample_width=16,
    ).double()  # fmt: skip


def double_norms(monkeypatch):
    monkeypatch.setattr(torch.Tensor, "float", lambda self: self)


@pytest.mark.parametrize("num_frames", [1, 5, 9, 17])
def test_encodes_as_diffusers_does(num_frames, monkeypatch):
    vae, frames = make_vae(), torch.rand(2, 3, num_frames, 16, 16, dtype=torch.float64)
    expected = vae.encode(frames).latent_dist
    double_norms(monkeypatch)
    mean, log_variance = vae_forward.encode(vae, frames)
    assert_close(mean, expected.mean)
    assert_close(log_variance, expected.logvar)


@pytest.mark.parametrize("num_latents", [1, 2, 3, 5])
def test_decodes_as_diffusers_does(num_latents, monkeypatch):
    vae, latents = make_vae(), torch.randn(2, 4, num_latents, 2, 2, dtype=torch.float64)
    expected = vae.decode(latents).sample
    double_norms(monkeypatch)
    assert_close(vae_forward.decode(vae, latents), expected)


def test_after_moving_kernels_to_the_last_temporal_slice_a_picture_is_unchanged(monkeypatch):
    vae, picture = make_vae(), torch.rand(1, 3, 1, 16, 16, dtype=torch.float64)
    before = vae.encode(picture).latent_dist.mean
    vae_forward.keep_only_last_temporal_slice(vae)
    double_norms(monkeypatch)
    mean, _ = vae_forward.encode(vae, picture, last_temporal_slice_only=True)
    assert_close(mean, before)
    mean.sum().backward()
    gradient = vae.encoder.conv_in.conv.weight.grad
    assert gradient[:, :, -1].any()
    assert not gradient[:, :, :-1].any()


@pytest.mark.parametrize("hidden_dtype", [torch.float32, torch.bfloat16])
def test_a_frame_is_decoded_with_weights_in_bfloat16(hidden_dtype):
    """As for the identity loss over a base that lies in bfloat16, with gradients."""
    vae = make_vae().float().requires_grad_(False)
    latents = torch.randn(1, 4, 4, 4)
    expected = vae_forward.decode_frame(vae.bfloat16().float(), latents)  # Of the same rounded weights.
    moved = latents.to(hidden_dtype).requires_grad_()
    found = vae_forward.decode_frame(vae.bfloat16(), moved)
    found.float().square().mean().backward()
    assert moved.grad is not None
    assert_close(found.detach().float(), expected, atol=1e-5 if hidden_dtype == torch.float32 else 0.1, rtol=0)
