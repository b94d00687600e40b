"""FantasyID's fusion of shape and appearance (arXiv:2502.13995v1, Sec. 3.4): a transformer, then ResConv1D.

In `FusionTransformer`, vertex tokens X_V attend to face tokens X_F and to each other. `ResConv1D` maps the vertex
tokens to the width of the injection: the id descriptor V_F. With strides it also shortens the sequence, as the
released code does.
"""

from collections.abc import Sequence
from itertools import pairwise
from typing import Self

import torch
from torch import Tensor, nn
from torch.nn.functional import mish

from likeness.errors import ConfigError
from likeness.identity.encoders.vit import TransformerLayer

KERNELS = (5, 5, 3, 3)


class FusionTransformer(nn.Module):
    """X = [X_V, X_F] through L layers; the output tokens of X_V are returned.

    Shapes:
        vertices: (batch, coarse_vertices, width): X_V; None for face tokens only
        face: (batch, face_tokens, width): X_F
        returns: (batch, coarse_vertices, width), or (batch, face_tokens, width) without vertices
    """

    def __init__(self, width: int, *, depth: int, num_heads: int) -> None:
        super().__init__()
        if width % num_heads:
            raise ConfigError(
                f"The fusion transformer has {num_heads} heads, which do not divide its width {width}. "
                "Choose a divisor of the width."
            )
        self.layers = nn.ModuleList(
            TransformerLayer(width, num_heads, hidden_width=2 * width, qkv_bias=False) for _ in range(depth)
        )

    def forward(self, vertices: Tensor | None, face: Tensor) -> Tensor:
        x = face if vertices is None else torch.cat([vertices, face], dim=1)
        for layer in self.layers:
            x = layer(x)
        return x if vertices is None else x[:, : vertices.shape[1]]


class NormedConv1d(nn.Module):
    """Convolution, GroupNorm, Mish."""

    def __init__(self, width: int, output_width: int, kernel: int, *, stride: int, num_groups: int) -> None:
        super().__init__()
        self.conv1d = nn.Conv1d(width, output_width, kernel, stride=stride, padding=kernel // 2)
        self.group_norm = nn.GroupNorm(num_groups, output_width)

    def forward(self, x: Tensor) -> Tensor:
        return mish(self.group_norm(self.conv1d(x)))


class ResidualConv1d(nn.Module):
    """Two normed convolutions with a convolutional shortcut of the same kernel size.

    Shapes:
        x: (batch, width, tokens)
        returns: (batch, output_width, tokens / stride, rounded up)
    """

    def __init__(self, width: int, output_width: int, kernel: int, *, stride: int, num_groups: int) -> None:
        super().__init__()
        self.conv_in = NormedConv1d(width, output_width, kernel, stride=stride, num_groups=num_groups)
        self.conv_out = NormedConv1d(output_width, output_width, 3, stride=1, num_groups=num_groups)
        self.residual_conv = nn.Conv1d(width, output_width, kernel, stride=stride, padding=kernel // 2)

    def forward(self, x: Tensor) -> Tensor:
        return self.conv_out(self.conv_in(x)) + self.residual_conv(x)


class ResConv1D(nn.Module):
    """V_F: four residual convolutions over the token sequence, with growing widths.

    Shapes:
        x: (batch, tokens, width)
        returns: (batch, tokens / product of strides, widths[-1])
    """

    def __init__(
        self, width: int, widths: Sequence[int], *, strides: Sequence[int] = (1, 1, 1, 1), num_groups: int = 8
    ) -> None:
        super().__init__()
        if not len(widths) == len(strides) == len(KERNELS) or any(wide % num_groups for wide in widths):
            raise ConfigError(
                f"ResConv1D got widths {tuple(widths)} and strides {tuple(strides)}; {len(KERNELS)} of each were "
                f"expected, widths divisible by {num_groups}. Change `context_width`."
            )
        steps = zip(pairwise((width, *widths)), KERNELS, strides, strict=True)
        for number, ((narrow, wide), kernel, stride) in enumerate(steps, start=1):
            block = ResidualConv1d(narrow, wide, kernel, stride=stride, num_groups=num_groups)
            self.add_module(f"conv_block{number}", block)

    @property
    def blocks(self) -> list[nn.Module]:
        return list(self.children())

    def forward(self, x: Tensor) -> Tensor:
        x = x.transpose(1, 2)
        for block in self.blocks:
            x = block(x)
        return x.transpose(1, 2)

    @classmethod
    def to_width(cls, width: int, output_width: int, *, num_groups: int = 8) -> Self:
        """Build it with widths that double up to `output_width`: 256, 512, 1024 and 2048 at the paper's size."""
        widths = [max(width, output_width // 2**step) for step in (3, 2, 1)] + [output_width]
        return cls(width, widths, num_groups=num_groups)
