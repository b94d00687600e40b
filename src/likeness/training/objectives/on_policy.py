"""Latents that a model in training has drawn itself, on the way from noise to a image.

In the data's noisy latents a person already shows, so a model that learns from them alone learns to trust what it is
given; while sampling it is given its own mistakes. A reward taken on its own latents, with the gradient of the last step
alone, is ReFL's (arXiv:2304.05977v4). A teacher that says what it would do from there is on-policy distillation
(arXiv:2306.13649v3).
"""

from collections.abc import Callable
from typing import Self

import torch
from pydantic import Field, model_validator
from torch import Tensor

from likeness.training.objectives.diffusion import DiffusionStageSettings, add_noise, clean_from, noise_from

Denoise = Callable[[Tensor, Tensor], Tensor]
"""From latents (batch, frames, channels, height, width) and timesteps (batch,) to v, shaped as the latents."""


class RolloutSettings(DiffusionStageSettings):
    """What a stage says that learns from its own latents."""

    rollout_samples: int = Field(default=0, ge=0)
    """Of at most so many samples of a process's share of a step the identity loss, and with `on_policy_distillation_weight` what a teacher
    says, is also taken on latents that the method has drawn itself, with `guidance`."""
    rollout_steps: int = Field(default=4, ge=1)
    """Steps in which it draws them."""
    rollout_from: float = Field(default=0.03, gt=0, lt=1)
    """They begin with so little signal of a clip: enough to know where its face will be."""
    rollout_to: tuple[float, float] = (0.05, 0.6)
    """They end anywhere between these shares of signal. Nearer to 1 a recognizer is served sooner than a face."""

    @model_validator(mode="after")
    def _goes_on(self) -> Self:
        low, high = self.rollout_to
        if not self.rollout_from <= low <= high < 1:
            raise ValueError(
                f"rollouts of stage `{self.name}` begin at a share of signal of {self.rollout_from} and end between {low} "
                f"and {high}: give `rollout_to` two shares below 1, neither below `rollout_from`"
            )
        return self


@torch.no_grad()
def sample_on_policy(
    denoise: Denoise, clean: Tensor, alpha_bars: Tensor, settings: RolloutSettings
) -> tuple[Tensor, Tensor]:
    """Noisy latents that a model has drawn itself, and the timesteps that they have come to.

    Shapes:
        clean: (batch, frames, channels, height, width), over which the first noise is laid
        alpha_bars: (timesteps,)
        returns: as `clean`; (batch,)
    """
    low, high = settings.rollout_to
    start = timestep_of(torch.full((len(clean),), settings.rollout_from), alpha_bars)
    ends = timestep_of(low + (high - low) * torch.rand(len(clean)), alpha_bars)
    noisy, _ = add_noise(clean, torch.randn_like(clean), alpha_bars[start])
    return roll_out(denoise, noisy, start, ends, alpha_bars, steps=settings.rollout_steps), ends


def timestep_of(signal: Tensor, alpha_bars: Tensor) -> Tensor:
    """The last timestep with at least this share of signal in its variance, 0 if none has: (batch,) to (batch,)."""
    return (alpha_bars >= signal[:, None]).sum(dim=1).sub(1).clamp(min=0)


@torch.no_grad()
def roll_out(
    denoise: Denoise, noisy: Tensor, begins: Tensor, ends: Tensor, alpha_bars: Tensor, *, steps: int
) -> Tensor:
    """Go from one timestep of each sample down to another, in DDIM's steps (arXiv:2010.02502v4, Eq. 12, sigma 0).

    Shapes:
        noisy: (batch, frames, channels, height, width)
        begins, ends: (batch,), timesteps
        alpha_bars: (timesteps,)
        returns: as `noisy`
    """
    for step in range(steps):
        now, after = (torch.lerp(begins.float(), ends.float(), (step + i) / steps).long() for i in (0, 1))
        noisy = step_to(noisy, denoise(noisy, now).float(), alpha_bars[now], alpha_bars[after])
    return noisy


def step_to(noisy: Tensor, velocity: Tensor, now: Tensor, after: Tensor) -> Tensor:
    """The same clip under the same noise, at another alpha_bar.

    Shapes:
        noisy, velocity: (batch, frames, channels, height, width)
        now, after: (batch,), alpha_bar
        returns: as `noisy`
    """
    clean, noise = clean_from(noisy, velocity, now), noise_from(noisy, velocity, now)
    return add_noise(clean, noise, after)[0]
