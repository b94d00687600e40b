"""Stages that score frames by a network: `nsfw`, and `aesthetics`, for which none ships with the project.

A scorer is a function from frames to one number each. `add_scorer` makes one known by a name that settings use.
"""

from collections.abc import Callable, Sequence

import numpy as np
from pydantic import Field

from likeness.config import Settings
from likeness.curation.stage import Candidate, Needs, SourceView, register
from likeness.curation.stages.frames import sample, with_facts
from likeness.errors import ConfigError

Scorer = Callable[[Sequence[np.ndarray]], np.ndarray]
"""From (height, width, 3) uint8 RGB frames to one number for each."""
OPEN_NSFW = "open_nsfw"

_SCORERS: dict[str, Scorer] = {}


def add_scorer(name: str, scorer: Scorer) -> None:
    """Make a scorer known by a name.

    Raises:
        ConfigError: Another scorer has the name.
    """
    if name == OPEN_NSFW or _SCORERS.get(name, scorer) is not scorer:
        raise ConfigError(f"A scorer is called `{name}` already. Choose another name.")
    _SCORERS[name] = scorer


def get_scorer(name: str) -> Scorer:
    """The scorer of that name.

    Raises:
        ConfigError: There is none.
    """
    if name == OPEN_NSFW:
        from likeness.curation.stages.networks.open_nsfw import score_frames

        return score_frames
    if name not in _SCORERS:
        known = ", ".join((OPEN_NSFW, *sorted(_SCORERS)))
        raise ConfigError(f"No scorer is called `{name}`. Known: {known}. Add your own by `add_scorer`.")
    return _SCORERS[name]


class NsfwSettings(Settings):
    """Which pictures count as not safe for work."""

    scorer: str = OPEN_NSFW
    """Name of the scorer; Yahoo's Open NSFW by default."""
    max_score: float = Field(default=0.5, ge=0, le=1)
    """Largest score of any frame. Yahoo calls less than 0.2 safe and more than 0.8 unsafe."""
    num_frames: int = Field(default=4, ge=1)
    """Frames of a span that are scored."""


@register("nsfw")
class Nsfw:
    """Drops candidates with a frame that is not safe for work.

    Args:
        settings: See `NsfwSettings`.
        scorer: A scorer, instead of the one that the settings name.
    """

    name = "nsfw"
    version = 1
    reads = ()
    writes = ("nsfw",)
    needs = Needs(batch=4)
    Settings = NsfwSettings

    def __init__(self, settings: NsfwSettings, scorer: Scorer | None = None) -> None:
        self.settings = settings
        self._score = scorer or get_scorer(settings.scorer)

    def __call__(self, candidates: list[Candidate], view: SourceView) -> list[Candidate]:
        judged = []
        for candidate, scores in _score_all(candidates, view, self._score, self.settings.num_frames):
            worst = float(scores.max())
            candidate = with_facts(candidate, nsfw=worst)
            is_safe = worst <= self.settings.max_score
            judged.append(candidate if is_safe else candidate.drop(self.name, "not safe for work", worst))
        return judged


class AestheticsSettings(Settings):
    """Which pictures count as beautiful enough."""

    scorer: str
    """Name of a scorer that was added by `add_scorer`; none ships with the project."""
    min_score: float
    """Smallest mean score, on the scorer's scale."""
    num_frames: int = Field(default=4, ge=1)
    """Frames of a span that are scored."""


@register("aesthetics")
class Aesthetics:
    """Drops candidates with a low score; only used where a recipe names it."""

    name = "aesthetics"
    version = 1
    reads = ()
    writes = ("aesthetics",)
    needs = Needs(batch=4)
    Settings = AestheticsSettings

    def __init__(self, settings: AestheticsSettings, scorer: Scorer | None = None) -> None:
        self.settings = settings
        self._score = scorer or get_scorer(settings.scorer)

    def __call__(self, candidates: list[Candidate], view: SourceView) -> list[Candidate]:
        judged = []
        for candidate, scores in _score_all(candidates, view, self._score, self.settings.num_frames):
            mean = float(scores.mean())
            candidate = with_facts(candidate, aesthetics=mean)
            is_fine = mean >= self.settings.min_score
            judged.append(candidate if is_fine else candidate.drop(self.name, "low aesthetic score", mean))
        return judged


def _score_all(
    candidates: Sequence[Candidate], view: SourceView, scorer: Scorer, num_frames: int
) -> list[tuple[Candidate, np.ndarray]]:
    """Each candidate with the scores of its frames; candidates of one span share them."""
    known: dict[tuple[int, int], np.ndarray] = {}
    for candidate in candidates:
        span = (candidate.first_frame, candidate.num_frames)
        if span not in known:
            known[span] = np.asarray(scorer(list(sample(candidate, view, num_frames)[1])))
    return [(candidate, known[candidate.first_frame, candidate.num_frames]) for candidate in candidates]
