"""A teacher with perturbed-attention guidance, whose v a student learns to give without the second pass.

Perturbed-attention guidance (arXiv:2403.17377v1): where a transformer's self-attention is replaced by the identity, what
it draws falls apart, and away from there lies what holds together:

    v_guided = v + scale * (v - v_perturbed)

Learned as arXiv:2210.03142v3 learns classifier-free guidance, it costs nothing when sampling, and any pipeline has it. A
method that is trained over such a base on the data's v alone would unlearn it: `MethodGuidance` says what to add.
"""

import copy
from collections.abc import Sequence
from typing import Any

import torch
from diffusers.models.attention_processor import Attention
from einops import rearrange
from torch import Tensor, nn

from likeness.adapters.blocks.attention import FaceAddedAttnProcessor
from likeness.adapters.blocks.magic_mirror import FaceLayer
from likeness.errors import ConfigError
from likeness.methods.method import Method
from likeness.training.methods.denoiser import MethodDenoiser, MethodReader
from likeness.training.objectives.diffusion import CastParameters, cast_base


class PerturbedAttnProcessor:
    """Self-attention of CogVideoX in which every token heeds itself alone.

    Shapes:
        hidden_states: (batch, video tokens, width)
        encoder_hidden_states: (batch, text tokens, width)
        returns: both
    """

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
        self.scale, self.dtype = scale, dtype
        self.whole = _frozen_copy(denoiser, dtype)
        self.perturbed: Any = _frozen_copy(denoiser, dtype)
        for number in _known(layers, denoiser.transformer):
            self.perturbed.transformer.transformer_blocks[number].attn1.set_processor(PerturbedAttnProcessor())

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


class MethodGuidance:
    """What perturbed-attention guidance adds to v over a base that has not learned it, with a method's people in place.

    A base that learned guidance draws whole faces of nobody in particular; a method over it has to be shown which whole
    faces are meant.

    Args:
        pipe: The pipeline before it learned guidance. The copy of the method stays attached to it.
        method: An attached or free method that was trained over `pipe`; it is copied.
        layers: Blocks whose self-attention is perturbed.
        dtype: Of the products.

    Raises:
        ConfigError: There is no such block, or none is named.
    """

    def __init__(
        self,
        pipe: Any,
        method: Method,
        *,
        layers: Sequence[int],
        dtype: torch.dtype,
    ) -> None:
        self.dtype = dtype
        self.denoisers: list[CastParameters] = []
        wide = tuple(method._keep_in_fp32_modules or ())
        readers = []
        for is_perturbed in (False, True):
            mine = copy.copy(pipe)
            transformer: Any = _frozen_copy(pipe.transformer, torch.float32)
            mine.transformer = transformer
            worn = copy.deepcopy(method).eval().requires_grad_(False).attach(mine)
            cast_base(transformer, worn, dtype)  # The method's own are cast with each call, its buffers never.
            if is_perturbed:
                for number in _known(layers, transformer):
                    _perturb(transformer.transformer_blocks[number])
            denoiser = MethodDenoiser(mine, worn)
            self.denoisers.append(CastParameters(denoiser, dtype, wide=wide))
            readers.append(CastParameters(MethodReader(denoiser), dtype, wide=wide))
        self.read = readers[0]  # Both copies read alike.

    @torch.no_grad()
    def __call__(self, *inputs: Any) -> Tensor:
        """V whole less v perturbed, in float32.

        Shapes:
            inputs: those of the denoiser, noisy latents (batch, frames, channels, height, width) among them
            returns: as the latents
        """
        _, _, pixels, extra_conditioning, active, *_ = inputs
        person = self.read(pixels, extra_conditioning, active)
        whole, perturbed = (denoiser(*inputs, person=person).float() for denoiser in self.denoisers)
        return whole - perturbed


class PerturbedFaceAttnProcessor(FaceAddedAttnProcessor):
    """Magic Mirror's attention in which every token heeds itself and, across, the face."""

    def _attend(self, query: Tensor, key: Tensor, value: Tensor, *, bias: Tensor | None = None) -> Tensor:
        del query, key, bias
        return rearrange(value, "b h n d -> b n (h d)")


def _perturb(block: Any) -> None:
    block.base.attn1.set_processor(PerturbedAttnProcessor())
    if isinstance(block.layer, FaceLayer):
        block.layer.attention.processor = PerturbedFaceAttnProcessor()


def _known(layers: Sequence[int], transformer: Any) -> Sequence[int]:
    num_layers = len(transformer.transformer_blocks)
    if not layers or not all(0 <= number < num_layers for number in layers):
        raise ConfigError(
            f"perturbed_layers = {list(layers)}, but the transformer has blocks 0 to {num_layers - 1}. "
            "Name one or more of them; those behind the middle do best."
        )
    return layers


def _frozen_copy(module: nn.Module, dtype: torch.dtype) -> nn.Module:
    frozen = copy.deepcopy(module).eval().requires_grad_(False)
    for parameter in frozen.parameters():  # What diffusers' own `to` would warn of, without buffers.
        parameter.data = parameter.data.to(dtype)
    return frozen
