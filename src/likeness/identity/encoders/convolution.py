"""Convolutional layers of the small networks that read head crops."""

from collections.abc import Sequence
from itertools import pairwise

from torch import Tensor, nn


class Residual(nn.Module):
    """A residual block of two convolutions; the shape (batch, channels, height, width) is kept."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.body = nn.Sequential(
            nn.GroupNorm(4, width),
            nn.Conv2d(width, width, 3, padding=1),
            nn.GELU(),
            nn.Conv2d(width, width, 3, padding=1),
        )

    def forward(self, hidden: Tensor) -> Tensor:
        return hidden + self.body(hidden)


def downsampling_layers(widths: Sequence[int]) -> list[nn.Module]:
    """Stride-2 convolutions over an RGB image, one per width, with a `Residual` at every size but the last."""
    layers: list[nn.Module] = [nn.Conv2d(3, widths[0], 4, stride=2, padding=1), nn.GELU()]
    for width_in, width_out in pairwise(widths):
        layers += [Residual(width_in), nn.Conv2d(width_in, width_out, 3, stride=2, padding=1), nn.GELU()]
    return layers
