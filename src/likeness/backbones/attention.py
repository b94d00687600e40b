"""The stock CogVideoX attention through diffusers' attention dispatch.

The stock processor calls PyTorch's attention directly, so `set_attention_backend` and context parallelism have no
effect on it. This one runs the same operations in the same order, bit for bit, but leaves the attention itself to the
dispatch. It has no weights.
"""

from typing import Any

import torch
from diffusers.models.attention_dispatch import dispatch_attention_fn
from diffusers.models.attention_processor import Attention, CogVideoXAttnProcessor2_0
from diffusers.models.embeddings import apply_rotary_emb
from torch import Tensor, nn

from likeness.errors import ConfigError

Rope = tuple[Tensor, Tensor]


class DispatchedAttnProcessor:
    """Joint attention of text and video of a stock block.

    Args:
        stock: The processor that this one replaces.

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
        image_rotary_emb: Rope | None = None,
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
            attn_mask=attention_mask,  # Stock blocks pass none; regions of several people do.
            backend=self._attention_backend,
            parallel_config=self._parallel_config,
        )
        mixed = attn.to_out[1](attn.to_out[0](mixed.flatten(2)))
        text, video = mixed.split([num_text, mixed.shape[1] - num_text], dim=1)
        return video, text


def use_dispatched_attention(attention: Attention) -> bool:
    """Replace the stock processor of one module and return True; other processors (a LoRA's, fused) stay."""
    stock: Any = attention.processor
    if type(stock) is not CogVideoXAttnProcessor2_0:
        return False
    vars(attention)["processor"] = DispatchedAttnProcessor(stock)
    return True


def restore_attention(attention: Attention) -> None:
    """Undo `use_dispatched_attention`."""
    if isinstance(attention.processor, DispatchedAttnProcessor):
        vars(attention)["processor"] = attention.processor.stock


def use_dispatch(transformer: nn.Module) -> int:
    """Replace every stock processor of `transformer`, and return their number.

    `transformer.set_attention_backend(name)` then works on all of them. With the default backend the result has the
    same bits.

    Raises:
        ConfigError: No attention has the stock processor.
    """
    count = sum(use_dispatched_attention(module) for module in transformer.modules() if isinstance(module, Attention))
    if not count:
        raise ConfigError(
            "No attention of this transformer is CogVideoX's stock one. Give a CogVideoX transformer, once."
        )
    return count


def use_stock(transformer: nn.Module) -> None:
    """Undo `use_dispatch`."""
    for module in transformer.modules():
        if isinstance(module, Attention):
            restore_attention(module)


def _rotate(x: Tensor, rope: Rope, num_text: int) -> Tensor:
    """Rotate the positions of the video. The text has none."""
    rotated = apply_rotary_emb(x[:, :, num_text:], rope)  # pyright: ignore[reportArgumentType]
    assert isinstance(rotated, Tensor)
    return torch.cat([x[:, :, :num_text], rotated], dim=2)
