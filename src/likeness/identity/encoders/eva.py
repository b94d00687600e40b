"""EVA-02-CLIP's vision encoder (arXiv:2303.11331v2), which the released FantasyID uses instead of OpenAI's CLIP.

A ViT with rotary embeddings on the patches, gated feed-forwards, and a LayerNorm inside attention and feed-forward.
Only the blocks up to the features in use are built. Parameter names are the published ones without the prefix
`visual.`.
"""

import torch
from einops import rearrange
from torch import Tensor, nn
from torch.nn.functional import interpolate, scaled_dot_product_attention, silu

from likeness.identity.encoders.vit import CLIP_MEAN, CLIP_STD

_MLP_RATIO = 2.6667
_PRETRAINED_GRID_SIDE = 16
"""Patches per side in pre-training; rotary positions of other sizes are rescaled to this range."""
_NORM_EPS = 1e-6


class EvaAttention(nn.Module):
    """Self-attention with biases on Q and V only, and a LayerNorm before the output layer."""

    def __init__(self, width: int, num_heads: int) -> None:
        super().__init__()
        self.num_heads = num_heads
        self.q_proj = nn.Linear(width, width, bias=False)
        self.k_proj = nn.Linear(width, width, bias=False)
        self.v_proj = nn.Linear(width, width, bias=False)
        self.q_bias = nn.Parameter(torch.zeros(width))
        self.v_bias = nn.Parameter(torch.zeros(width))
        self.inner_attn_ln = nn.LayerNorm(width, eps=_NORM_EPS)
        self.proj = nn.Linear(width, width)

    def forward(self, x: Tensor, rope: tuple[Tensor, Tensor]) -> Tensor:
        query, key, value = (
            rearrange(projected, "b n (h d) -> b h n d", h=self.num_heads)
            for projected in (self.q_proj(x) + self.q_bias, self.k_proj(x), self.v_proj(x) + self.v_bias)
        )
        attended = scaled_dot_product_attention(_apply_rope(query, rope), _apply_rope(key, rope), value)
        return self.proj(self.inner_attn_ln(rearrange(attended, "b h n d -> b n (h d)")))


class SwiGLU(nn.Module):
    """SwiGLU with a LayerNorm before its output layer."""

    def __init__(self, width: int, hidden_width: int) -> None:
        super().__init__()
        self.w1 = nn.Linear(width, hidden_width)
        self.w2 = nn.Linear(width, hidden_width)
        self.ffn_ln = nn.LayerNorm(hidden_width, eps=_NORM_EPS)
        self.w3 = nn.Linear(hidden_width, width)

    def forward(self, x: Tensor) -> Tensor:
        return self.w3(self.ffn_ln(silu(self.w1(x)) * self.w2(x)))


class EvaBlock(nn.Module):
    """A pre-norm block.

    Shapes:
        x: (batch, 1 + patches, width), class token first
    """

    def __init__(self, width: int, num_heads: int) -> None:
        super().__init__()
        self.norm1 = nn.LayerNorm(width, eps=_NORM_EPS)
        self.attn = EvaAttention(width, num_heads)
        self.norm2 = nn.LayerNorm(width, eps=_NORM_EPS)
        self.mlp = SwiGLU(width, int(width * _MLP_RATIO))

    def forward(self, x: Tensor, rope: tuple[Tensor, Tensor]) -> Tensor:
        x = x + self.attn(self.norm1(x), rope)
        return x + self.mlp(self.norm2(x))


class _PatchEmbed(nn.Module):
    def __init__(self, width: int, patch_size_px: int) -> None:
        super().__init__()
        self.proj = nn.Conv2d(3, width, patch_size_px, stride=patch_size_px)

    def forward(self, pixels: Tensor) -> Tensor:
        return rearrange(self.proj(pixels), "b w y x -> b (y x) w")


class EvaVisionEncoder(nn.Module):
    """Features after `depth` blocks, without a final LayerNorm.

    Shapes:
        pixels: (batch, 3, height, width) in [-1, 1]
        returns: (batch, 1 + patches, width), class token first
    """

    def __init__(self, width: int, *, depth: int, num_heads: int, image_size_px: int, patch_size_px: int) -> None:
        super().__init__()
        self.image_size_px = image_size_px
        self.side = image_size_px // patch_size_px
        self.half_head_width = width // num_heads // 2
        self.patch_embed = _PatchEmbed(width, patch_size_px)
        self.cls_token = nn.Parameter(torch.zeros(1, 1, width))
        self.pos_embed = nn.Parameter(0.02 * torch.randn(1, 1 + self.side**2, width))
        self.blocks = nn.ModuleList(EvaBlock(width, num_heads) for _ in range(depth))

    def forward(self, pixels: Tensor) -> Tensor:
        patches = self.patch_embed(self._prepare(pixels))
        x = torch.cat([self.cls_token.expand(len(patches), -1, -1), patches], dim=1) + self.pos_embed
        rope = self._rope(x)
        for block in self.blocks:
            x = block(x, rope)
        return x

    def _prepare(self, pixels: Tensor) -> Tensor:
        """Resize as torchvision does with tensors: antialiased, without clamping the bicubic overshoot."""
        size = (self.image_size_px, self.image_size_px)
        mean, std = (torch.tensor(values, device=pixels.device)[:, None, None] for values in (CLIP_MEAN, CLIP_STD))
        image = (pixels.float() + 1) / 2
        if image.shape[-2:] != size:
            image = interpolate(image, size=size, mode="bicubic", antialias=True, align_corners=False)
        return ((image - mean) / std).to(pixels)

    def _rope(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """Cosines and sines per patch: half of a head's channels encode the row, half the column."""
        channels = torch.arange(0, self.half_head_width, 2, device=x.device)
        frequency = 10_000 ** -(channels.float() / self.half_head_width)
        position = torch.arange(self.side, device=x.device) / self.side * _PRETRAINED_GRID_SIDE
        angle = (position[:, None] * frequency).repeat_interleave(2, dim=1)  # (side, half a head's channels)
        rows, columns = angle[:, None].expand(-1, self.side, -1), angle[None].expand(self.side, -1, -1)
        angles = torch.cat([rows, columns], dim=-1).flatten(0, 1)
        return angles.cos(), angles.sin()


def _apply_rope(x: Tensor, rope: tuple[Tensor, Tensor]) -> Tensor:
    """Apply the rotary embedding to the patches; the class token has no position."""
    patches = x[:, :, 1:]
    first, second = patches.unflatten(-1, (-1, 2)).unbind(-1)
    rotated = patches * rope[0] + torch.stack([-second, first], dim=-1).flatten(-2) * rope[1]
    return torch.cat([x[:, :, :1], rotated.to(x)], dim=2)
