"""Small convolutional networks that read head crops: the block that they share, and an encoder made of it."""

from itertools import pairwise

import torch
from einops import rearrange
from torch import Tensor, nn

from likeness.errors import ConfigError
from likeness.identity.vit import DenseFeatures, resize


class Residual(nn.Module):
    """x + two normalized convolutions of x: (batch, width, height, width_px) stays what it is."""

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


class ConvolutionFeatures(nn.Module):
    """Dense features as the lower layers of `Recognizer` give them, in whose layout it is, so that it can begin as one.

    Its widths double with each halving and end at `width`; patches are two to the number of halvings wide.

    Shapes:
        pixels: (batch, 3, height, width) in [-1, 1]
        returns: the mean in the place of a class token, then patches row by row
    """

    def __init__(
        self, width: int, *, depth: int, num_heads: int, image_size_px: int, patch_size_px: int
    ) -> None:
        super().__init__()
        del num_heads
        halvings = patch_size_px.bit_length() - 1
        if 2**halvings != patch_size_px or halvings != depth or width % 2 ** (depth - 1):
            raise ConfigError(
                f"The convolutional encoder was given a depth of {depth}, patches of {patch_size_px} px and a width of {width}. "
                "A patch is 2^depth px wide, and the width is halved for each level but one: take 3, 8 and 96."
            )
        self.image_size_px = image_size_px
        widths = [width // 2**level for level in reversed(range(depth))]
        layers: list[nn.Module] = [nn.Conv2d(3, widths[0], 4, stride=2, padding=1), nn.GELU()]
        for narrow, wide in pairwise(widths):
            layers += [Residual(narrow), nn.Conv2d(narrow, wide, 3, stride=2, padding=1), nn.GELU()]
        self.layers = nn.Sequential(*layers, Residual(width))

    def forward(self, pixels: Tensor) -> DenseFeatures:
        pixels = resize(pixels, self.image_size_px).contiguous(memory_format=torch.channels_last)
        patches = rearrange(self.layers(pixels), "b w y x -> b (y x) w")
        tokens = torch.cat([patches.mean(dim=1, keepdim=True), patches], dim=1)
        return DenseFeatures(last=tokens, penultimate=tokens)
