"""From a sentence, references and noisy latents to v, as every stage of a method hears it."""

from typing import Any

import torch
from diffusers.pipelines.cogvideo.pipeline_cogvideox import CogVideoXPipeline
from torch import Tensor, nn

from likeness.identity.tokens import PersonTokens
from likeness.methods.method import Method
from likeness.training.objectives import diffusion


class MethodDenoiser(nn.Module):
    """From token ids, references and noisy latents to v. Only the method learns."""

    def __init__(self, pipe: CogVideoXPipeline, method: Method, *, scale: float = 1.0) -> None:
        super().__init__()
        self.method, self.scale = method, scale
        # Not registered: the transformer wears the method's layers, and no parameter may be cast under two names.
        self.base = (pipe.text_encoder, pipe.transformer)

    def forward(
        self,
        ids: Tensor,
        mask: Tensor,
        pixels: Tensor | None,
        extra_conditioning: Tensor | None,
        active: Tensor,
        noisy: Tensor,
        steps: Tensor,
        *,
        person: PersonTokens | None = None,
    ) -> Tensor:
        """V. Who was read before comes as `person`; otherwise references are read here.

        Shapes:
            ids, mask: (batch, text_tokens)
            pixels: (batch, references, 3, height, width) in [-1, 1]
            extra_conditioning: as `MethodTrainingSpec.extra_conditioning` gives
            active: (batch,), boolean: who has an identity
            noisy: (batch, frames, channels, height, width)
            steps: (batch,), timesteps
            returns: as `noisy`
        """
        text_encoder, transformer = self.base
        with torch.no_grad():
            text = text_encoder(ids)[0].to(noisy.dtype)
        if not active.any():  # The base alone, bit for bit; nobody has to be read for it.
            return diffusion.denoise(transformer, noisy, text, steps)
        identity = person
        if identity is None:
            assert pixels is not None
            identity = self.read(pixels, extra_conditioning)
        text = self.method.fuse(text, mask, identity, scale=self.scale)
        places = self.places(identity, mask)
        with self.method.conditioned(identity, active=active, scale=self.scale, **places):
            return diffusion.denoise(transformer, noisy, text, steps)

    def read(self, pixels: Tensor, extra_conditioning: Tensor | None) -> PersonTokens:
        """The identities of a batch."""
        return self.method.encode_tensors(pixels, extra_conditioning)

    def places(self, identity: PersonTokens, mask: Tensor) -> dict[str, Any]:
        """What `conditioned` has to know of where people stand."""
        del identity, mask
        return {}


class MethodReader(nn.Module):
    """Reads the references of a batch once, for all that a step denoises with them."""

    def __init__(self, denoiser: MethodDenoiser) -> None:
        super().__init__()
        self.denoiser = denoiser

    def forward(self, pixels: Tensor, extra_conditioning: Tensor | None, active: Tensor) -> PersonTokens | None:
        """The identities, one in each row, or None where nobody is meant; shapes as `MethodDenoiser.forward` has them."""
        return self.denoiser.read(pixels, extra_conditioning) if active.any() else None
