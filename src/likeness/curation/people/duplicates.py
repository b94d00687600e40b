"""Finds copies of one clip or picture in several sources, and keeps the best of each group."""

from typing import Literal

import numpy as np
from pydantic import Field

from likeness.config import Settings
from likeness.curation.people.tracker import overlap
from likeness.curation.stage import Candidate, Needs, register
from likeness.curation.stages.frames import with_facts

_CHUNK = 256


class DuplicateSettings(Settings):
    """What counts as a copy."""

    max_difference: float = Field(default=0.15, ge=0, le=1)
    """Largest share of bits in which the hashes of copies differ, as a mean over their frames."""
    max_length_ratio: float = Field(default=1.5, ge=1)
    """Copies differ at most this much in length."""
    min_overlap: float = 0.3
    """Smallest intersection over union of the faces' boxes, as shares of the frame: of two people in one clip none is
    a copy."""


@register("duplicates")
class Duplicates:
    """Drops all but the best of each group of copies.

    The best has the largest face, then the sharpest, then the most frames. Each dropped one is a copy of a kept one
    itself: chains of ever less similar clips are not formed.
    """

    name = "duplicates"
    version = 1
    reads = ("hashes", "place")
    writes = ("num_copies",)
    needs = Needs()
    is_global: Literal[True] = True
    Settings = DuplicateSettings

    def __init__(self, settings: DuplicateSettings) -> None:
        self.settings = settings

    def __call__(self, candidates: list[Candidate]) -> list[Candidate]:
        order = sorted(range(len(candidates)), key=lambda index: _rank(candidates[index]))
        copies = self._copies([candidates[index] for index in order])
        best: dict[int, int] = {}  # Position of a dropped candidate: position of the kept one.
        num_copies = [0] * len(order)
        for position in range(len(order)):
            if position in best:
                continue
            for other in copies.get(position, ()):
                if other > position and other not in best:
                    best[other] = position
                    num_copies[position] += 1
        result = list(candidates)
        for position, index in enumerate(order):
            candidate = candidates[index]
            if position in best:
                result[index] = candidate.drop(self.name, "copy of another", candidates[order[best[position]]].id)
            else:
                result[index] = with_facts(candidate, num_copies=num_copies[position])
        return result

    def _copies(self, ordered: list[Candidate]) -> dict[int, list[int]]:
        """For each candidate, the later ones that are copies of it."""
        found: dict[int, list[int]] = {}
        for num_frames in {len(candidate.arrays["hashes"]) for candidate in ordered}:
            rows = [row for row, candidate in enumerate(ordered) if len(candidate.arrays["hashes"]) == num_frames]
            words = np.stack([_to_words(ordered[row].arrays["hashes"]) for row in rows])
            bits = 64 * words.shape[1]
            for start in range(0, len(rows), _CHUNK):
                block = words[start : start + _CHUNK]
                counts = np.zeros((len(block), len(rows)), np.int32)
                for column in range(words.shape[1]):  # By columns, so that memory stays small.
                    counts += np.bitwise_count(block[:, column, None] ^ words[None, :, column])
                for one, other in np.argwhere(counts <= self.settings.max_difference * bits):
                    a, b = rows[start + int(one)], rows[int(other)]
                    if a < b and self._is_copy(ordered[a], ordered[b]):
                        found.setdefault(a, []).append(b)
        return found

    def _is_copy(self, one: Candidate, other: Candidate) -> bool:
        if one.source == other.source and _do_spans_overlap(one, other):
            return False
        lengths = sorted((_length_s(one), _length_s(other)))
        if lengths[1] > self.settings.max_length_ratio * lengths[0]:
            return False
        return overlap(one.arrays["place"].tolist(), other.arrays["place"].tolist()) >= self.settings.min_overlap


def _rank(candidate: Candidate) -> tuple[float, float, int, str]:
    """Smaller is better."""
    facts = candidate.facts
    return -facts.get("face_px", 0.0), -facts.get("sharpness", 0.0), -candidate.num_frames, candidate.id


def _to_words(hashes: np.ndarray) -> np.ndarray:
    """All hashes of a candidate as 64-bit words; the last one is filled up with zeros."""
    data = np.ascontiguousarray(hashes).reshape(-1)
    return np.pad(data, (0, -len(data) % 8)).view(np.uint64)


def _do_spans_overlap(one: Candidate, other: Candidate) -> bool:
    first = max(one.first_frame, other.first_frame)
    end = min(one.first_frame + one.num_frames, other.first_frame + other.num_frames)
    return end > first


def _length_s(candidate: Candidate) -> float:
    return candidate.num_frames / float(candidate.facts.get("fps") or 1.0)
