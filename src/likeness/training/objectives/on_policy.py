"""On-policy latents: latents that the model in training has denoised itself, starting almost from noise.

In noisy latents of the data the person is already visible, so a model trained on them alone learns to rely on that;
while sampling it receives its own errors. A reward on its own latents with the gradient of the last step alone is ReFL
(arXiv:2304.05977v4). A teacher evaluated on them is on-policy distillation (arXiv:2306.13649v3).
"""

from collections.abc import Callable
from typing import Self

import torch
from pydantic import Field, model_validator
from torch import Tensor

from likeness.training.objectives.diffusion import (
    DiffusionStageSettings,
    noisy_and_velocity,
    velocity_to_noise,
    velocity_to_x0,
)

PredictVelocity = Callable[[Tensor, Tensor], Tensor]
"""From latents (batch, frames, channels, height, width) and timesteps (batch,) to v, shaped as the latents."""


class RolloutSettings(DiffusionStageSettings):
    """Settings of a stage that can train on on-policy latents."""

    rollout_samples: int = Field(default=0, ge=0)
    """At most this many samples of a process's share of a step also get the on-policy losses: the identity loss and,
    with `on_policy_distillation_weight`, the error to the teacher. Rollouts use `guidance`."""
    rollout_steps: int = Field(default=4, ge=1)
    """DDIM steps of a rollout."""
    rollout_from: float = Field(default=0.03, gt=0, lt=1)
    """Share of signal (alpha_bar) of the target at which rollouts start: enough for the position of the face."""
    rollout_to: tuple[float, float] = (0.05, 0.6)
    """Range of the share of signal at which rollouts end. Nearer to 1 the recognizer is exploited."""

    @model_validator(mode="after")
    def _check_rollout_range(self) -> Self:
        low, high = self.rollout_to
        if not self.rollout_from <= low <= high < 1:
            raise ValueError(
                f"rollouts of stage `{self.name}` start at a share of signal of {self.rollout_from} and end between "
                f"{low} and {high}: give `rollout_to` two shares below 1, neither below `rollout_from`"
            )
        return self


@torch.no_grad()
def sample_on_policy(
    predict_velocity: PredictVelocity, clean: Tensor, alphas_cumprod: Tensor, settings: RolloutSettings
) -> tuple[Tensor, Tensor]:
    """Noisy latents from a rollout, and the timesteps at which they ended.

    Shapes:
        clean: (batch, frames, channels, height, width); `rollout_from` of them is in the first latents
        alphas_cumprod: (timesteps,)
        returns: as `clean`; (batch,)
    """
    low, high = settings.rollout_to
    start = timestep_at_alpha_bar(torch.full((len(clean),), settings.rollout_from), alphas_cumprod)
    end = timestep_at_alpha_bar(low + (high - low) * torch.rand(len(clean)), alphas_cumprod)
    noisy, _ = noisy_and_velocity(clean, torch.randn_like(clean), alphas_cumprod[start])
    return roll_out(predict_velocity, noisy, start, end, alphas_cumprod, steps=settings.rollout_steps), end


def timestep_at_alpha_bar(signal: Tensor, alphas_cumprod: Tensor) -> Tensor:
    """The last timestep whose alpha_bar is at least `signal`, 0 if there is none: (batch,) to (batch,)."""
    return (alphas_cumprod >= signal[:, None]).sum(dim=1).sub(1).clamp(min=0)


@torch.no_grad()
def roll_out(
    predict_velocity: PredictVelocity, noisy: Tensor, start: Tensor, end: Tensor, alphas_cumprod: Tensor, *, steps: int
) -> Tensor:
    """Denoise each sample from one timestep to another by DDIM (arXiv:2010.02502v4, Eq. 12, sigma 0).

    Shapes:
        noisy: (batch, frames, channels, height, width)
        start, end: (batch,), timesteps
        alphas_cumprod: (timesteps,)
        returns: as `noisy`
    """
    for step in range(steps):
        current, following = (torch.lerp(start.float(), end.float(), (step + i) / steps).long() for i in (0, 1))
        noisy = ddim_step(
            noisy, predict_velocity(noisy, current).float(), alphas_cumprod[current], alphas_cumprod[following]
        )
    return noisy


def ddim_step(noisy: Tensor, velocity: Tensor, alpha_bar: Tensor, next_alpha_bar: Tensor) -> Tensor:
    """The predicted x0 and noise, mixed for another alpha_bar.

    Shapes:
        noisy, velocity: (batch, frames, channels, height, width)
        alpha_bar, next_alpha_bar: (batch,), of the current and of the next timestep
        returns: as `noisy`
    """
    clean, noise = velocity_to_x0(noisy, velocity, alpha_bar), velocity_to_noise(noisy, velocity, alpha_bar)
    return noisy_and_velocity(clean, noise, next_alpha_bar)[0]
