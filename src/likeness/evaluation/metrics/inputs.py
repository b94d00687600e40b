"""The inputs of a video's metrics: the chosen face of each frame, the references, the features.

A setting chooses the face where a frame shows several. `prominent` takes the largest score times area in each frame (as
OpenS2V takes the largest). `nearest` takes the one nearest to the mean reference: it follows one person in a group, but
is biased, because it selects by the measured quantity. `several_faces_rate` is the share of frames with a choice.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np

from likeness.evaluation.features.base import Arrays, Features
from likeness.evaluation.features.landmarks import landmarks_at
from likeness.evaluation.features.references import ReferenceSet
from likeness.records import EmbeddingMetric

WhichFace = Literal["prominent", "nearest"]


@dataclass(frozen=True, kw_only=True, slots=True, eq=False)
class MetricInputs:
    """The inputs of a metric for one video.

    Shapes:
        embeddings: (frames, embedding_width) float64, the chosen face; NaN where there is none
        landmarks: (frames, 5, 2) float64 px, by the landmark engine; NaN where it finds no face
        rows: (frames,) int, the chosen face's row in the arrays of `faces`; -1 where there is none
        num_faces: (frames,) int
        gallery: (people, embedding_width), the mean reference of every identity
    """

    features: Features
    references: ReferenceSet
    embeddings: np.ndarray
    landmarks: np.ndarray
    rows: np.ndarray
    num_faces: np.ndarray
    gallery: np.ndarray
    person: int | None
    """The video's own row of the gallery; None if the gallery has no other."""
    threshold: float
    fps: float
    height_px: int
    width_px: int
    text: np.ndarray | None = None
    """Embedding of the prompt by ViCLIP."""

    @property
    def num_frames(self) -> int:
        return len(self.rows)

    @property
    def has_face(self) -> np.ndarray:
        """(frames,) bool."""
        return self.rows >= 0


def choose_faces(faces: Arrays, num_frames: int, which: WhichFace, reference: np.ndarray) -> np.ndarray:
    """The row of the chosen face in each frame, -1 where there is none.

    Shapes:
        reference: (embedding_width,), needed for `nearest`
        returns: (frames,) int
    """
    rows = np.full(num_frames, -1, dtype=np.int64)
    is_nearest = which == "nearest"
    worth = -np.linalg.norm(faces["embedding"] - reference, axis=1) if is_nearest else faces["prominence"]
    for row, frame in enumerate(faces["frame"]):
        if rows[frame] < 0 or worth[row] > worth[rows[frame]]:
            rows[frame] = row
    return rows


def first_face(
    faces: Arrays,
    metric: EmbeddingMetric = "distance",
    *,
    detections: Arrays | None = None,
    size_px: tuple[int, int] | None = None,
) -> ReferenceSet:
    """The most prominent face of the first frame that has one, as the reference of its own video.

    Args:
        faces: Arrays of the feature `faces`.
        metric: How the engine compares embeddings.
        detections: Arrays of the feature `landmarks`, if another engine detects them.
        size_px: Width and height of the frames.

    Without any face all values are NaN.
    """
    sizes_px = None if size_px is None else np.array([size_px], dtype=np.float64)
    if not len(faces["frame"]):
        return ReferenceSet(
            embeddings=np.full((1, *faces["embedding"].shape[1:]), np.nan, dtype=np.float32),
            landmarks=np.full((1, *faces["landmarks"].shape[1:]), np.nan, dtype=np.float32),
            arrays={},
            metric=metric,
            sizes_px=sizes_px,
        )
    first = faces["frame"][0]
    rows = np.flatnonzero(faces["frame"] == first)
    row = rows[faces["prominence"][rows].argmax()]
    landmarks = faces["landmarks"][row : row + 1]
    if detections is not None:
        boxes = np.full((first + 1, 4), np.nan)
        boxes[first] = faces["box"][row]
        landmarks = landmarks_at(boxes, detections)[first:]
    return ReferenceSet(
        embeddings=faces["embedding"][row : row + 1],
        landmarks=landmarks,
        arrays={},
        metric=metric,
        sizes_px=sizes_px,
    )


def pick_rows(values: np.ndarray, rows: np.ndarray) -> np.ndarray:
    """`values[rows]` as float64, NaN where a row is -1."""
    picked = np.full((len(rows), *values.shape[1:]), np.nan)
    picked[rows >= 0] = values[rows[rows >= 0]]
    return picked


def gallery_of(references: Mapping[str, ReferenceSet]) -> tuple[Sequence[str], np.ndarray]:
    """Names and mean embeddings of all identities, sorted by name."""
    names = sorted(references)
    return names, np.stack([references[name].mean for name in names]) if names else np.zeros((0, 0))
