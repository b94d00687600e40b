"""The files of a study: systems and neutral names, and the plans of its raters.

STUDY/
├── study.json        private: systems, questions, seed, which video is which
├── answers.sqlite    private: answers
└── site/             public, self-contained: page, data.js, media/ under neutral names
"""

import hashlib
import random
from collections.abc import Mapping
from functools import cached_property
from pathlib import Path
from typing import Annotated, Any, Self

from pydantic import Field, model_validator

from likeness.app.study.questions import Questionnaire
from likeness.config import Settings, load, save
from likeness.errors import ConfigError

MANIFEST = "study.json"
SITE = "site"
ANSWERS = "answers.sqlite"
NUM_PLANS = 200
"""Number of different orders; with more raters they repeat."""


NeutralName = Annotated[str, Field(pattern=r"^[a-z][0-9]{1,15}$")]
"""Part of a public path."""


class StudyItem(Settings):
    """One rated video."""

    id: NeutralName
    """Neutral name, the only one that raters see."""
    system: str
    """The system that made it."""
    video: str
    """Name without suffix; videos of one name are compared between systems."""
    references: tuple[NeutralName, ...]
    """Neutral names of the reference pictures."""
    prompt: str | None = None
    """Its prompt as shown to raters, without the trigger word."""


class AttentionCheck(Settings):
    """A video with a prescribed answer."""

    id: NeutralName
    """Neutral name."""
    like: str
    """The item that it repeats."""
    expected: int
    """The prescribed answer to every question."""


class Study(Settings):
    """A study without its answers."""

    format: int = 1
    """Version of this layout."""
    seed: int
    """Seed of neutral names, plans and checks."""
    questionnaire: Questionnaire
    """The questions."""
    systems: tuple[str, ...]
    """Names of the systems compared."""
    items: tuple[StudyItem, ...] = Field(min_length=1)
    """All videos."""
    checks: tuple[AttentionCheck, ...] = ()
    """Attention checks; every rater gets all of them."""
    videos_per_rater: int = Field(ge=1)
    """Videos for each rater without checks; a multiple of the number of systems."""
    content: str = ""
    """SHA-256 of all videos and pictures; empty in studies of older versions."""

    @model_validator(mode="after")
    def _check(self) -> Self:
        names = [item.id for item in (*self.items, *self.checks)]
        if len(set(names)) < len(names):
            raise ValueError("two videos have one neutral name")
        if unknown := {check.like for check in self.checks} - {item.id for item in self.items}:
            raise ValueError(f"attention checks repeat videos that are not there: {', '.join(sorted(unknown))}")
        return self

    @cached_property
    def key(self) -> str:
        """Short hash that identifies the study in answers. It depends on the content of the videos."""
        text = self.model_dump_json(exclude=None if self.content else {"content"})
        return hashlib.sha256(text.encode()).hexdigest()[:12]

    @cached_property
    def item_by_id(self) -> Mapping[str, StudyItem]:
        return {item.id: item for item in self.items}

    @cached_property
    def check_by_id(self) -> Mapping[str, AttentionCheck]:
        return {check.id: check for check in self.checks}

    @cached_property
    def plans(self) -> tuple[tuple[str, ...], ...]:
        """The ids that each rater sees, in order. Numbers of raters of two videos differ by at most one."""
        return tuple(make_plans(self))

    def save(self, folder: Path) -> None:
        save(self, folder / MANIFEST)

    @classmethod
    def load(cls, folder: Path) -> "Study":
        """Read a study.

        Raises:
            ConfigError: The folder holds none, or it is damaged.
        """
        if not (folder / MANIFEST).is_file():
            raise ConfigError(f"{folder} holds no study ({MANIFEST}). Make one with `likeness study create`.")
        return load(cls, folder / MANIFEST)

    def public(self) -> dict[str, Any]:
        """The data of the page: neutral names, without systems, seed and file names."""
        trials = {item.id: self._trial(item, item.id, None) for item in self.items}
        for check in self.checks:
            trials[check.id] = self._trial(self.item_by_id[check.like], check.id, check.expected)
        questionnaire = self.questionnaire.model_dump(mode="json", exclude={"source"})
        ordered = {name: trials[name] for name in sorted(trials)}
        return {"study": self.key, **questionnaire, "trials": ordered, "plans": self.plans}

    def _trial(self, item: StudyItem, name: str, check: int | None) -> dict[str, Any]:
        return {
            "video": f"media/{name}.mp4?{self.key}",
            "references": [f"media/{reference}.jpg?{self.key}" for reference in item.references],
            "prompt": item.prompt,
            "check": check,
        }


def make_plans(study: Study) -> list[tuple[str, ...]]:
    """Assign videos to raters in sets: a rater sees the videos of all systems in a set.

    Sets are drawn from a shuffled pack that is reshuffled when empty, so their numbers of raters differ by at most one.
    Each rater's videos are then shuffled, and checks inserted, never first.
    """
    rng = random.Random(study.seed)
    sets: dict[str, list[str]] = {}
    for item in study.items:
        sets.setdefault(item.video, []).append(item.id)
    sets_per_rater = min(len(sets), max(1, study.videos_per_rater // len(study.systems)))
    remaining_sets: list[str] = []
    plans = []
    for _ in range(NUM_PLANS):
        rater_sets: list[str] = []
        while len(rater_sets) < sets_per_rater:
            if not remaining_sets:
                remaining_sets = rng.sample(sorted(sets), len(sets))
            # A reshuffled pack may begin with sets that this rater already has.
            position = next(index for index, name in enumerate(remaining_sets) if name not in rater_sets)
            rater_sets.append(remaining_sets.pop(position))
        plan = [item for name in rater_sets for item in sets[name]]
        rng.shuffle(plan)
        for check in study.checks:
            plan.insert(rng.randint(1, len(plan)), check.id)
        plans.append(tuple(plan))
    return plans
