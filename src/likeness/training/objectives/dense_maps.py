"""Representation alignment with exact targets: a middle block predicts dense ground-truth maps from noisy latents.

REPA (arXiv:2410.06940v1) aligns the features of a middle block with those of a pretrained encoder of the clean image.
Puppets (rendered synthetic people) give exact targets instead: parts, normals, coordinates on the head and features of
the face (`likeness.puppets.rendering.maps`). A small head predicts them from the block's tokens; it is trained with the
denoiser and is not exported.
"""

from typing import Any

import torch
from einops import rearrange
from torch import Tensor, nn

from likeness.puppets.rendering.maps import CHANNELS

CELLS_PER_LATENT = 2
"""Cells of the maps across a latent pixel."""
_MIN_STD = 0.02


class DenseMapHead(nn.Module):
    """Predicts dense maps, with each channel standardized, from the video tokens of a block."""

    mean: Tensor
    std: Tensor

    def __init__(self, width: int, patch_size: int) -> None:
        super().__init__()
        self.cells_per_token = CELLS_PER_LATENT * patch_size
        self.norm = nn.LayerNorm(width)
        self.up = nn.Linear(width, 2 * width)
        self.proj_out = nn.Linear(2 * width, len(CHANNELS) * self.cells_per_token**2)
        self.register_buffer("mean", torch.zeros(len(CHANNELS), 1, 1))
        self.register_buffer("std", torch.ones(len(CHANNELS), 1, 1))

    def fit_standardization(self, maps: Tensor) -> None:
        """Set mean and scale from maps (samples, frames, channels, height, width), uint8."""
        values = maps.float() / 255
        self.mean.copy_(values.mean(dim=(0, 1, 3, 4)).view(-1, 1, 1))
        self.std.copy_(values.std(dim=(0, 1, 3, 4)).clamp(min=_MIN_STD).view(-1, 1, 1))

    def forward(self, tokens: Tensor, num_frames: int) -> Tensor:
        """From tokens to standardized maps.

        Shapes:
            tokens: (batch, frames * rows * columns, width), of square frames
            returns: (batch, frames, channels, rows * cells, columns * cells)
        """
        values = self.proj_out(nn.functional.silu(self.up(self.norm(tokens))))
        rows = round((tokens.shape[1] // num_frames) ** 0.5)
        return rearrange(
            values,
            "b (f h w) (c y x) -> b f c (h y) (w x)",
            f=num_frames,
            h=rows,
            y=self.cells_per_token,
            x=self.cells_per_token,
        )

    def standardize(self, maps: Tensor) -> Tensor:
        """Standardize maps (..., channels, height, width), uint8: the target of `forward`."""
        return (maps.float() / 255 - self.mean) / self.std


class VideoTokenHook:
    """A hook that stores the video tokens that a block of a CogVideoX transformer returned last."""

    def __init__(self, block: nn.Module) -> None:
        self.tokens: Tensor | None = None
        self.handle = block.register_forward_hook(self._store_tokens)

    def _store_tokens(self, block: nn.Module, inputs: Any, outputs: tuple[Tensor, Tensor]) -> None:
        del block, inputs
        self.tokens = outputs[0]

    def pop_tokens(self) -> Tensor:
        """Return the tokens and drop the reference to them, which would keep the graph alive."""
        tokens, self.tokens = self.tokens, None
        assert tokens is not None, "the transformer has not run"
        return tokens

    def remove(self) -> None:
        self.handle.remove()
