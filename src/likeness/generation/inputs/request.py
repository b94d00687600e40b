"""One clip to make: its prompt, reference faces and seed."""

from dataclasses import dataclass
from typing import Any

from likeness.adapters.conditioning.regions import Regions
from likeness.records import Face


@dataclass(frozen=True, kw_only=True, slots=True)
class GenerationRequest:
    """One clip of a batch."""

    prompt: str
    references: tuple[Face, ...]
    seed: int = 0
    character: dict[str, Any] | None = None
    """What `Character.describe` says, where the references are those of one."""
    others: tuple[tuple[Face, ...], ...] = ()
    """References of the second person and those after, where several are shown."""
    regions: Regions | None = None
    """Where several people are."""

    @property
    def people(self) -> tuple[tuple[Face, ...], ...]:
        """References of everyone, in the order of their numbers."""
        return (self.references, *self.others)
