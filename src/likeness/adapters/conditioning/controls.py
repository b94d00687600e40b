"""How a person asks an identity to act: how strongly, in which steps, in which blocks, in which branch of guidance."""

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Literal

from diffusers.pipelines.cogvideo.pipeline_cogvideox import CogVideoXPipeline
from torch import Tensor

from likeness.adapters.conditioning.regions import Regions
from likeness.errors import ConfigError

Branch = Literal["conditional", "both"]
BRANCHES: tuple[Branch, ...] = ("conditional", "both")


@dataclass(frozen=True, kw_only=True, slots=True)
class IdentityControls:
    """What a user sets on an identity. The defaults are as trained.

    Raises:
        ConfigError: A value is out of range.

    Example:
        IdentityControls(scale=0.8, start=0.1, end=0.9, blocks=range(0, 20))
    """

    scale: float = 1.0
    """How strong it is; 0 is the stock pipeline, bit for bit."""
    start: float = 0.0
    """Share of the sampling steps before it acts, as diffusers' `control_guidance_start`."""
    end: float = 1.0
    """Share of the sampling steps after which it does not act any more, as `control_guidance_end`."""
    blocks: range | Sequence[int] | None = None
    """Numbers of the transformer's blocks in which it acts; None for all that are adapted."""
    branch: Branch = "conditional"
    """Which rows see it under guidance: the conditional ones, or both."""
    regions: Regions | None = None
    """Where people are, when there are several; None for strips from left to right."""

    def __post_init__(self) -> None:
        if not (self.scale >= 0 and math.isfinite(self.scale)):
            raise ConfigError(
                f"The identity scale is {self.scale}; it must be a finite number from 0. 1 is as trained."
            )
        if not 0 <= self.start < self.end <= 1:
            raise ConfigError(
                f"The identity acts from {self.start} to {self.end} of the steps; "
                "shares must satisfy 0 <= start < end <= 1. 0 and 1 are all steps."
            )
        if self.branch not in BRANCHES:
            raise ConfigError(f"`branch` is {self.branch!r}; it must be one of {', '.join(BRANCHES)}.")

    @property
    def has_window(self) -> bool:
        """Whether there are steps without the identity."""
        return self.start > 0 or self.end < 1

    def is_open(self, step: int, num_steps: int) -> bool:
        """Whether the identity acts in this step, counted from 0; the rule of diffusers' ControlNet pipelines."""
        return not (step / num_steps < self.start or (step + 1) / num_steps > self.end)

    def acting(self, adapted: Iterable[int], num_blocks: int) -> frozenset[int] | None:
        """Return the adapted blocks that act, or None for all of them.

        Of a range the adapted ones are taken. A block named one by one has to be adapted.

        Raises:
            ConfigError: There is no such block, or it is not adapted.
        """
        if self.blocks is None:
            return None
        adapted = frozenset(adapted)
        # Stops at the first: a range may be far longer than the transformer, and than memory.
        beyond = next((number for number in self.blocks if not 0 <= number < num_blocks), None)
        if beyond is not None:
            raise ConfigError(
                f"`blocks` names {beyond}; the transformer has blocks 0 to {num_blocks - 1}. Take some of those."
            )
        named = set(self.blocks) - adapted
        if named and not isinstance(self.blocks, range):
            raise ConfigError(
                f"`blocks` names {min(named)}, which is not adapted; those are {', '.join(map(str, sorted(adapted)))}. "
                "Name some of those, or give a range."
            )
        return adapted.intersection(self.blocks)


def timesteps_of(pipe: CogVideoXPipeline | None) -> list[float] | None:
    """Timesteps of the call that `pipe` is in; None outside of one, where nobody knows how many come."""
    if pipe is None or getattr(pipe, "current_timestep", None) is None:
        return None
    return pipe.scheduler.timesteps.tolist()[-pipe.num_timesteps :]


def current_step(timesteps: list[float] | None, timestep: Tensor) -> int:
    """Number of the sampling step that a pipeline is in.

    Raises:
        ConfigError: The transformer runs outside of a pipeline's call, where nobody counts steps.
    """
    if timesteps is None:
        raise ConfigError(
            "The identity has a `start` or `end`, but the transformer runs outside of a pipeline's call, "
            "where steps are not counted. Attach to a pipeline and call that, or leave both out."
        )
    return timesteps.index(timestep.flatten()[0].item())
