"""One video to be evaluated. It is apart from `items` so that requests are checked before anything heavy is imported."""

from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True, kw_only=True, slots=True)
class VideoItem:
    """One video to be evaluated."""

    path: str | Path
    identity: str | None = None
    """A name in the references; None finds it by the file's name."""
    prompt: str | None = None
    system: str = "videos"
    """What made it; systems are compared with each other."""
    name: str | None = None
    """Unique in its system, the same for the same task in all systems; None takes the file's name without suffix."""

    @property
    def title(self) -> str:
        return self.name if self.name is not None else Path(self.path).stem
