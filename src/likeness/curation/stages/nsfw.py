"""Drops pictures and clips that are not safe for work, by Yahoo's Open NSFW (`networks/open_nsfw.py`) by default."""

from typing import ClassVar

import numpy as np
from pydantic import Field

from likeness.curation.stage import Candidate, register
from likeness.curation.stages.frames import with_facts
from likeness.curation.stages.scores import OPEN_NSFW, ScoreSettings, ScoreStage


class NsfwSettings(ScoreSettings):
    """Which pictures count as not safe for work."""

    scorer: str = OPEN_NSFW
    """Name of the scorer; Yahoo's Open NSFW by default."""
    max_score: float = Field(default=0.5, ge=0, le=1)
    """Largest score of any frame. Yahoo calls less than 0.2 safe and more than 0.8 unsafe."""


@register("nsfw")
class Nsfw(ScoreStage[NsfwSettings]):
    """Drops candidates with a frame that is not safe for work."""

    name = "nsfw"
    version = 1
    writes = ("nsfw",)
    Settings = NsfwSettings
    limits: ClassVar = {"not safe for work": "max_score"}

    def judge(self, candidate: Candidate, scores: np.ndarray) -> Candidate:
        worst = float(scores.max())
        candidate = with_facts(candidate, nsfw=worst)
        is_safe = worst <= self.settings.max_score
        return candidate if is_safe else candidate.drop(self.name, "not safe for work", worst)
