"""Chooses reference pictures for each candidate: other views of its person.

`same` takes frames of the same track whose head poses differ most (F1 of FantasyID, arXiv:2502.13995v1, Sec. 3.2).
`cross` takes the person's candidates of other sources, so that clothes and background do not tell what to generate
(D of Magic Mirror's data, M14). The fact `references` lists them: {"candidate", "frame", "box"}, in pixels of the
source.
"""

from collections import defaultdict
from collections.abc import Sequence
from typing import Any, ClassVar, Literal

import numpy as np
from pydantic import Field

from likeness.config import Settings
from likeness.curation.stage import Candidate, Needs, register
from likeness.curation.stages.frames import with_facts
from likeness.faces.engines.base import distances
from likeness.faces.views import NUM_VIEWS, choose_views
from likeness.records import Pose

HEAD_SCALE = 2.0
"""Side of a reference picture, in sides of the face's box: the head with hair and chin, found again by any detector."""


class ViewSettings(Settings):
    """Which views are chosen."""

    origin: Literal["same", "cross", "both"] = "same"
    """From the same track, from other sources, or `cross` where there are enough and `same` otherwise."""
    num_views: int = Field(default=NUM_VIEWS, ge=1)
    """Most references."""
    min_views: int = Field(default=1, ge=0)
    """Candidates with fewer are dropped."""
    min_score: float = 0.9
    """Smallest score of the detector, for engines whose scores are probabilities."""
    min_difference_deg: float = 4.0
    """Views of one track whose poses differ less count as equal."""


@register("views")
class Views:
    """Writes `references`."""

    name = "views"
    version = 1
    reads = (
        "frames",
        "boxes",
        "poses",
        "scores",
        "embeddings",
        "engine",
        "metric",
        "threshold",
        "width_px",
        "height_px",
    )
    writes = ("references",)
    needs = Needs()
    is_global: Literal[True] = True
    Settings = ViewSettings
    limits: ClassVar = {"too few reference views": "min_views"}

    def __init__(self, settings: ViewSettings) -> None:
        self.settings = settings

    def __call__(self, candidates: list[Candidate]) -> list[Candidate]:
        people: dict[str, list[Candidate]] = defaultdict(list)
        for candidate in candidates:
            if person := str(candidate.facts.get("person") or ""):
                people[person].append(candidate)
        result = []
        for candidate in candidates:
            references = self._choose(candidate, people.get(str(candidate.facts.get("person") or ""), []))
            known = with_facts(candidate, references=references)
            if len(references) < self.settings.min_views:
                known = known.drop(self.name, "too few reference views", len(references))
            result.append(known)
        return result

    def _choose(self, candidate: Candidate, others: Sequence[Candidate]) -> list[dict[str, Any]]:
        settings = self.settings
        crossed: list[dict[str, Any]] = []
        if settings.origin != "same":
            crossed = self._from_others([other for other in others if other.source != candidate.source])
        if settings.origin == "cross" or len(crossed) >= max(1, settings.min_views):
            return crossed
        rows = usable_rows(candidate, settings.min_score)
        poses = [Pose(yaw_deg=y, pitch_deg=p, roll_deg=r) for y, p, r in candidate.arrays["poses"][rows].tolist()]
        chosen = choose_views(poses, settings.num_views, min_difference_deg=settings.min_difference_deg)
        return [reference(candidate, int(rows[number])) for number in chosen]

    def _from_others(self, others: Sequence[Candidate]) -> list[dict[str, Any]]:
        """The best frame of each other candidate; of more than are needed, those whose poses differ most."""
        found: list[tuple[Candidate, int]] = []
        for other in sorted(others, key=lambda other: other.id):
            rows = usable_rows(other, self.settings.min_score)
            if len(rows):
                turned = np.abs(other.arrays["poses"][rows]).sum(axis=1)
                found.append((other, int(rows[int(turned.argmin())])))
        poses = [
            Pose(yaw_deg=yaw, pitch_deg=pitch, roll_deg=roll)
            for other, row in found
            for yaw, pitch, roll in [other.arrays["poses"][row].tolist()]
        ]
        chosen = choose_views(poses, self.settings.num_views)
        # Pictures of two sources differ in more than the pose, so that those with equal poses follow.
        chosen += [number for number in range(len(found)) if number not in chosen]
        return [reference(*found[number]) for number in chosen[: self.settings.num_views]]


def usable_rows(candidate: Candidate, min_score: float) -> np.ndarray:
    """Samples of a track with a certain face of the person who is seen in most of them."""
    arrays, facts = candidate.arrays, candidate.facts
    is_certain = np.full(len(arrays["scores"]), facts["engine"] == "dlib") | (arrays["scores"] >= min_score)
    rows = np.flatnonzero(is_certain)
    if not len(rows):
        return rows
    embeddings = arrays["embeddings"][rows]
    is_same = np.stack([distances(embeddings, one, facts["metric"]) < facts["threshold"] for one in embeddings])
    return rows[is_same[is_same.sum(axis=1).argmax()]]


def reference(candidate: Candidate, row: int) -> dict[str, Any]:
    """The entry of `references` for one sample of a candidate: its box is a square around the whole head."""
    left, top, right, bottom = (float(edge) for edge in candidate.arrays["boxes"][row])
    x, y, half = (left + right) / 2, (top + bottom) / 2, HEAD_SCALE * max(right - left, bottom - top) / 2
    width, height = float(candidate.facts["width_px"]), float(candidate.facts["height_px"])
    box = [max(0.0, x - half), max(0.0, y - half), min(width, x + half), min(height, y + half)]
    frame = int(candidate.arrays["frames"][row])
    return {"candidate": candidate.id, "frame": frame, "box": [round(edge) for edge in box]}
