"""User settings of an identity: its scale, and the steps, blocks and guidance branch in which it is active."""

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Literal

from likeness.adapters.conditioning.regions import Regions
from likeness.errors import ConfigError

Branch = Literal["conditional", "both"]
BRANCHES: tuple[Branch, ...] = ("conditional", "both")
ActiveBlocks = frozenset[int] | None
"""Numbers of the adapted blocks in which the identity is active; None for all of them."""
StepSchedule = Sequence[tuple[float, ActiveBlocks]]
"""Every step of a pipeline call: its timestep and the active blocks."""


@dataclass(frozen=True, kw_only=True, slots=True)
class IdentitySettings:
    """User settings of an identity. The defaults are those of training.

    Raises:
        ConfigError: A value is out of range.

    Example:
        IdentitySettings(scale=0.8, start=0.1, end=0.9, blocks=range(0, 20))
    """

    scale: float = 1.0
    """Strength of the identity; 0 is the stock pipeline, bit for bit."""
    start: float = 0.0
    """Share of the sampling steps before it is active, as diffusers' `control_guidance_start`."""
    end: float = 1.0
    """Share of the sampling steps after which it is inactive, as diffusers' `control_guidance_end`."""
    blocks: range | Sequence[int] | None = None
    """Numbers of the transformer's blocks in which it is active; None for all that are adapted."""
    branch: Branch = "conditional"
    """Rows that have the identity under guidance: the conditional ones, or both."""
    regions: Regions | None = None
    """Regions of several people; None for strips from left to right."""

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
        """Whether some steps run without the identity."""
        return self.start > 0 or self.end < 1

    def is_open(self, step: int, num_steps: int) -> bool:
        """Whether the identity is active in this step, counted from 0; the rule of diffusers' ControlNet pipelines."""
        return not (step / num_steps < self.start or (step + 1) / num_steps > self.end)

    def active_blocks(self, adapted: Iterable[int], num_blocks: int) -> ActiveBlocks:
        """Return the adapted blocks in which the identity is active, or None for all of them.

        A range selects the adapted blocks in it. A block that is listed by number has to be adapted.

        Raises:
            ConfigError: A block does not exist, or it is listed and not adapted.
        """
        if self.blocks is None:
            return None
        adapted = frozenset(adapted)
        # Stops at the first one: a range may be longer than memory allows to list.
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
