"""What the adapted blocks are told during one forward pass of the transformer."""

from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from likeness.adapters.conditioning.controls import Branch
from likeness.adapters.conditioning.regions import Grid, RegionMasks, Regions, lay_out
from likeness.errors import ConfigError

if TYPE_CHECKING:
    from likeness.adapters.sampling.precompute import ModulationCache

CONDITION_KEY = "face_condition"


@dataclass(frozen=True, kw_only=True, slots=True, eq=False)
class FaceCondition:
    """What the adapted blocks are told during one forward pass.

    Shapes:
        identity: (batch, identity_width): x_id after CAN's global projection; None without CAN. Where each row shows
            several people it is (batch, people, identity_width)
        face: (batch, face_tokens, width): x_face, of one person after the other; face_tokens may be 0
        active: (batch,), bool: rows that have an identity; None for all
    """

    identity: Tensor | None
    face: Tensor
    active: Tensor | None = None
    scale: float = 1.0
    branch: Branch = "conditional"
    acting: frozenset[int] | None = None
    """Numbers of the blocks in which the identity acts; None for all that are adapted."""
    is_guided: bool | None = None
    """Whether the batch holds both branches of guidance; None where its size alone can tell."""
    batch: int = 0
    """Rows of the transformer's own call. FasterCache may halve them on the way to the blocks."""
    sampling_cache: "ModulationCache | None" = None
    """What was computed before, while sampling; None computes all of it in the blocks, with gradients."""
    text_tokens: int = 0
    """Length of the text, by which a block sees whether the face already stands behind it."""
    grid: Grid | None = None
    """Frames, rows and columns of the video's tokens."""
    regions: Regions | None = None
    """Where the people of a row are; None for one person."""
    num_people: int = 1
    """In each row."""
    whose: Tensor | None = None
    """(prompts, text_tokens), int64: whose class word each word is; None where nobody knows."""
    places: RegionMasks | None = None
    """`regions` over the tokens of this pass."""
    kept: dict[Any, RegionMasks] = field(default_factory=dict)
    """RegionMasks of passes before."""
    rows: dict[int, tuple[list[int], list[int]]] = field(default_factory=dict)
    """Which rows are adapted and which are not, by batch size: the same in every block."""

    def split(self, batch: int) -> tuple[list[int], list[int]]:
        """Rows of a batch that are adapted, and rows that are not.

        A batch of twice the identities is guidance in one pass: the unconditional rows, then the conditional ones.

        Raises:
            ConfigError: The batch is neither as large as the identities nor twice that, or not the one of both that
                `is_guided` asks for. Two prompts without guidance would pass for one with it.
        """
        if batch not in self.rows:
            known = len(self.face)
            sizes = {None: (known, 2 * known), False: (known,), True: (2 * known,)}[self.is_guided]
            if batch not in sizes:
                expected = {
                    None: f"{known} or, with guidance in one pass, {2 * known} were",
                    False: f"without guidance {known} was",
                    True: f"with guidance in one pass {2 * known} was",
                }[self.is_guided]
                raise ConfigError(
                    f"The transformer got a batch of {batch}, but the identity is for {known}: {expected} expected. "
                    "Make the prompts with `mirror.prompt`, or give one identity for each prompt."
                )
            active = [True] * known if self.active is None else self.active.tolist()
            if batch == 2 * known:
                active = (active if self.branch == "both" else [False] * known) + active
            adapted = [row for row, is_active in enumerate(active) if is_active]
            stock = [row for row, is_active in enumerate(active) if not is_active]
            self.rows[batch] = (adapted, stock)
        return self.rows[batch]

    def take(self, rows: list[int]) -> "FaceCondition":
        """Select the identities of these rows of the transformer's batch."""
        index = torch.tensor(rows, device=self.face.device) % len(self.face)
        identity = None if self.identity is None else self.identity[index]
        places = None if self.places is None else self.places.take(rows)
        return replace(self, identity=identity, face=self.face[index], places=places, active=None)

    def on_grid(self, grid: Grid) -> "FaceCondition":
        """Lay the regions of several people out over the tokens of the coming pass."""
        if self.regions is None:
            return replace(self, grid=grid)
        key = (grid, self.text_tokens, len(self.face), self.face.device)
        if key not in self.kept:
            self.kept[key] = lay_out(
                self.regions,
                self.whose,
                grid,
                rows=len(self.face),
                text_tokens=self.text_tokens,
                num_people=self.num_people,
                device=self.face.device,
            )
        return replace(self, grid=grid, places=self.kept[key])

    def stock_kwargs(self, given: dict[str, Any], rows: list[int], like: Tensor) -> dict[str, Any]:
        """What a frozen block is told beside `given`: to keep regions apart, where that is asked for."""
        bias = None if self.places is None else self.places.base_bias(rows, like)
        return given if bias is None else {**given, "attention_mask": bias}
