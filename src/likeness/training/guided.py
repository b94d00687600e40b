"""A teacher with perturbed-attention guidance, whose v a student learns to give without the second pass.

Perturbed-attention guidance (arXiv:2403.17377): where a transformer's self-attention is replaced by the identity, what
it draws falls apart, and away from there lies what holds together:

    v_guided = v + scale * (v - v_perturbed)

Learned as arXiv:2210.03142 learns classifier-free guidance, it costs nothing when sampling, and any pipeline has it. A
method that is trained over such a base on the data's v alone would unlearn it: `LearnedGuidance` says what to add.
"""

import copy
from collections.abc import Sequence
from typing import Any

import torch
from diffusers.models.attention_processor import Attention
from torch import Tensor, nn

from likeness.errors import ConfigError
from likeness.training.diffusion import denoise


class PerturbedAttnProcessor:
    """Self-attention of CogVideoX in which every token heeds itself alone."""

    def __call__(
        self,
        attn: Attention,
        hidden_states: Tensor,
        encoder_hidden_states: Tensor,
        attention_mask: Tensor | None = None,
        image_rotary_emb: tuple[Tensor, Tensor] | None = None,
    ) -> tuple[Tensor, Tensor]:
        del attention_mask, image_rotary_emb  # Who heeds nobody needs no place.
        assert attn.to_v is not None
        assert attn.to_out is not None
        video, text = (attn.to_out[0](attn.to_v(stream)) for stream in (hidden_states, encoder_hidden_states))
        return video, text


class GuidedTeacher:
    """A frozen copy of a denoiser as it is now, with perturbed-attention guidance.

    Args:
        denoiser: From token ids, noisy latents and timesteps to v; its `transformer` is CogVideoX's.
        scale: Weight of the guidance.
        layers: Blocks whose self-attention is perturbed.
        dtype: Of its products.

    Raises:
        ConfigError: There is no such block, or none is named.
    """

    def __init__(self, denoiser: Any, *, scale: float, layers: Sequence[int], dtype: torch.dtype) -> None:
        num_layers = len(denoiser.transformer.transformer_blocks)
        if not layers or not all(0 <= number < num_layers for number in layers):
            raise ConfigError(
                f"perturbed_layers = {list(layers)}, but the transformer has blocks 0 to {num_layers - 1}. "
                "Name one or more of them; those behind the middle do best."
            )
        self.scale, self.dtype = scale, dtype
        self.whole = _frozen_copy(denoiser, dtype)
        self.perturbed: Any = _frozen_copy(denoiser, dtype)
        for number in layers:
            self.perturbed.transformer.transformer_blocks[number].attn1.set_processor(
                PerturbedAttnProcessor()
            )

    @torch.no_grad()
    def __call__(self, ids: Tensor, noisy: Tensor, timesteps: Tensor, guides: Tensor) -> Tensor:
        """Say v in float32, guided in the rows where `guides`, the copy's own elsewhere.

        Shapes:
            ids: (batch, tokens)
            noisy: (batch, frames, channels, height, width)
            timesteps: (batch,)
            guides: (batch,), boolean
            returns: as `noisy`
        """
        inputs = (ids, noisy.to(self.dtype), timesteps)
        whole = self.whole(*inputs).float()
        away = whole - self.perturbed(*inputs).float()
        return whole + self.scale * guides.view(-1, 1, 1, 1, 1) * away


class LearnedGuidance:
    """What guidance that a base has learned adds to v: its v less that of the same base before it learned.

    Args:
        guided: A transformer that has learned guidance. It is copied: what is attached to it later does not count.
        before: The transformer that it learned from.
        dtype: Of the products.
    """

    def __init__(self, guided: nn.Module, before: nn.Module, dtype: torch.dtype) -> None:
        self.guided, self.before = (_frozen_copy(transformer, dtype) for transformer in (guided, before))
        self.dtype = dtype

    @torch.no_grad()
    def __call__(self, text: Tensor, noisy: Tensor, timesteps: Tensor) -> Tensor:
        """Return the difference in float32.

        Shapes:
            text: (batch, tokens, text_width)
            noisy, returns: (batch, frames, channels, height, width)
            timesteps: (batch,)
        """
        inputs = (noisy.to(self.dtype), text.to(self.dtype), timesteps)
        return denoise(self.guided, *inputs).float() - denoise(self.before, *inputs).float()


def _frozen_copy(module: nn.Module, dtype: torch.dtype) -> nn.Module:
    frozen = copy.deepcopy(module).eval().requires_grad_(False)
    for parameter in frozen.parameters():  # What diffusers' own `to` would warn of, without buffers.
        parameter.data = parameter.data.to(dtype)
    return frozen
