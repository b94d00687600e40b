"""One micro-batch of a method's training: what was drawn for it, and what was read."""

from dataclasses import dataclass, fields
from typing import Any, Self

import torch
from torch import Tensor

from likeness.training.engine import distributed
from likeness.training.objectives.denoiser import DenoiserInputs


@dataclass(frozen=True, kw_only=True, slots=True)
class MethodBatch:
    """One micro-batch of `MethodStage`."""

    rows: Tensor
    """(batch,), rows of the targets."""
    reference_indices: Tensor
    """(batch, references), indices into `TrainingData.references`."""
    inputs: DenoiserInputs
    """What the denoiser is given, in the stage's dtype."""
    noisy: Tensor
    """(batch, frames, channels, height, width), in float32."""
    velocity: Tensor
    """The v of the data, as `noisy`."""
    alpha_bar: Tensor
    """(batch,), the share of signal."""
    uses_whole_frame: Tensor
    """(batch,), boolean: samples whose loss is computed over the whole frame, not over the face alone."""
    weight: Tensor
    """(batch,), of each sample in this process's loss: the mean over processes is the mean over all samples."""
    spec: "BatchSpec"
    """What the batch was read from."""


@dataclass(frozen=True, kw_only=True, slots=True)
class BatchSpec:
    """What was chosen at random for one micro-batch, before latents and crops are read.

    Fields as in `MethodBatch` and `DenoiserInputs`.
    """

    rows: Tensor
    weight: Tensor
    reference_indices: Tensor
    token_ids: Tensor
    class_mask: Tensor
    active: Tensor
    timesteps: Tensor

    def local_share(self) -> Self:
        return type(self)(**{field.name: distributed.local_rows(getattr(self, field.name)) for field in fields(self)})


def with_identity_row(stage: Any, inputs: DenoiserInputs, row: Tensor, num_references: int) -> DenoiserInputs:
    """Add a copy of the first sample with its identity if no sample has one together with its class word.

    FSDP2 reduces the gradients of a module in all processes or in none, so every process has to use every part of the
    method. The added row's loss is multiplied by zero.

    Args:
        stage: With prompts, device and text states.
        inputs: Of the micro-batch.
        row: (1,), row of the first target.
        num_references: Of each sample.
    """
    if bool((inputs.active & inputs.class_mask.bool().any(dim=1).cpu()).any()):
        return inputs
    token_ids, class_mask = (
        stage.prompts.prompt_ids[num_references][row],
        stage.prompts.class_masks[num_references][row],
    )
    first = DenoiserInputs(
        token_ids=token_ids.to(stage.device),
        class_mask=class_mask.to(stage.device),
        pixels=None if inputs.pixels is None else inputs.pixels[:1],
        extra_conditioning=None if inputs.extra_conditioning is None else inputs.extra_conditioning[:1],
        active=torch.ones(1, dtype=torch.bool),
        noisy=inputs.noisy[:1],
        timesteps=inputs.timesteps[:1],
        text=stage.text_states(token_ids),
    )
    return inputs.concatenate(first)
