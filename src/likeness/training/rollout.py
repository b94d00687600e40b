"""Latents that a model in training has drawn itself, on the way from noise to a picture.

In the data's noisy latents a person already shows, so a model that learns from them alone learns to trust what it is
given; while sampling it is given its own mistakes. A reward taken on its own latents, with the gradient of the last step
alone, is ReFL's (arXiv:2304.05977).
"""

from collections.abc import Callable

import torch
from torch import Tensor

from likeness.training.diffusion import clean_from


@torch.no_grad()
def roll_out(
    denoise: Callable[[Tensor, Tensor], Tensor],
    noisy: Tensor,
    start: int,
    ends: Tensor,
    alpha_bars: Tensor,
    *,
    steps: int,
) -> Tensor:
    """Go from one timestep down to another of each sample's own, in DDIM's steps of equal length.

    Shapes:
        denoise: from latents and timesteps to v
        noisy: (batch, frames, channels, height, width)
        ends: (batch,), timesteps no greater than `start`
        alpha_bars: (timesteps,)
        returns: as `noisy`
    """
    begins = torch.full_like(ends, start)
    for step in range(steps):
        now, after = (torch.lerp(begins.float(), ends.float(), (step + i) / steps).long() for i in (0, 1))
        velocity = denoise(noisy, now).float()
        noisy = step_to(noisy, velocity, alpha_bars[now], alpha_bars[after])
    return noisy


def step_to(noisy: Tensor, velocity: Tensor, now: Tensor, after: Tensor) -> Tensor:
    """DDIM's step (arXiv:2010.02502, Eq. 12, eta 0) from one alpha_bar to the next; both have one number a sample."""
    keep, blur, keep_after, blur_after = (
        share.sqrt().view(-1, *[1] * (noisy.ndim - 1)) for share in (now, 1 - now, after, 1 - after)
    )
    noise = keep * velocity + blur * noisy
    return keep_after * clean_from(noisy, velocity, now) + blur_after * noise
