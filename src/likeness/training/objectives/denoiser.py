"""A frozen base with a method: from token ids, references and noisy latents to v."""

import dataclasses
from dataclasses import dataclass, fields
from typing import Any, Self

import torch
from diffusers.pipelines.cogvideo.pipeline_cogvideox import CogVideoXPipeline
from torch import Tensor, nn

from likeness.identity.tokens import PersonTokens
from likeness.methods.method import Method
from likeness.training.objectives import diffusion


@dataclass(frozen=True, kw_only=True, slots=True)
class DenoiserInputs:
    """A batch for `MethodDenoiser`."""

    token_ids: Tensor
    """(batch, tokens)."""
    class_mask: Tensor
    """(batch, tokens): which tokens are the class word; with two people the number of the person, from 1."""
    pixels: Tensor | None
    """(batch, references, 3, height, width) in [-1, 1]. None where `identity` is given or no sample has one."""
    extra_conditioning: Tensor | None
    """What `MethodTrainingSpec.extra_conditioning` returns."""
    active: Tensor
    """(batch,), boolean: which samples have an identity."""
    noisy: Tensor
    """(batch, frames, channels, height, width)."""
    timesteps: Tensor
    """(batch,)."""
    identity: PersonTokens | None = None
    """Encoded references. None to encode `pixels` and `extra_conditioning`."""
    text: Tensor | None = None
    """(batch, tokens, width), encoded prompts. None to encode `token_ids`."""

    def replace(self, **changes: Any) -> Self:
        return dataclasses.replace(self, **changes)

    def concatenate(self, other: Self) -> Self:
        """The rows of both; fields that are None here are None."""
        parts = {field.name: (getattr(self, field.name), getattr(other, field.name)) for field in fields(self)}
        return self.replace(**{name: torch.cat(pair) for name, pair in parts.items() if pair[0] is not None})


class MethodDenoiser(nn.Module):
    """From `DenoiserInputs` to v. Only the method is trained."""

    def __init__(self, pipe: CogVideoXPipeline, method: Method, *, scale: float = 1.0) -> None:
        super().__init__()
        self.method, self.scale = method, scale
        # In a tuple, so that they are not registered: an attached method's parameters would appear twice.
        self.base = (pipe.text_encoder, pipe.transformer)

    def forward(self, inputs: DenoiserInputs) -> Tensor:
        """Predict v.

        Shapes:
            returns: as `inputs.noisy`
        """
        text_encoder, transformer = self.base
        noisy, timesteps = inputs.noisy, inputs.timesteps
        text = inputs.text
        if text is None:
            with torch.no_grad():
                text = text_encoder(inputs.token_ids)[0]
        text = text.to(noisy.dtype)
        if not inputs.active.any():  # Exactly the base; no reference has to be encoded.
            return diffusion.predict_velocity(transformer, noisy, text, timesteps)
        identity = inputs.identity
        if identity is None:
            assert inputs.pixels is not None
            identity = self.encode(inputs.pixels, inputs.extra_conditioning)
        text = self.method.fuse(text, inputs.class_mask, identity, scale=self.scale)
        regions = self.region_arguments(identity, inputs.class_mask)
        with self.method.conditioned(identity, active=inputs.active, scale=self.scale, **regions):
            return diffusion.predict_velocity(transformer, noisy, text, timesteps)

    def encode(self, pixels: Tensor, extra_conditioning: Tensor | None) -> PersonTokens:
        """The identity tokens of a batch."""
        return self.method.encode_tensors(pixels, extra_conditioning)

    def region_arguments(self, identity: PersonTokens, class_mask: Tensor) -> dict[str, Any]:
        """Arguments of `Method.conditioned` that say where each person is; none for one person."""
        del identity, class_mask
        return {}


class ReferenceEncoder(nn.Module):
    """Encodes the references of a batch once for all forward passes of a step."""

    def __init__(self, denoiser: MethodDenoiser) -> None:
        super().__init__()
        self.denoiser = denoiser

    def forward(self, pixels: Tensor, extra_conditioning: Tensor | None, active: Tensor) -> PersonTokens | None:
        """The identity tokens of each row, None if no row has an identity; shapes as in `DenoiserInputs`."""
        return self.denoiser.encode(pixels, extra_conditioning) if active.any() else None
