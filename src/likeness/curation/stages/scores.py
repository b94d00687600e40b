"""Stages that score frames by a network: what they share, and `aesthetics`, for which none ships with the project.

A scorer is a function from frames to one number each. `add_scorer` makes one known by a name that settings use.
"""

from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from typing import ClassVar, Generic, TypeVar

import numpy as np
from pydantic import Field

from likeness.config import Settings
from likeness.curation.stage import Candidate, Needs, SourceView, register
from likeness.curation.stages.frames import by_span, sample, with_facts
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


class ScoreSettings(Settings):
    """Settings of all stages that score frames."""

    scorer: str
    """Name of a scorer that was added by `add_scorer`."""
    num_frames: int = Field(default=4, ge=1)
    """Frames of a span that are scored."""


S = TypeVar("S", bound=ScoreSettings)


class ScoreStage(ABC, Generic[S]):
    """A stage that judges candidates by the scores of their frames.

    Args:
        settings: See the stage's `Settings`.
        scorer: A scorer, instead of the one that the settings name.
    """

    reads = ()
    needs = Needs(batch=4)

    def __init__(self, settings: S, scorer: Scorer | None = None) -> None:
        self.settings = settings
        self._score = scorer or get_scorer(settings.scorer)

    def __call__(self, candidates: list[Candidate], view: SourceView) -> list[Candidate]:
        def measure(candidate: Candidate) -> np.ndarray:
            return np.asarray(self._score(list(sample(candidate, view, self.settings.num_frames)[1])))

        return [self.judge(candidate, scores) for candidate, scores in by_span(candidates, measure)]

    @abstractmethod
    def judge(self, candidate: Candidate, scores: np.ndarray) -> Candidate:
        """The candidate with its score as a fact, dropped if that is outside of the limit; (frames,) scores."""


class AestheticsSettings(ScoreSettings):
    """Which pictures count as beautiful enough; no scorer ships with the project."""

    min_score: float
    """Smallest mean score, on the scorer's scale."""


@register("aesthetics")
class Aesthetics(ScoreStage[AestheticsSettings]):
    """Drops candidates with a low score; only used where a recipe names it."""

    name = "aesthetics"
    version = 1
    writes = ("aesthetics",)
    Settings = AestheticsSettings
    limits: ClassVar = {"low aesthetic score": "min_score"}

    def judge(self, candidate: Candidate, scores: np.ndarray) -> Candidate:
        mean = float(scores.mean())
        candidate = with_facts(candidate, aesthetics=mean)
        is_fine = mean >= self.settings.min_score
        return candidate if is_fine else candidate.drop(self.name, "low aesthetic score", mean)
