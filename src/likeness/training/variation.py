"""Crops a little different each time, so that a network does not learn the very pictures by heart."""

import torch
import torch.nn.functional as F
from torch import Tensor

from likeness.config import Settings


class VariationSettings(Settings):
    """How much crops differ."""

    turn_deg: float = 4.0
    """Spread of the turn by which crops differ from what landmarks without error would give."""
    scale: float = 0.04
    """Spread of their size, as a share."""
    shift: float = 0.02
    """Spread of their place, in shares of the side."""
    light: float = 0.12
    """Spread of each color's brightness, as a share."""


def varied(pictures: Tensor, settings: VariationSettings) -> Tensor:
    """Mirror half of them (puppets' heads are symmetric), and frame and light all of them a little differently.

    Shapes:
        pictures: (batch, 3, height, width) in [-1, 1]
        returns: the same
    """
    count = len(pictures)
    angle = settings.turn_deg * torch.pi / 180 * torch.randn(count)
    scale = 1 + settings.scale * torch.randn(count)
    mirror = torch.where(torch.rand(count) < 0.5, -1.0, 1.0)
    shift = 2 * settings.shift * torch.randn(count, 2)  # The sampler's crop runs from -1 to 1.
    cosine, sine = scale * angle.cos(), scale * angle.sin()
    rows = [
        torch.stack([mirror * cosine, -sine, shift[:, 0]], -1),
        torch.stack([mirror * sine, cosine, shift[:, 1]], -1),
    ]
    grid = F.affine_grid(torch.stack(rows, dim=1), list(pictures.shape), align_corners=False)
    pictures = F.grid_sample(pictures, grid, padding_mode="border", align_corners=False)
    light = 1 + settings.light * torch.randn(count, 3, 1, 1)
    return ((pictures + 1) * light - 1).clamp(-1, 1)
