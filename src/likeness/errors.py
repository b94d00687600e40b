"""The exceptions of likeness.

LikenessError            (exit code 2)
├── ConfigError          a setting is missing, misspelt or out of range
├── PromptError          (3) a prompt cannot be used as it is
├── MediaError           (3) a picture or video cannot be read or written
├── CharacterError       (3) a saved character cannot be read or written
├── FaceError            (3) a reference picture is unusable
│   ├── NoFaceError
│   ├── ManyFacesError
│   └── SmallFaceError
├── InterruptedRunError  (130, 143) a training run was stopped
└── ResourceError        (4) something that the machine should have is missing
    ├── WeightsError     weights are absent, altered or of another architecture
    ├── CheckpointError  a training run cannot be resumed as asked
    ├── FileWriteError   a file cannot be written
    ├── SamplingError    the model gave values that are not finite
    └── LockedError      another process holds a lock

A message says what happened, what was expected, and what to do next, in that order.
"""

import signal
from collections.abc import Sequence

Box = tuple[float, float, float, float]


class LikenessError(Exception):
    """Base class. The CLI prints only the message and exits with `exit_code`; `--debug` adds the traceback."""

    exit_code = 2


class ConfigError(LikenessError, ValueError):
    """A setting is missing, misspelt or out of range."""


class PromptError(LikenessError, ValueError):
    """A prompt is too long, or its trigger word is misused."""

    exit_code = 3


class MediaError(LikenessError):
    """A picture or video cannot be read or written."""

    exit_code = 3


class CharacterError(LikenessError):
    """A saved character cannot be read or written."""

    exit_code = 3


class FaceError(LikenessError):
    """A reference picture is unusable."""

    exit_code = 3


class NoFaceError(FaceError):
    """No detection reached the required score."""

    def __init__(self, source: str, *, best_score: float | None, min_score: float) -> None:
        if best_score is None:
            reached = "nothing looked like one"
        else:
            reached = f"the best guess scored {best_score:.2f}, at least {min_score:.2f} is needed"
        super().__init__(
            f"No face found in {source}: {reached}. Use a sharper, upright picture in which the person looks towards "
            "the camera with nothing over the face, and crop it if the face is small in a large picture."
        )
        self.source = source
        self.best_score = best_score


class ManyFacesError(FaceError):
    """Several faces were found where one was expected."""

    def __init__(self, source: str, boxes: Sequence[Box], *, option: str = "--pick") -> None:
        listed = "\n".join(
            f"  {number}: left {left:.0f}, top {top:.0f}, right {right:.0f}, bottom {bottom:.0f}"
            for number, (left, top, right, bottom) in enumerate(boxes, start=1)
        )
        super().__init__(
            f"{len(boxes)} faces found in {source} where one was meant. Boxes in pixels, from the left:\n{listed}\n"
            f"Choose one by its number with `{option} N` (in Python: `read_face(..., pick=N)`), or crop the picture."
        )
        self.source = source
        self.boxes = tuple(boxes)


class SmallFaceError(FaceError):
    """The only faces are too small for recognition."""

    def __init__(self, source: str, *, side_px: float, min_side_px: float) -> None:
        super().__init__(
            f"The face in {source} is {side_px:.0f} px wide; at least {min_side_px:.0f} px are needed. "
            "Use a picture with more pixels, or one taken from closer."
        )
        self.source = source
        self.side_px = side_px


class InterruptedRunError(LikenessError):
    """A training run was stopped by a signal; what it has saved remains."""

    def __init__(self, message: str, number: int = signal.SIGINT) -> None:
        super().__init__(message)
        self.exit_code = 128 + number


class ResourceError(LikenessError):
    """Something that the machine should have (a file, memory, a device) is missing."""

    exit_code = 4


class WeightsError(ResourceError):
    """Weights are absent, altered or of another architecture."""


class CheckpointError(ResourceError):
    """A training run cannot be resumed as asked."""


class FileWriteError(ResourceError):
    """A file or folder cannot be written: the disk is full or not writable."""


class SamplingError(ResourceError):
    """The model gave values that are not finite: damaged weights, or an overflow of the dtype."""


class LockedError(ResourceError):
    """Another process holds a lock that this one needs."""
