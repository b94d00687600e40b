"""The condition that adapted blocks receive in one forward pass of the transformer."""

from dataclasses import dataclass, field, replace
from typing import Any, Protocol

import torch
from torch import Tensor

from likeness.adapters.conditioning.identity_settings import ActiveBlocks, Branch, IdentitySettings, StepSchedule
from likeness.adapters.conditioning.regions import Grid, RegionMasks
from likeness.errors import ConfigError

CONDITION_KEY = "face_condition"
"""Key of the condition in `attention_kwargs`."""


class SamplingCache(Protocol):
    """Values of one identity that are computed once and used in all sampling steps (`ModulationCache`, `KVCache`)."""

    def is_applicable(self) -> bool:
        """Whether cached values give the same result as the blocks themselves."""
        ...

    def prepare(
        self, condition: "FaceCondition", timestep: Tensor, steps: StepSchedule | None, dtype: torch.dtype, /
    ) -> None:
        """Set up the coming pass; `steps` are all steps of the pipeline call, or None outside of one."""
        ...

    def run_block(
        self,
        block: Any,
        hidden_states: tuple[Tensor, ...],
        temb: Tensor,
        rope: tuple[Tensor, Tensor] | None,
        condition: "FaceCondition",
        /,
    ) -> tuple[Tensor, Tensor]:
        """Run the identity's part of an adapted block with cached values.

        Shapes:
            hidden_states: each (batch, tokens, width), as the block's class defines them
            temb: (batch, time_width)
            returns: the block's two outputs
        """
        ...

    def restore(self) -> None:
        """Make the transformer usable without the cache: another pass, training or other prompts come next.

        Weights that the cache offloaded go back to their device, and values that such a pass could make stale are
        dropped.
        """
        ...

    def close(self) -> None:
        """Restore the transformer and drop all cached values."""
        ...


@dataclass(frozen=True, kw_only=True, slots=True, eq=False)
class BatchLayout:
    """Rows and tokens of one forward pass."""

    num_identities: int
    """Rows of the identity tensors."""
    num_rows: int = 0
    """Rows of the transformer's own call. FasterCache may give the blocks half of them."""
    text_tokens: int = 0
    """Length of the text. A block finds the face tokens behind it."""
    grid: Grid | None = None
    """Frames, rows and columns of the video's tokens."""
    num_people: int = 1
    """People in each row."""
    active: tuple[bool, ...] | None = None
    """For each identity, whether its row is adapted; None for all."""
    is_guided: bool | None = None
    """Whether the batch holds both branches of guidance; None to tell by its size."""

    def split(self, batch: int, branch: Branch) -> tuple[list[int], list[int]]:
        """Return the rows of a batch that are adapted, and the rows that are not.

        A batch of twice the identities is guidance in one pass: the unconditional rows, then the conditional ones.

        Raises:
            ConfigError: The batch size is not one that `is_guided` allows. Without this check, two prompts without
                guidance would pass for one prompt with guidance.
        """
        known = self.num_identities
        sizes = {None: (known, 2 * known), False: (known,), True: (2 * known,)}[self.is_guided]
        if batch not in sizes:
            expected = {
                None: f"{known} or, with guidance in one pass, {2 * known} were",
                False: f"without guidance {known} was",
                True: f"with guidance in one pass {2 * known} was",
            }[self.is_guided]
            raise ConfigError(
                f"The transformer got a batch of {batch}, but the identity is for {known}: {expected} expected. "
                "Make the prompts with the method's `prompt`, or give one identity for each prompt."
            )
        active = [True] * known if self.active is None else list(self.active)
        if batch == 2 * known:
            active = (active if branch == "both" else [False] * known) + active
        adapted = [row for row, is_active in enumerate(active) if is_active]
        stock = [row for row, is_active in enumerate(active) if not is_active]
        return adapted, stock


@dataclass(frozen=True, kw_only=True, slots=True, eq=False)
class FaceCondition:
    """The condition of one forward pass.

    Shapes:
        identity: (batch, identity_width): x_id after CAN's global projection; None without CAN. With several people in
            each row (batch, people, identity_width)
        face: (batch, face_tokens, width): x_face, people one after the other; face_tokens may be 0
    """

    identity: Tensor | None
    face: Tensor
    layout: BatchLayout
    identity_settings: IdentitySettings = field(default_factory=IdentitySettings)
    active_blocks: ActiveBlocks = None
    """Blocks in which the identity is active in this step."""
    region_masks: RegionMasks | None = None
    """Regions of several people over the tokens of this pass."""
    sampling_cache: SamplingCache | None = None
    """Cached values for sampling; None computes everything in the blocks, with gradients."""

    @property
    def scale(self) -> float:
        return self.identity_settings.scale

    @property
    def has_own_positions(self) -> bool:
        """Whether each person's strip has positions of its own."""
        regions = self.identity_settings.regions
        return self.region_masks is not None and regions is not None and regions.own_positions

    def split(self, batch: int) -> tuple[list[int], list[int]]:
        """Return the rows of a batch that are adapted, and the rows that are not (`BatchLayout.split`)."""
        return self.layout.split(batch, self.identity_settings.branch)

    def select(self, rows: list[int]) -> "FaceCondition":
        """Select the identities of these rows of the transformer's batch."""
        index = torch.tensor(rows, device=self.face.device) % len(self.face)
        return replace(
            self,
            identity=None if self.identity is None else self.identity[index],
            face=self.face[index],
            layout=replace(self.layout, num_identities=len(rows), active=None),
            region_masks=None if self.region_masks is None else self.region_masks.select(rows),
        )

    def stock_kwargs(self, given: dict[str, Any], rows: list[int], like: Tensor) -> dict[str, Any]:
        """Return the attention arguments of a frozen block: `given`, and a mask where regions are separated."""
        mask = None if self.region_masks is None else self.region_masks.stock_attention_bias(rows, like)
        return given if mask is None else {**given, "attention_mask": mask}
