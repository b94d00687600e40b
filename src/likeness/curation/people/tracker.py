"""Joins the faces of sampled frames to tracks, one for each person who is seen without a longer break.

Faces of a frame are assigned to running tracks by the Hungarian method; the cost is the missing overlap of the boxes
(intersection over union) and the distance of the embeddings.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np

from likeness.faces.engines.base import distances
from likeness.records import Face

_FORBIDDEN = 1e6


@dataclass(kw_only=True, slots=True, eq=False)
class Track:
    """The faces of one person in consecutive samples."""

    samples: list[int] = field(default_factory=list)
    """Numbers of the samples in which the face was found."""
    faces: list[Face] = field(default_factory=list)

    def add(self, sample: int, face: Face) -> None:
        self.samples.append(sample)
        self.faces.append(face)


class FaceTracker:
    """Tracks faces through the samples of one shot.

    Args:
        max_gap: Most samples in a row in which a track may be missing.
        min_overlap: Boxes that overlap less count as apart: then the embeddings alone must agree.
        tolerance: A face whose box overlaps a track's last one belongs to it up to this multiple of the engine's
            threshold: heads that turn change their embeddings.
    """

    def __init__(self, *, max_gap: int = 3, min_overlap: float = 0.1, tolerance: float = 1.3) -> None:
        self.max_gap, self.min_overlap, self.tolerance = max_gap, min_overlap, tolerance
        self._running: list[Track] = []
        self._ended: list[Track] = []
        self._sample = -1

    def add(self, faces: Sequence[Face]) -> None:
        """Add the faces of the next sample."""
        self._sample += 1
        ended = [track for track in self._running if self._sample - track.samples[-1] > self.max_gap + 1]
        self._ended += ended
        self._running = [track for track in self._running if not any(track is other for other in ended)]
        taken: set[int] = set()
        if faces and self._running:
            from scipy.optimize import linear_sum_assignment

            costs = np.array([[self._cost(track, face) for face in faces] for track in self._running])
            for row, column in zip(*linear_sum_assignment(costs), strict=True):
                if costs[row, column] < _FORBIDDEN:
                    self._running[row].add(self._sample, faces[column])
                    taken.add(int(column))
        for number, face in enumerate(faces):
            if number not in taken:
                self._running.append(Track(samples=[self._sample], faces=[face]))

    def finish(self) -> list[Track]:
        """All tracks, by their first sample, then from left to right."""
        tracks = self._ended + self._running
        self._ended, self._running, self._sample = [], [], -1
        return sorted(tracks, key=lambda track: (track.samples[0], track.faces[0].box))

    def _cost(self, track: Track, face: Face) -> float:
        last = track.faces[-1]
        known = np.stack([last.embedding, np.mean([other.embedding for other in track.faces[-8:]], axis=0)])
        distance = float(distances(known, face.embedding, face.metric).min()) / face.threshold
        shared = overlap(last.box, face.box)
        if distance > (self.tolerance if shared >= self.min_overlap else 1.0):
            return _FORBIDDEN
        return 1 - shared + distance


def overlap(one: Sequence[float], other: Sequence[float]) -> float:
    """Intersection over union of two boxes."""
    width = min(one[2], other[2]) - max(one[0], other[0])
    height = min(one[3], other[3]) - max(one[1], other[1])
    shared = max(width, 0.0) * max(height, 0.0)
    areas = sum((box[2] - box[0]) * (box[3] - box[1]) for box in (one, other))
    return shared / max(areas - shared, 1e-9)
