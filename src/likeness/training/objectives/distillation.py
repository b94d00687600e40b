"""Distillation between methods: a trained Magic Mirror over the same base predicts the v that another method learns.

The teacher's v is already that of a whole face, as far as the small transformer can draw one, so the student need not
learn that from rollouts and rewards. It is distillation (arXiv:1503.02531v1): teacher and student share base, prompts
and references, and no layer.
"""

from typing import Any

import torch
from torch import Tensor

from likeness.methods.method import Method
from likeness.training.objectives import diffusion
from likeness.training.objectives.denoiser import DenoiserInputs, MethodDenoiser


class DistillationTeacher:
    """A frozen teacher over a pipeline of its own.

    Args:
        pipe: The pipeline over which the teacher was trained; it is cast to `dtype`.
        method: The teacher, attached to `pipe`.
        prompts: The `TokenizedPrompts` of the targets, as the teacher tokenizes them.
        embeddings: (references, embedding_width), by row of the references.
        scale: Identity scale of the teacher.
        dtype: Of activations and products.
    """

    def __init__(
        self, pipe: Any, method: Method, prompts: Any, embeddings: Tensor, *, scale: float, dtype: torch.dtype
    ) -> None:
        diffusion.cast_base(pipe.transformer, method, dtype)
        keep_in_fp32_modules = tuple(method._keep_in_fp32_modules or ())
        denoiser = MethodDenoiser(pipe, method, scale=scale)
        self.denoiser = diffusion.CastParameters(denoiser, dtype, keep_in_fp32_modules=keep_in_fp32_modules)
        self.prompts, self.embeddings, self.dtype = prompts, embeddings, dtype

    @torch.no_grad()
    def __call__(
        self,
        rows: Tensor,
        references: Tensor,
        pixels: Tensor,
        *,
        is_unconditional: Tensor,
        active: Tensor,
        noisy: Tensor,
        timesteps: Tensor,
    ) -> Tensor:
        """Predict v in float32.

        Shapes:
            rows: (batch,), rows of the targets
            references: (batch, references), rows of the references
            pixels: (batch, references, 3, height, width) in [-1, 1], of those references
            is_unconditional: (batch,), boolean: which prompts were dropped
            active: (batch,), boolean: which samples have an identity
            noisy: (batch, frames, channels, height, width)
            timesteps: (batch,)
            returns: as `noisy`
        """
        count = references.shape[1]
        token_ids = torch.where(is_unconditional[:, None], self.prompts.empty_ids, self.prompts.prompt_ids[count][rows])
        inputs = DenoiserInputs(
            token_ids=token_ids,
            class_mask=self.prompts.class_masks[count][rows] & ~is_unconditional[:, None],
            pixels=pixels.to(self.dtype),
            extra_conditioning=self.embeddings[references],
            active=active,
            noisy=noisy.to(self.dtype),
            timesteps=timesteps,
        )
        return self.denoiser(inputs).float()
