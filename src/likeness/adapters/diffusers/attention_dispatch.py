"""The frozen attention of CogVideoX through diffusers' attention dispatch.

The stock processor calls torch's attention itself, so a backend that a user chooses (`set_attention_backend`) and context
parallelism pass it by without a word. While a method is attached, this one stands in its place: the same operations in the
same order, bit for bit, with the attention itself left to the dispatch. It has no weights.
"""

from typing import Any

import torch
from diffusers.models.attention_dispatch import dispatch_attention_fn
from diffusers.models.attention_processor import Attention, CogVideoXAttnProcessor2_0
from diffusers.models.embeddings import apply_rotary_emb
from diffusers.models.transformers.cogvideox_transformer_3d import CogVideoXBlock
from torch import Tensor


class DispatchedAttnProcessor:
    """Joint attention of text and video.

    Shapes:
        hidden_states: (batch, video_tokens, width)
        encoder_hidden_states: (batch, text_tokens, width)
        image_rotary_emb: cosines and sines, each (video_tokens, head_width)
        returns: both states after attention
    """

    _attention_backend: Any = None
    _parallel_config: Any = None

    def __init__(self, stock: CogVideoXAttnProcessor2_0) -> None:
        self.stock = stock

    def __call__(
        self,
        attn: Attention,
        hidden_states: Tensor,
        encoder_hidden_states: Tensor,
        attention_mask: Tensor | None = None,
        image_rotary_emb: tuple[Tensor, Tensor] | None = None,
    ) -> tuple[Tensor, Tensor]:
        num_text = encoder_hidden_states.shape[1]
        joint = torch.cat([encoder_hidden_states, hidden_states], dim=1)
        assert attn.to_k is not None
        assert attn.to_v is not None
        assert attn.to_out is not None
        query, key, value = (
            layer(joint).unflatten(-1, (attn.heads, -1)).transpose(1, 2) for layer in (attn.to_q, attn.to_k, attn.to_v)
        )  # (batch, heads, tokens, head_width)
        query = query if attn.norm_q is None else attn.norm_q(query)
        key = key if attn.norm_k is None else attn.norm_k(key)
        if image_rotary_emb is not None:
            query, key = (_rotate(x, image_rotary_emb, num_text) for x in (query, key))
        mixed = dispatch_attention_fn(
            query.transpose(1, 2),
            key.transpose(1, 2),
            value.transpose(1, 2),
            attn_mask=attention_mask,  # CogVideoX's own blocks give none, regions of several people do.
            backend=self._attention_backend,
            parallel_config=self._parallel_config,
        )
        mixed = attn.to_out[1](attn.to_out[0](mixed.flatten(2)))
        text, video = mixed.split([num_text, mixed.shape[1] - num_text], dim=1)
        return video, text


def dispatch(block: CogVideoXBlock) -> None:
    """Let the attention backend reach a frozen block, unless the user gave it a processor of their own."""
    if type(block.attn1.processor) is CogVideoXAttnProcessor2_0:
        stock: Any = block.attn1.processor
        vars(block.attn1)["processor"] = DispatchedAttnProcessor(stock)


def undo_dispatch(block: CogVideoXBlock) -> None:
    """Put the stock processor back."""
    if isinstance(block.attn1.processor, DispatchedAttnProcessor):
        vars(block.attn1)["processor"] = block.attn1.processor.stock


def _rotate(x: Tensor, rope: tuple[Tensor, Tensor], num_text: int) -> Tensor:
    """Rotate the positions of the video. The text has none."""
    rotated = apply_rotary_emb(x[:, :, num_text:], rope)  # pyright: ignore[reportArgumentType]
    assert isinstance(rotated, Tensor)
    return torch.cat([x[:, :, :num_text], rotated], dim=2)
