"""Learning rate schedules: a linear warm-up over steps, times a factor that depends on the progress of the stage."""

import math
from typing import Literal

Schedule = Literal["cosine", "cosine_with_restarts", "linear", "constant"]


def learning_rate_factor(
    schedule: Schedule, *, step: int, progress: float, warmup_steps: int, final_fraction: float, cycles: int = 1
) -> float:
    """The factor of the peak learning rate.

    Args:
        schedule: `cosine` and `linear` fall from 1 to `final_fraction`; `cosine_with_restarts` does so `cycles` times
            (as diffusers' scheduler of that name, with hard restarts); `constant` stays at 1.
        step: Optimizer steps done.
        progress: Completed share of the stage, from 0 to 1.
        warmup_steps: Steps of linear warm-up.
        final_fraction: Factor at the end.
        cycles: Number of cycles of `cosine_with_restarts`.
    """
    warmup = min(1.0, (step + 1) / warmup_steps) if warmup_steps else 1.0
    progress = min(progress, 1.0)
    if schedule == "constant":
        return warmup
    if schedule == "linear":
        decay = 1 - progress
    else:
        position = progress
        if schedule == "cosine_with_restarts":
            position = 1.0 if progress >= 1 else (progress * cycles) % 1.0
        decay = 0.5 * (1 + math.cos(math.pi * position))
    return warmup * (final_fraction + (1 - final_fraction) * decay)
