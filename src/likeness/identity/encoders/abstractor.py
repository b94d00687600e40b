"""C-Abstractor: pools a grid of patch features to a smaller grid and keeps its spatial structure.

Convolutions around an average pool, as in Honeybee (arXiv:2312.06742v2), which FantasyID (arXiv:2502.13995v1, Sec.
3.2) uses instead of a Q-Former. Layer structure and parameter names are those of the published projector with its
RegNet bottlenecks. Inputs are square grids without a class token.
"""

from math import isqrt

import torch
from einops import rearrange
from torch import Tensor, nn
from torch.nn.functional import layer_norm, silu

from likeness.errors import ConfigError

SQUEEZE_RATIO = 0.25


class ChannelNorm(nn.Module):
    """LayerNorm over the channels of an image.

    Shapes:
        x: (batch, channels, height, width)
    """

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.ones(channels))
        self.bias = nn.Parameter(torch.zeros(channels))

    def forward(self, x: Tensor) -> Tensor:
        last = layer_norm(x.movedim(1, -1), self.weight.shape, self.weight, self.bias)
        return last.movedim(-1, 1)


class ConvNorm(nn.Module):
    """A convolution without bias, then a norm, which the published weights call `bn`."""

    def __init__(self, channels: int, output_channels: int, *, kernel: int = 1, groups: int = 1) -> None:
        super().__init__()
        self.conv = nn.Conv2d(channels, output_channels, kernel, padding=kernel // 2, groups=groups, bias=False)
        self.bn = ChannelNorm(output_channels)

    def forward(self, x: Tensor) -> Tensor:
        return self.bn(self.conv(x))


class SqueezeExcite(nn.Module):
    """Scale channels by a gate computed from their global averages."""

    def __init__(self, channels: int, squeezed: int) -> None:
        super().__init__()
        self.fc1 = nn.Conv2d(channels, squeezed, 1)
        self.fc2 = nn.Conv2d(squeezed, channels, 1)

    def forward(self, x: Tensor) -> Tensor:
        pooled = x.mean(dim=(2, 3), keepdim=True)
        return x * self.fc2(silu(self.fc1(pooled))).sigmoid()


class Bottleneck(nn.Module):
    """RegNet's block: 1x1, depthwise 3x3, squeeze-and-excite, 1x1, with a residual.

    Shapes:
        x: (batch, channels, height, width)
        returns: (batch, output_channels, height, width)
    """

    def __init__(self, channels: int, output_channels: int) -> None:
        super().__init__()
        self.conv1 = ConvNorm(channels, output_channels)
        self.conv2 = ConvNorm(output_channels, output_channels, kernel=3, groups=output_channels)
        self.se = SqueezeExcite(output_channels, round(SQUEEZE_RATIO * channels))
        self.conv3 = ConvNorm(output_channels, output_channels)
        self.downsample = None if channels == output_channels else ConvNorm(channels, output_channels)

    def forward(self, x: Tensor) -> Tensor:
        shortcut = x if self.downsample is None else self.downsample(x)
        x = self.se(silu(self.conv2(silu(self.conv1(x)))))
        return silu(self.conv3(x) + shortcut)


class Stage(nn.Sequential):
    """A sequence of bottlenecks with the published names b1, b2, ..."""

    def __init__(self, channels: int, output_channels: int, depth: int) -> None:
        super().__init__()
        for number in range(depth):
            block = Bottleneck(channels if number == 0 else output_channels, output_channels)
            self.add_module(f"b{number + 1}", block)


class Abstractor(nn.Module):
    """X_f: `output_side`^2 tokens in row order, each for a region of the image and its surroundings.

    Shapes:
        features: (batch, tokens, width), a square of patches in row order, without a class token
        returns: (batch, output_side * output_side, output_width)
    """

    def __init__(
        self,
        width: int,
        *,
        output_width: int,
        num_patches: int,
        output_side: int,
        hidden_width: int = 256,
        depth: int = 3,
    ) -> None:
        super().__init__()
        self.side = isqrt(num_patches)
        if self.side**2 != num_patches or not 0 < output_side <= self.side:
            raise ConfigError(
                f"The abstractor was given {num_patches} patches and an output side of {output_side}; the patches must "
                "be a square number and the side at most its root. Choose other image, patch or output sizes."
            )
        self.pos_emb = nn.Parameter(torch.zeros(1, num_patches, width))
        nn.init.trunc_normal_(self.pos_emb, std=0.02)
        self.net = nn.Sequential(
            Stage(width, hidden_width, depth),
            nn.AdaptiveAvgPool2d(output_side),
            Stage(hidden_width, hidden_width, depth),
        )
        self.readout = nn.Sequential(
            nn.Linear(hidden_width, output_width), nn.SiLU(), nn.Linear(output_width, output_width)
        )

    def forward(self, features: Tensor) -> Tensor:
        grid = rearrange(features + self.pos_emb, "b (y x) w -> b w y x", y=self.side)
        return self.readout(rearrange(self.net(grid), "b w y x -> b (y x) w"))
