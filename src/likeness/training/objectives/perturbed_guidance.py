"""Teachers with perturbed-attention guidance, which a student learns to predict in a single forward pass.

Perturbed-attention guidance (arXiv:2403.17377v1) replaces the self-attention map of some blocks by the identity and
moves away from the degraded prediction:

    v_guided = v + scale * (v - v_perturbed)

Distilling it follows arXiv:2210.03142v3, which does the same for classifier-free guidance. A method trained over such a
base on the data's v alone would unlearn the guidance; `MethodGuidance` computes the term to add to the target.
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
from likeness.training.objectives.denoiser import DenoiserInputs, MethodDenoiser, ReferenceEncoder
from likeness.training.objectives.diffusion import CastParameters, cast_base


class PerturbedAttnProcessor:
    """Self-attention of CogVideoX in which every token attends only to itself.

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
        del attention_mask, image_rotary_emb  # Positions have no effect without attention between tokens.
        assert attn.to_v is not None
        assert attn.to_out is not None
        video, text = (attn.to_out[0](attn.to_v(stream)) for stream in (hidden_states, encoder_hidden_states))
        return video, text


class GuidedTeacher:
    """A frozen copy of a denoiser with perturbed-attention guidance.

    Args:
        denoiser: From token ids, noisy latents and timesteps to v; its `transformer` is CogVideoX's.
        scale: Guidance scale.
        layers: Blocks whose self-attention is perturbed.
        dtype: Of activations and products.

    Raises:
        ConfigError: There is no such block, or none is named.
    """

    def __init__(self, denoiser: Any, *, scale: float, layers: Sequence[int], dtype: torch.dtype) -> None:
        self.scale, self.dtype = scale, dtype
        self.unperturbed = _frozen_copy(denoiser, dtype)
        self.perturbed: Any = _frozen_copy(denoiser, dtype)
        for number in _check_layers(layers, denoiser.transformer):
            self.perturbed.transformer.transformer_blocks[number].attn1.set_processor(PerturbedAttnProcessor())

    @torch.no_grad()
    def __call__(self, token_ids: Tensor, noisy: Tensor, timesteps: Tensor, is_guided: Tensor) -> Tensor:
        """Predict v in float32, with guidance in the rows where `is_guided`.

        Shapes:
            token_ids: (batch, tokens)
            noisy: (batch, frames, channels, height, width)
            timesteps: (batch,)
            is_guided: (batch,), boolean
            returns: as `noisy`
        """
        inputs = (token_ids, noisy.to(self.dtype), timesteps)
        velocity = self.unperturbed(*inputs).float()
        difference = velocity - self.perturbed(*inputs).float()
        return velocity + self.scale * is_guided.view(-1, 1, 1, 1, 1) * difference


class MethodGuidance:
    """The guidance term v - v_perturbed of a method over the base before that learned guidance.

    The guided base alone draws whole faces of no particular person; with the method in place the term is specific to
    the person.

    Args:
        pipe: The pipeline before it learned guidance. A copy of the method stays attached to a copy of it.
        method: A method that was trained over `pipe`, attached or not; it is copied.
        layers: Blocks whose self-attention is perturbed.
        dtype: Of activations and products.

    Raises:
        ConfigError: There is no such block, or none is named.
    """

    def __init__(self, pipe: Any, method: Method, *, layers: Sequence[int], dtype: torch.dtype) -> None:
        self.dtype = dtype
        self.denoisers: list[CastParameters] = []
        keep_in_fp32_modules = tuple(method._keep_in_fp32_modules or ())
        encoders = []
        for is_perturbed in (False, True):
            pipe_copy = copy.copy(pipe)
            transformer: Any = _frozen_copy(pipe.transformer, torch.float32)
            pipe_copy.transformer = transformer
            method_copy = copy.deepcopy(method).eval().requires_grad_(False).attach(pipe_copy)
            cast_base(
                transformer, method_copy, dtype
            )  # `CastParameters` casts the method's parameters, not its buffers.
            if is_perturbed:
                for number in _check_layers(layers, transformer):
                    _perturb(transformer.transformer_blocks[number])
            denoiser = MethodDenoiser(pipe_copy, method_copy)
            self.denoisers.append(CastParameters(denoiser, dtype, keep_in_fp32_modules=keep_in_fp32_modules))
            encoders.append(
                CastParameters(ReferenceEncoder(denoiser), dtype, keep_in_fp32_modules=keep_in_fp32_modules)
            )
        self.encode = encoders[0]  # Encoding does not depend on the transformer.

    @torch.no_grad()
    def __call__(self, inputs: DenoiserInputs) -> Tensor:
        """Compute v - v_perturbed in float32.

        Shapes:
            returns: as `inputs.noisy`
        """
        identity = self.encode(inputs.pixels, inputs.extra_conditioning, inputs.active)
        inputs = inputs.replace(identity=identity)
        velocity, perturbed = (denoiser(inputs).float() for denoiser in self.denoisers)
        return velocity - perturbed


class PerturbedFaceAttnProcessor(FaceAddedAttnProcessor):
    """Magic Mirror's attention in which every token attends only to itself; the cross-attention to the face stays."""

    def _attend(self, query: Tensor, key: Tensor, value: Tensor, *, bias: Tensor | None = None) -> Tensor:
        del query, key, bias
        return rearrange(value, "b h n d -> b n (h d)")


def _perturb(block: Any) -> None:
    block.base.attn1.set_processor(PerturbedAttnProcessor())
    if isinstance(block.block_adapter, FaceLayer):
        block.block_adapter.attention.processor = PerturbedFaceAttnProcessor()


def _check_layers(layers: Sequence[int], transformer: Any) -> Sequence[int]:
    num_layers = len(transformer.transformer_blocks)
    if not layers or not all(0 <= number < num_layers for number in layers):
        raise ConfigError(
            f"perturbed_layers = {list(layers)}, but the transformer has blocks 0 to {num_layers - 1}. "
            "Name one or more of them; those behind the middle work best."
        )
    return layers


def _frozen_copy(module: nn.Module, dtype: torch.dtype) -> nn.Module:
    frozen = copy.deepcopy(module).eval().requires_grad_(False)
    for parameter in frozen.parameters():  # `to(dtype)` would also cast buffers, and diffusers warns of it.
        parameter.data = parameter.data.to(dtype)
    return frozen
