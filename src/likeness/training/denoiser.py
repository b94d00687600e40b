"""From a sentence, references and noisy latents to v, as every stage of a method hears it."""

import torch
from diffusers.pipelines.cogvideo.pipeline_cogvideox import CogVideoXPipeline
from torch import Tensor, nn

from likeness.methods.method import Method
from likeness.training import diffusion


class MethodDenoiser(nn.Module):
    """From token ids, references and noisy latents to v. Only the method learns."""

    def __init__(self, pipe: CogVideoXPipeline, method: Method) -> None:
        super().__init__()
        self.method = method
        # Not registered: the transformer wears the method's layers, and no parameter may be cast under two names.
        self.base = (pipe.text_encoder, pipe.transformer)

    def forward(
        self,
        ids: Tensor,
        mask: Tensor,
        pixels: Tensor,
        traits: Tensor | None,
        active: Tensor,
        noisy: Tensor,
        steps: Tensor,
    ) -> Tensor:
        text_encoder, transformer = self.base
        with torch.no_grad():
            text = text_encoder(ids)[0].to(noisy.dtype)
        identity = self.method.encode_tensors(pixels, traits)
        text = self.method.fuse(text, mask, identity)
        with self.method.conditioned(identity, active=active):
            return diffusion.denoise(transformer, noisy, text, steps)
