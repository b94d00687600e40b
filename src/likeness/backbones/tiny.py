"""Builds the tiny backbone: CogVideoX's own classes with small configurations, and nothing else.

`write` leaves a folder that `diffusers.CogVideoXPipeline.from_pretrained` loads without this package.
"""

from diffusers import AutoencoderKLCogVideoX
from pydantic import BaseModel, ConfigDict


class VaeSettings(BaseModel):
    """The VAE: 8 times smaller in space, 4 times in time, as CogVideoX's."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    widths: tuple[int, int, int, int] = (16, 32, 64, 96)
    """Channels at full, half, quarter and eighth resolution. The first is what speed depends on."""
    layers_per_block: int = 1
    latent_channels: int = 16
    norm_num_groups: int = 8
    size_px: int = 64


def build_vae(settings: VaeSettings) -> AutoencoderKLCogVideoX:
    return AutoencoderKLCogVideoX(
        block_out_channels=settings.widths,
        layers_per_block=settings.layers_per_block,
        latent_channels=settings.latent_channels,
        norm_num_groups=settings.norm_num_groups,
        sample_height=settings.size_px,
        sample_width=settings.size_px,
        scaling_factor=1.0,
    )
