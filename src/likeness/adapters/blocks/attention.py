"""Joint attention of text, face and video with a frozen block's own weights, and cross-attention to the face.

Eq. 7 of Magic Mirror (arXiv:2501.03931v1): x_out = T_SA(x_full) + T_CA(W_q x_full, W_kv' x_face). Both terms share W_q;
the cross-attention has its own K and V. V starts at zero, so its term does too. `packed_attention.py` is the same for
sampling.
"""

import math
from typing import Any

import torch
from diffusers.models.attention import AttentionModuleMixin
from diffusers.models.attention_dispatch import dispatch_attention_fn
from diffusers.models.attention_processor import Attention
from diffusers.models.embeddings import apply_rotary_emb
from einops import rearrange
from torch import Tensor, nn

from likeness.adapters.conditioning.regions import RegionMasks
from likeness.backbones.attention import Rope

Streams = tuple[Tensor, Tensor, Tensor]


class FaceAddedAttention(nn.Module, AttentionModuleMixin):
    """The trained half of an adapted layer's attention; the frozen half is passed in at each call.

    The new layers are not called `to_k` and `to_v`, because a LoRA for those names would be applied to them.

    Shapes:
        text: (batch, text_tokens, width)
        face: (batch, face_tokens, width)
        video: (batch, video_tokens, width)
        context: (batch, face_tokens, width): x_face, which the cross-attention reads
        returns: the three streams after attention
    """

    _supports_qkv_fusion = False

    def __init__(self, width: int, *, has_face: bool = True) -> None:
        super().__init__()
        self.to_k_face = nn.Linear(width, width, bias=False) if has_face else None
        self.to_v_face = nn.Linear(width, width, bias=False) if has_face else None
        if self.to_v_face is not None:
            nn.init.zeros_(self.to_v_face.weight)
        self.processor = FaceAddedAttnProcessor()

    def forward(
        self,
        base: Attention,
        streams: Streams,
        context: Tensor,
        rope: Rope | None = None,
        scale: float = 1.0,
        *,
        region_masks: RegionMasks | None = None,
    ) -> Streams:
        return self.processor(self, base, streams, context, rope, scale, region_masks)

    def keys_and_values(self, base: Attention, face: Tensor) -> tuple[Tensor, Tensor] | tuple[None, None]:
        """K and V of the cross-attention: they depend on the identity alone (reading 9)."""
        if self.to_k_face is None or self.to_v_face is None:
            return None, None
        key, value = (
            rearrange(layer(face), "b n (h d) -> b n h d", h=base.heads) for layer in (self.to_k_face, self.to_v_face)
        )
        return (key if base.norm_k is None else base.norm_k(key)), value


class FaceAttnProcessor:
    """Attention through diffusers' dispatch, so that attention backends apply to it.

    Subclasses have "Added" in their name: then diffusers' `fuse_qkv_projections` raises instead of ignoring the face.
    """

    _attention_backend: Any = None
    _parallel_config: Any = None

    @staticmethod
    def _face_bias(like: Tensor, lengths: tuple[int, int, int], scale: float) -> Tensor | None:
        """Weigh the face's keys by `scale` in the softmax. At 1 there is no mask, and every backend can be used.

        `lengths` are those before the face, of the face, and behind it.
        """
        if scale == 1:
            return None
        before, face, behind = lengths
        bias = like.new_zeros(before + face + behind)
        bias[before : before + face] = math.log(scale)
        return bias[None, None, None, :]

    def _cross(
        self, query: Tensor, key: Tensor, value: Tensor | None, region_masks: RegionMasks | None, *, order: str
    ) -> Tensor:
        """The cross-attention. With several people each token attends to the face of its person alone.

        Shapes:
            query, returns: (batch, tokens, heads, head_width), the streams in `order`
        """
        assert value is not None
        if region_masks is None:
            return self._dispatch(query, key, value)
        num_people = region_masks.num_people
        weights = region_masks.cross_attention_weights(key.shape[1], query, order=order)
        faces = zip(key.chunk(num_people, dim=1), value.chunk(num_people, dim=1), strict=True)
        crossed = [weight[..., None] * self._dispatch(query, *face)
                   for weight, face in zip(weights, faces, strict=True)]  # fmt: skip
        return torch.stack(crossed).sum(dim=0)

    def _dispatch(self, query: Tensor, key: Any, value: Any, *, bias: Tensor | None = None) -> Tensor:
        """Attention of (batch, tokens, heads, head_width) by the chosen backend."""
        return dispatch_attention_fn(
            query,
            key,
            value,
            attn_mask=bias,
            backend=self._attention_backend,
            parallel_config=self._parallel_config,
        )


class FaceAddedAttnProcessor(FaceAttnProcessor):
    """Eq. 7 with gradients."""

    def __call__(
        self,
        attention: FaceAddedAttention,
        base: Attention,
        streams: Streams,
        context: Tensor,
        rope: Rope | None,
        scale: float,
        region_masks: RegionMasks | None = None,
    ) -> Streams:
        assert base.to_k is not None
        assert base.to_v is not None
        assert base.to_out is not None
        lengths = [stream.shape[1] for stream in streams]
        x_full = torch.cat(streams, dim=1)  # (batch, text + face + video, width)
        query, key, value = (self._heads(layer(x_full), base) for layer in (base.to_q, base.to_k, base.to_v))
        query = query if base.norm_q is None else base.norm_q(query)
        key = key if base.norm_k is None else base.norm_k(key)

        text, face, video = lengths
        bias = (self._face_bias(x_full, (text, face, video), scale) if region_masks is None
                else region_masks.attention_bias(face, scale, x_full, order="tfv"))  # fmt: skip

        # The cross-attention takes the query before rotation: face tokens have no position in the video.
        x_out = self._attend(self._rotate(query, rope, lengths[-1]), self._rotate(key, rope, lengths[-1]), value,
                             bias=bias)  # fmt: skip
        face_key, face_value = attention.keys_and_values(base, context)
        if face_key is not None and face_value is not None:
            crossed = self._cross(query.transpose(1, 2), face_key, face_value, region_masks, order="tfv").flatten(2)
            x_out = x_out + (crossed if scale == 1 else scale * crossed)

        x_out = base.to_out[1](base.to_out[0](x_out))
        text, face, video = x_out.split(lengths, dim=1)
        return text, face, video

    @staticmethod
    def _heads(x: Tensor, base: Attention) -> Tensor:
        return rearrange(x, "b n (h d) -> b h n d", h=base.heads)

    @staticmethod
    def _rotate(x: Tensor, rope: Rope | None, video_tokens: int) -> Tensor:
        """Rotate the video's positions. Text and face come before them and have none (reading 6)."""
        if rope is None:
            return x
        rotated = apply_rotary_emb(x[:, :, -video_tokens:], rope)  # pyright: ignore[reportArgumentType]
        assert isinstance(rotated, Tensor)
        return torch.cat([x[:, :, :-video_tokens], rotated], dim=2)

    def _attend(self, query: Tensor, key: Tensor, value: Tensor, *, bias: Tensor | None = None) -> Tensor:
        mixed = self._dispatch(*(x.transpose(1, 2) for x in (query, key, value)), bias=bias)
        return rearrange(mixed, "b n h d -> b n (h d)")
