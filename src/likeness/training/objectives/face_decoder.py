"""Decodes the part of a latent frame that shows a face, with gradients, at a size that a training step can afford.

One latent frame of CogVideoX-5B at 480x720 keeps 9 GB for the backward pass. Here a window of it is decoded, as large
as the recognizer's crop of the largest face of the batch with a margin, and the decoder keeps what goes from block to
block alone. The decoder's group norms depend on the whole frame; a pass without gradients finds their statistics, which
then are constants for the window. Causal convolutions see no frame before: a lone latent frame is decoded as a first
one. The errors of both are measured (docs/evidence.md).
"""

from dataclasses import dataclass
from typing import Any, Literal, Protocol

import torch
from torch import Tensor
from torch.utils.checkpoint import checkpoint

from likeness.backbones import vae_forward
from likeness.backbones.taecvx import LATENT_CHANNELS, TaecvxDecoder
from likeness.errors import ConfigError
from likeness.identity.encoders.alignment import crop_corners

LATENT_PX = 8
"""Side of a latent pixel in pixels."""
COGVIDEOX_VAE_CHANNELS = (128, 256, 256, 512)
"""Channels of CogVideoX's VAE, by which it is told from others."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Windows:
    """One window in each latent frame of a batch, all of one size, in latent pixels."""

    top: Tensor
    """(batch,)."""
    left: Tensor
    """(batch,)."""
    height: int
    width: int

    def crop(self, latents: Tensor) -> Tensor:
        """The windows of (batch, channels, height, width)."""
        rows = zip(latents, self.top.tolist(), self.left.tolist(), strict=True)
        return torch.stack([row[:, y : y + self.height, x : x + self.width] for row, y, x in rows])

    def to_window_px(self, points: Tensor) -> Tensor:
        """Points (batch, points, 2) px of the frames, in px of the decoded windows."""
        origin = torch.stack([self.left, self.top], dim=-1).to(points)
        return points - LATENT_PX * origin[:, None]


class FrameDecoder(Protocol):
    """Decodes windows of lone latent frames."""

    def __call__(self, latents: Tensor, windows: Windows) -> Tensor:
        """Pixels of the windows.

        Shapes:
            latents: (batch, channels, height, width) of whole frames, as diffusion has them
            returns: (batch, 3, 8 * window_height, 8 * window_width), in [-1, 1] where the latents are of a picture
        """
        ...


@dataclass(frozen=True, kw_only=True, slots=True)
class VaeFrameDecoder:
    """The decoder of the pipeline's VAE."""

    vae: Any
    dtype: torch.dtype
    """Of activations."""
    is_checkpointed: bool = True
    """Compute activations again in the backward pass."""

    def __call__(self, latents: Tensor, windows: Windows) -> Tensor:
        scaled = (latents / self.vae.config.scaling_factor).to(self.dtype)
        normalize = None
        if scaled.shape[-2:] != (windows.height, windows.width):
            normalize = vae_forward.normalize_by(vae_forward.group_norm_statistics(self.vae, scaled))
        return vae_forward.decode_frame(
            self.vae, windows.crop(scaled), is_checkpointed=self.is_checkpointed, normalize=normalize
        )


@dataclass(frozen=True, kw_only=True, slots=True)
class TaecvxFrameDecoder:
    """TAECVX, which has an eighth of the VAE's products and no group norm."""

    model: TaecvxDecoder
    dtype: torch.dtype
    is_checkpointed: bool = True

    def __call__(self, latents: Tensor, windows: Windows) -> Tensor:
        self.model.to(latents.device, self.dtype)
        part = windows.crop(latents).to(self.dtype)
        if self.is_checkpointed and torch.is_grad_enabled():
            return checkpoint(self.model.decode_first, part, use_reentrant=False)
        return self.model.decode_first(part)


def build_frame_decoder(
    kind: Literal["vae", "taecvx"], vae: Any, dtype: torch.dtype, *, is_checkpointed: bool
) -> FrameDecoder:
    """The decoder that a stage names.

    Raises:
        WeightsError: TAECVX's weights are missing.
        ConfigError: The latents of the VAE are not those that TAECVX decodes.
    """
    if kind == "vae":
        return VaeFrameDecoder(vae=vae, dtype=dtype, is_checkpointed=is_checkpointed)
    if vae.config.latent_channels != LATENT_CHANNELS or tuple(vae.config.block_out_channels) != COGVIDEOX_VAE_CHANNELS:
        raise ConfigError(
            f"`identity_decoder` is taecvx, which decodes CogVideoX's latents, and the base's VAE has "
            f"{vae.config.latent_channels} latent channels and widths {tuple(vae.config.block_out_channels)}. Use "
            "`vae`."
        )
    return TaecvxFrameDecoder(model=TaecvxDecoder.load(), dtype=dtype, is_checkpointed=is_checkpointed)


def face_windows(corners: Tensor, *, height: int, width: int, margin: int) -> Windows:
    """The smallest windows of one size that hold each face with a margin, moved inside of the frame.

    Shapes:
        corners: (batch, points, 2) px; what each window must hold

    Args:
        corners: Of the recognizer's crops.
        height: Of a latent frame.
        width: Of a latent frame.
        margin: Latent pixels around the corners on each side.
    """
    limit = torch.tensor([width, height])
    edges = (corners.detach().cpu().double() + 0.5) / LATENT_PX
    low = edges.amin(dim=1).floor().long() - margin  # (batch, 2): x, y
    high = edges.amax(dim=1).ceil().long() + margin
    low, high = (edge.clamp(min=torch.zeros(2, dtype=torch.long), max=limit) for edge in (low, high))
    size = (high - low).amax(dim=0).clamp(min=1)
    # Smaller faces get more of what is around them, on both sides where the frame allows it.
    start = ((low + high - size) // 2).clamp(min=torch.zeros(2, dtype=torch.long), max=limit - size)
    return Windows(top=start[:, 1], left=start[:, 0], height=int(size[1]), width=int(size[0]))


@dataclass(frozen=True, kw_only=True, slots=True)
class FaceDecoder:
    """Decodes windows around faces.

    Args:
        decode: Decodes lone latent frames.
        template: (5, 2), the recognizer's: where its crop has the landmarks.
        margin: Latent pixels around the crop; as many as a frame has decode whole frames.
    """

    decode: FrameDecoder
    template: Tensor
    margin: int

    def __call__(self, latents: Tensor, views: Tensor) -> tuple[Tensor, Tensor]:
        """Decoded faces, and their landmarks in them.

        Shapes:
            latents: (batch, channels, height, width), as diffusion has them
            views: (views, batch, 5, 2) px of the frame; the landmarks of every crop that is taken of a face
            returns: (batch, 3, window_height, window_width); (views, batch, 5, 2)
        """
        corners = torch.cat([crop_corners(points, self.template) for points in views], dim=1)
        height, width = latents.shape[-2:]
        windows = face_windows(corners, height=height, width=width, margin=self.margin)
        moved = torch.stack([windows.to_window_px(points) for points in views])
        return self.decode(latents, windows).float(), moved
