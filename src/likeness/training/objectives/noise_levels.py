"""The loss by noise level: where on the way from noise to clean latents a model still errs."""

from torch import Tensor

from likeness.training.objectives.diffusion import NUM_TRAIN_TIMESTEPS

NOISE_LEVELS = 4
"""Ranges of timesteps, of equal length."""


def loss_by_noise_level(error: Tensor, timesteps: Tensor, weight: Tensor) -> dict[str, float]:
    """The mean error of the samples in each quarter of the timesteps: `denoising_t0` (least noise) to `denoising_t3`.

    A quarter without samples is left out.

    Shapes:
        error, timesteps, weight: (batch,); samples of weight 0 do not count
    """
    error, timesteps, weight = (values.detach().cpu() for values in (error, timesteps, weight))
    metrics: dict[str, float] = {}
    levels = timesteps * NOISE_LEVELS // NUM_TRAIN_TIMESTEPS
    for level in range(NOISE_LEVELS):
        chosen = (levels == level) & (weight > 0)
        if chosen.any():
            metrics[f"denoising_t{level}"] = float(error[chosen].mean())
    return metrics
