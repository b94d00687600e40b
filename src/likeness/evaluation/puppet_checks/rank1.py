"""Identify frames in a gallery of references by an independent recognizer's embeddings.

Rank-1 is the share of frames whose nearest reference is the right one; chance is 1 / gallery size.
"""

from dataclasses import dataclass

import numpy as np


@dataclass(frozen=True, kw_only=True, slots=True)
class Identification:
    """Identification rates and distances; distances are over the frames with a face."""

    face_rate: float
    """Share of all frames in which a face was found."""
    rank1_rate: float
    """Share of all frames whose face is nearest to the right reference. A frame without a face counts as wrong."""
    found_rank1_rate: float
    """The same share of the frames with a face."""
    right_distance: float
    """Mean distance to the right reference."""
    other_distance: float
    """Mean distance to all others."""
    num_frames: int

    @property
    def distance_ratio(self) -> float:
        """Right over others; 1 is chance."""
        return self.right_distance / self.other_distance


def identify(embeddings: np.ndarray, persons: np.ndarray, gallery: np.ndarray) -> Identification:
    """Compare frames with a gallery.

    Shapes:
        embeddings: (frames, width), NaN where no face was found
        persons: (frames,), int: the row of the gallery that is right
        gallery: (people, width)
    """
    is_found = np.isfinite(embeddings).all(axis=1)
    found, right = embeddings[is_found], persons[is_found]
    if not len(found):
        nan = float("nan")
        return Identification(
            face_rate=0.0,
            rank1_rate=0.0,
            found_rank1_rate=nan,
            right_distance=nan,
            other_distance=nan,
            num_frames=len(embeddings),
        )
    distances = np.linalg.norm(found[:, None] - gallery[None], axis=2)  # (frames, people)
    rows = np.arange(len(found))
    own = distances[rows, right]
    is_nearest = distances.argmin(axis=1) == right
    others = (distances.sum(axis=1) - own) / (len(gallery) - 1)
    return Identification(
        face_rate=float(is_found.mean()),
        rank1_rate=float(is_nearest.sum() / len(embeddings)),
        found_rank1_rate=float(is_nearest.mean()),
        right_distance=float(own.mean()),
        other_distance=float(others.mean()),
        num_frames=len(embeddings),
    )
