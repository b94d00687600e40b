"""Eq. 7 of Magic Mirror over packed tokens (`PackedLayout`), for sampling without gradients."""

import torch
from diffusers.models.attention import AttentionModuleMixin
from diffusers.models.attention_processor import Attention
from torch import Tensor, nn

from likeness.adapters.blocks.attention import FaceAttnProcessor
from likeness.adapters.blocks.packed_layout import PackedLayout
from likeness.adapters.conditioning.regions import RegionMasks
from likeness.backbones.attention import Rope


class PackedFaceAttention(nn.Module, AttentionModuleMixin):
    """The attention of an adapted layer over packed tokens. It has no weights: keys and values are cached.

    It is a module of its own because diffusers' caches skip attention by hooks on the `forward` of attention modules.

    Shapes:
        tokens, returns: (tokens, width), in `layout`
        keys, values: (adapted_rows, face_tokens, heads, head_width); None without the face branch
    """

    _supports_qkv_fusion = False

    def __init__(self) -> None:
        super().__init__()
        self.processor = PackedFaceAddedAttnProcessor()

    def forward(
        self,
        base: Attention,
        tokens: Tensor,
        keys: Tensor | None,
        values: Tensor | None,
        rope: Rope | None,
        scale: float,
        *,
        layout: PackedLayout,
        region_masks: RegionMasks | None = None,
    ) -> Tensor:
        return self.processor(base, tokens, (keys, values), rope, scale, layout, region_masks)


class PackedFaceAddedAttnProcessor(FaceAttnProcessor):
    """Rows share every product. Adapted rows attend to their face; stock rows attend to text and video alone."""

    def __call__(
        self,
        base: Attention,
        tokens: Tensor,
        face: tuple[Tensor | None, Tensor | None],
        rope: Rope | None,
        scale: float,
        layout: PackedLayout,
        region_masks: RegionMasks | None = None,
    ) -> Tensor:
        assert base.to_k is not None
        assert base.to_v is not None
        assert base.to_out is not None
        query, key, value = (
            layer(tokens).unflatten(-1, (base.heads, -1)) for layer in (base.to_q, base.to_k, base.to_v)
        )  # (tokens, heads, head_width)
        query = query if base.norm_q is None else base.norm_q(query)
        key = key if base.norm_k is None else base.norm_k(key)
        masks = None if region_masks is None else region_masks.select(range(layout.stock_rows, layout.batch))
        crossed = None
        if face[0] is not None:  # before the query is rotated
            crossed = self._cross(layout.adapted(query), face[0], face[1], masks, order="tvf")
        if rope is not None:
            for x in (query, key):
                for rows in layout.rows(x):
                    rotate(rows[:, layout.text_tokens :], rope)
        if crossed is None and region_masks is None:
            (mixed,) = (self._dispatch(*rows) for rows in zip(*map(layout.rows, (query, key, value)), strict=True))
            mixed = mixed.flatten(0, 1)
        else:
            if masks is not None:
                bias = masks.attention_bias(layout.face_tokens, scale, query, order="tvf")
            else:
                bias = self._face_bias(query, (layout.own_tokens, layout.face_tokens, 0), scale)
            mixed = self._dispatch(*map(layout.adapted, (query, key, value)), bias=bias)
            mixed = (mixed if crossed is None else torch.add(mixed, crossed, alpha=scale)).flatten(0, 1)
            if layout.stock_rows:
                rows = range(layout.stock_rows)
                bias = None if region_masks is None else region_masks.stock_attention_bias(rows, query)
                stock = self._dispatch(*map(layout.stock, (query, key, value)), bias=bias)
                mixed = torch.cat([stock.flatten(0, 1), mixed])
        return base.to_out[1](base.to_out[0](mixed.flatten(-2)))


def rotate(x: Tensor, rope: Rope) -> None:
    """Rotate each pair of channels by the angle of its position, in place and in float32.

    Shapes:
        x: (batch, video_tokens, heads, head_width)
        rope: cosines and sines, each (video_tokens, head_width), every angle twice
    """
    cos, sin = (part.to(x.device)[:, None] for part in rope)
    whole = x.float()
    turned = whole * cos
    first, second = whole.unflatten(-1, (-1, 2)).unbind(-1)
    pairs = turned.unflatten(-1, (-1, 2))
    pairs[..., 0].addcmul_(second, sin[..., ::2], value=-1)
    pairs[..., 1].addcmul_(first, sin[..., ::2])
    x.copy_(turned)
