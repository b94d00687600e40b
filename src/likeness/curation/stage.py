"""What stages of curation work on, and the protocol that they follow.

A stage is a deterministic function of its inputs and settings: results are kept by a hash of both (`ledger.py`), and a
worker that dies is started again with the same inputs. A change of what a stage computes raises its `version`.
"""

import hashlib
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Literal, Protocol, TypeVar, runtime_checkable

import numpy as np

from likeness.config import Settings
from likeness.errors import ConfigError

Kind = Literal["image", "video"]
GIVEN = ("caption", "person", "class_word", "licence", "source", "consent", "kind", "width_px", "height_px", "fps")
"""Facts that stages may read without an earlier stage that writes them. The last four are always there; the others only
if a list names them.

The writer of samples (`write.py`) uses `caption`, `person`, `class_word`, `licence`, `source`, `consent`; `crop`, the
part of each frame that is kept, as [left, top, right, bottom] in pixels of the source; and `references`, a list of
{"candidate": id, "frame": number in its source, "box": [left, top, right, bottom]}, pictures of the same person, where
`box` may be left out; and `generated`, a list of {"prompt": text, "sha256": of the pixels} that describes the array
`generated`, (pictures, height, width, 3) uint8, further pictures of the person.
"""


@dataclass(frozen=True, kw_only=True, slots=True)
class Source:
    """One raw file."""

    path: Path
    sha256: str
    """Of the file's bytes, in hexadecimal digits."""
    kind: Kind
    facts: dict[str, str] = field(default_factory=dict)
    """What a list says of the file: licence, source, consent, caption, person, class_word."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Drop:
    """Why a candidate is not used."""

    stage: str
    """Name of the stage that decided."""
    reason: str
    """In a few words, equal for equal causes, since reports count them: "too dark"."""
    value: float | str | None = None
    """The figure that decided, or a detail."""


@dataclass(kw_only=True, slots=True, eq=False)
class Candidate:
    """A part of a source that may become a training sample: a picture, or a span of frames, of one person or more."""

    id: str
    """Hexadecimal digits: `make_id` of source, span and track."""
    source: str
    """SHA-256 of the source."""
    first_frame: int = 0
    """First frame of the span, at the source's own rate; 0 for pictures."""
    num_frames: int = 1
    """Length of the span; 1 for pictures."""
    facts: dict[str, Any] = field(default_factory=dict)
    """Figures and decisions of stages by name; JSON values only. It starts as the facts of the source."""
    arrays: dict[str, np.ndarray] = field(default_factory=dict)
    """Boxes, landmarks, embeddings by name; numbers or booleans, no objects."""
    dropped: Drop | None = None

    def drop(self, stage: str, reason: str, value: float | str | None = None) -> "Candidate":
        """A copy of this candidate that is dropped."""
        return replace(self, dropped=Drop(stage=stage, reason=reason, value=value))

    def split(self, first_frame: int, num_frames: int, *, track: str = "") -> "Candidate":
        """A candidate for a part of this span, with copies of the dictionaries of facts and arrays.

        Args:
            first_frame: First frame of the part, counted in the source.
            num_frames: Length of the part.
            track: Tells parts of the same span apart, as the number of a face track.
        """
        return replace(
            self,
            id=make_id(self.source, first_frame, num_frames, track),
            first_frame=first_frame,
            num_frames=num_frames,
            facts=dict(self.facts),
            arrays=dict(self.arrays),
        )


def make_id(source: str, first_frame: int, num_frames: int, track: str = "") -> str:
    """The id of a candidate: 32 hexadecimal digits, the beginning of a SHA-256."""
    return hashlib.sha256(f"{source}:{first_frame}:{num_frames}:{track}".encode()).hexdigest()[:32]


@dataclass(frozen=True, kw_only=True, slots=True)
class Needs:
    """What one call of a stage takes from the machine."""

    cpus: float = 1.0
    gpus: float = 0.0
    batch: int = 1
    """How many frames or candidates the stage processes at once; the engine only reports it."""


class SourceView(Protocol):
    """An opened source. Frames are upright RGB; those that stages ask for again are kept within a memory budget."""

    @property
    def source(self) -> Source: ...
    @property
    def num_frames(self) -> int:
        """Frames that can be decoded; 1 for pictures."""
        ...

    @property
    def fps(self) -> float:
        """Mean frame rate; 1 for pictures."""
        ...

    @property
    def width_px(self) -> int: ...
    @property
    def height_px(self) -> int: ...

    def frames(self, first: int, count: int, *, step: int = 1, max_side_px: int | None = None) -> np.ndarray:
        """Frames first, first + step, first + 2 * step, ... up to first + count - 1.

        Args:
            first: Number of the first frame, from 0 on.
            count: Length of the span, in frames of the source.
            step: Distance of the frames that are returned.
            max_side_px: Frames are scaled down (area averages) so that their longer side has at most this length.

        Returns:
            (ceil(count / step), height, width, 3) uint8, read-only.

        Raises:
            ValueError: The span does not lie inside the source, or `step` or `max_side_px` is below 1.
            MediaError: The file is damaged.
        """
        ...


class Described(Protocol):
    """What every stage says of itself; read-only here, so that a stage may use narrower types."""

    @property
    def name(self) -> str: ...
    @property
    def version(self) -> int: ...
    @property
    def settings(self) -> Settings: ...
    @property
    def reads(self) -> tuple[str, ...]:
        """Names of facts and arrays that earlier stages must write."""
        ...

    @property
    def writes(self) -> tuple[str, ...]:
        """Names of facts and arrays that this stage adds."""
        ...

    @property
    def needs(self) -> Needs: ...


@runtime_checkable
class Stage(Described, Protocol):
    """A step on the candidates of one source.

    The class has `name` (as in the recipe), `version`, `reads` and `writes`; an instance is built from its settings.
    """

    def __call__(self, candidates: list[Candidate], view: SourceView) -> list[Candidate]:
        """The candidates with facts added, split, or dropped. Those dropped by earlier stages are not among them."""
        ...


@runtime_checkable
class SourceCheck(Protocol):
    """What a stage may have besides: as the first of a recipe it is asked before a source is opened and decoded."""

    def check_source(self, source: Source) -> Drop | None:
        """Why a source is not used; None if it is opened.

        Raises:
            MediaError: Its header cannot be read.
        """
        ...


@runtime_checkable
class GlobalStage(Described, Protocol):
    """A step on all candidates of all sources that are kept so far, sorted by id.

    Stages on single sources may follow: they are run again only for sources whose candidates it changed.
    """

    @property
    def is_global(self) -> Literal[True]: ...

    def __call__(self, candidates: list[Candidate]) -> list[Candidate]:
        """The candidates with facts added, or dropped; the same ids. Those dropped earlier are not among them."""
        ...


@dataclass(frozen=True, kw_only=True, slots=True)
class StageKind:
    """An entry of the registry."""

    name: str
    settings: type[Settings]
    build: Callable[[Any], Stage | GlobalStage]
    """From settings to the stage."""
    limits: Mapping[str, str] = field(default_factory=dict)
    """The setting that decides for each reason whose value is a figure, for advice (`advice.py`)."""


_KINDS: dict[str, StageKind] = {}
C = TypeVar("C", bound=type)


def register(name: str) -> Callable[[C], C]:
    """Class decorator: makes a stage known by the name that recipes use.

    The class has a nested or assigned `Settings` (a `likeness.config.Settings`), and its `__init__` takes one of them.
    It may have `limits`, the name of the setting behind each reason of a drop: {"too dark": "min_brightness"}.

    Example:
        @register("quality")
        class Quality:
            name = "quality"
            version = 1
            reads = ()
            writes = ("sharpness",)
            needs = Needs()
            Settings = QualitySettings

            def __init__(self, settings: QualitySettings) -> None:
                self.settings = settings
    """

    def add(kind: C) -> C:
        found: Any = kind
        if found.name != name:
            raise ValueError(f"{kind.__qualname__} has the name `{found.name}`, but is registered as `{name}`.")
        known = _KINDS.get(name)
        if known is not None and getattr(known.build, "__qualname__", "") != kind.__qualname__:
            raise ValueError(f"Two stages are called `{name}`: {known.build} and {kind}.")
        limits = getattr(kind, "limits", {})
        _KINDS[name] = StageKind(name=name, settings=found.Settings, build=kind, limits=limits)
        return kind

    return add


def registered() -> Mapping[str, StageKind]:
    """The stages that are known by now, by name."""
    return dict(_KINDS)


def is_global(stage: Stage | GlobalStage) -> bool:
    """Whether a stage works on all sources at once: its class has `is_global = True`."""
    return getattr(stage, "is_global", False) is True


def check_order(stages: list[Stage | GlobalStage], given: tuple[str, ...]) -> None:
    """Check that each stage reads only what earlier ones write.

    Args:
        stages: In their order.
        given: Names that sources have from the start.

    Raises:
        ConfigError: A stage reads something that no earlier stage writes.
    """
    known = set(given)
    for number, stage in enumerate(stages):
        if missing := [name for name in stage.reads if name not in known]:
            writers = [other.name for other in stages[number + 1 :] if set(missing) & set(other.writes)]
            advice = f"Move `{writers[0]}` before it." if writers else "Add the stage that writes it before this one."
            raise ConfigError(
                f"Stage `{stage.name}` needs {', '.join(missing)}, which no earlier stage writes. {advice}"
            )
        known.update(stage.writes)
