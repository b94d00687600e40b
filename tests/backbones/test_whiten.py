import torch
from torch.testing import assert_close

from likeness.backbones import tiny, vae_forward


def test_whitened_latents_are_white_and_decode_as_before():
    torch.manual_seed(0)
    vae = tiny.build_vae(tiny.VaeSettings(widths=(8, 8, 8, 8), norm_num_groups=4, latent_channels=4))
    frames = torch.rand(6, 3, 9, 32, 32) * 2 - 1
    with torch.no_grad():
        means = vae_forward.encode(vae, frames)[0]
        flat = means.movedim(1, -1).flatten(0, -2)
        before = vae.decode(means).sample
        tiny.whiten(vae, flat.mean(dim=0), torch.cov(flat.T), min_variance=0.0)
        white = vae_forward.encode(vae, frames)[0]
        after = vae.decode(white).sample
    flat = white.movedim(1, -1).flatten(0, -2)
    assert_close(flat.mean(dim=0), torch.zeros(4), rtol=0, atol=1e-3)
    assert_close(torch.cov(flat.T), torch.eye(4), rtol=0, atol=1e-2)
    assert vae.config.scaling_factor == 1.0
    # At the border the first convolution pads with another color.
    assert (after - before)[..., 14:18, 14:18].abs().max() < (after - before).abs().max() * 0.5
