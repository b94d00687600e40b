"""One clip to make: its prompt, reference faces and seed."""

from dataclasses import dataclass
from typing import Any

from likeness.adapters.conditioning.regions import Regions
from likeness.records import Face


@dataclass(frozen=True, kw_only=True, slots=True)
class GenerationRequest:
    """One clip of a batch."""

    prompt: str
    people: tuple[tuple[Face, ...], ...]
    """Reference faces of each person, in the order of their numbers in the prompt."""
    seed: int = 0
    character: dict[str, Any] | None = None
    """`Character.describe()`, if the person is a character."""
    regions: Regions | None = None
    """Regions of several people."""

    @property
    def is_multi_person(self) -> bool:
        return len(self.people) > 1
