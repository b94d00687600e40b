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
    """`Character.describe()`, if the references are those of a character."""
    others: tuple[tuple[Face, ...], ...] = ()
    """References of the second and further people."""
    regions: Regions | None = None
    """Regions of several people."""

    @property
    def people(self) -> tuple[tuple[Face, ...], ...]:
        """References of all people, in the order of their numbers."""
        return (self.references, *self.others)
