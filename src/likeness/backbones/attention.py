"""CogVideoX's attention through diffusers' attention dispatch, with fewer passes over memory.

The stock processor calls PyTorch's attention directly and ignores `set_attention_backend`. This one computes the
same, supports backends, and keeps tokens in the layout (batch, tokens, heads, head_width), which saves two transposed
copies.
"""

from typing import Any

from diffusers.models.attention_dispatch import dispatch_attention_fn
from diffusers.models.attention_processor import Attention, CogVideoXAttnProcessor2_0
from diffusers.models.embeddings import apply_rotary_emb
from torch import Tensor, cat, nn

from likeness.errors import ConfigError

Rope = tuple[Tensor, Tensor]


class DispatchedAttnProcessor:
    """Joint attention of text and video through diffusers' attention dispatch.

    Shapes:
        hidden_states: (batch, video_tokens, width)
        encoder_hidden_states: (batch, text_tokens, width)
        returns: both, after attention
    """

    _attention_backend: Any = None
    _parallel_config: Any = None

    def __call__(
        self,
        attn: Attention,
        hidden_states: Tensor,
        encoder_hidden_states: Tensor,
        attention_mask: Tensor | None = None,
        image_rotary_emb: Rope | None = None,
    ) -> tuple[Tensor, Tensor]:
        assert attn.to_k is not None
        assert attn.to_v is not None
        assert attn.to_out is not None
        if attention_mask is not None:
            raise ConfigError("CogVideoX attends without a mask, but one was given. Leave `attention_mask` out.")
        text_tokens = encoder_hidden_states.shape[1]
        x = cat([encoder_hidden_states, hidden_states], dim=1)
        query, key, value = (
            layer(x).unflatten(-1, (attn.heads, -1))  # (batch, tokens, heads, head_width)
            for layer in (attn.to_q, attn.to_k, attn.to_v)
        )
        query = query if attn.norm_q is None else attn.norm_q(query)
        key = key if attn.norm_k is None else attn.norm_k(key)
        if image_rotary_emb is not None:
            query, key = (_rotate(x, image_rotary_emb, text_tokens) for x in (query, key))
        mixed = dispatch_attention_fn(
            query, key, value, backend=self._attention_backend, parallel_config=self._parallel_config
        )
        x = attn.to_out[1](attn.to_out[0](mixed.flatten(2)))
        return x[:, text_tokens:], x[:, :text_tokens]


def use_dispatch(transformer: nn.Module) -> int:
    """Replace the stock attention processors of `transformer` with `DispatchedAttnProcessor`, and return their number.

    Other processors (of a LoRA, fused ones) are kept. Afterwards `transformer.set_attention_backend(name)` works;
    results differ by the rounding of the kernel only.

    Raises:
        ConfigError: The transformer has no stock attention processor.
    """
    stock = [
        module
        for module in transformer.modules()
        if isinstance(module, Attention) and type(module.processor) is CogVideoXAttnProcessor2_0
    ]
    if not stock:
        raise ConfigError(
            "No attention of this transformer is CogVideoX's stock one. Give a CogVideoX transformer, once."
        )
    for attention in stock:
        attention.set_processor(DispatchedAttnProcessor())  # pyright: ignore[reportArgumentType]
    return len(stock)


def use_stock(transformer: nn.Module) -> None:
    """Undo `use_dispatch`."""
    for module in transformer.modules():
        if isinstance(module, Attention) and type(module.processor) is DispatchedAttnProcessor:
            module.set_processor(CogVideoXAttnProcessor2_0())  # pyright: ignore[reportArgumentType]


def _rotate(x: Tensor, rope: Rope, text_tokens: int) -> Tensor:
    """Apply the rotary embedding to the video tokens in place; autograd does not need the input of this step."""
    rotated = apply_rotary_emb(x[:, text_tokens:], rope, sequence_dim=1)  # pyright: ignore[reportArgumentType]
    assert isinstance(rotated, Tensor)
    x[:, text_tokens:] = rotated
    return x
