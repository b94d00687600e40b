"""How complete the faces of some frames are, by several figures, so that no single detector decides.

All of them are relative to true clips that went through the same VAE, the best that this backbone can show.
"""

from collections.abc import Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from functools import cache

import numpy as np
from numpy.typing import NDArray

from likeness.evaluation.metrics.distributions import frechet_distance
from likeness.evaluation.puppet_checks.face_track import HEAD_PX
from likeness.faces import FRAME_DETECTION_PX, HEAD_TEMPLATE, DlibEngine, fit_similarity, head_pose, prominence, warp
from likeness.media import resize
from likeness.records import Detection

FRONTAL_DEG = 15.0
"""Both halves of a face are compared up to this much yaw."""
FACE_ROWS, FACE_COLUMNS = slice(HEAD_PX * 3 // 10, HEAD_PX * 9 // 10), slice(HEAD_PX // 4, HEAD_PX * 3 // 4)
"""Brows to chin, and cheek to cheek, of an aligned head."""
_MIRRORED = [3, 2, 1, 0, 4]
"""Landmarks of a mirrored picture in the order of the picture's."""


@dataclass(frozen=True, slots=True, eq=False)
class FrameQuality:
    """What one frame shows.

    Shapes:
        embedding: (128,), of NaN without a face
    """

    score: float
    """dlib's detection score; 0 without a face, which its threshold is."""
    disagreement: float
    """Distance of landmarks from those of the mirrored frame, in eye distances; NaN unless near frontal."""
    symmetry: float
    """Correlation of the face with its mirror image; NaN unless near frontal."""
    embedding: NDArray[np.float32]


@dataclass(frozen=True, slots=True)
class FaceQuality:
    """The means over frames, as shares of those of true frames through the VAE where a share is meant."""

    face_rate: float
    score_share: float
    mirror_agreement: float
    """Disagreement of true frames' landmarks with the mirrored ones over that of these: 1 is as good, less is worse."""
    symmetry_share: float
    face_distance: float
    """Frechet distance of recognizer features to those of true frames."""


@cache
def _engine() -> DlibEngine:
    return DlibEngine()


def look(frame: NDArray[np.uint8]) -> FrameQuality:
    """Measure one frame, (height, width, 3)."""
    engine = _engine()
    large = resize(frame, FRAME_DETECTION_PX, FRAME_DETECTION_PX)
    face = _found(large)
    if face is None:
        return FrameQuality(0.0, np.nan, np.nan, np.full(engine.embedding_width, np.nan, np.float32))
    embedding = engine.embed(large, face.landmarks)
    if abs(head_pose(face.landmarks).yaw_deg) > FRONTAL_DEG:
        return FrameQuality(face.score, np.nan, np.nan, embedding)
    head = warp(large, fit_similarity(face.landmarks, HEAD_TEMPLATE * HEAD_PX), HEAD_PX)
    return FrameQuality(face.score, _disagreement(large, face.landmarks), symmetry(head), embedding)


def symmetry(head: NDArray[np.uint8]) -> float:
    """Correlation of an aligned head's features with their mirror image; light from one side is taken out."""
    gray = head.astype(np.float64).mean(axis=2)[FACE_ROWS, FACE_COLUMNS]
    gray = gray - gray.mean(axis=0)  # What is left of each column changes from brow to chin: eyes, nose, mouth.
    return float((gray * gray[:, ::-1]).mean() / max(gray.var(), 1e-9))


def _found(large: NDArray[np.uint8]) -> Detection | None:
    engine = _engine()
    faces = [face for face in engine.detect(large) if face.score >= engine.min_score]
    return max(faces, key=prominence, default=None)


def _disagreement(large: NDArray[np.uint8], landmarks: NDArray[np.float32]) -> float:
    mirrored = _found(large[:, ::-1])
    if mirrored is None:
        return 0.5  # As bad as eyes mistaken for each other's halves.
    back = mirrored.landmarks[_MIRRORED] * [-1, 1] + [large.shape[1] - 1, 0]
    eyes = np.linalg.norm(landmarks[2:4].mean(axis=0) - landmarks[:2].mean(axis=0))
    return float(min(np.linalg.norm(back - landmarks, axis=1).mean() / eyes, 0.5))


def measure(pool: ProcessPoolExecutor, frames: Sequence[NDArray[np.uint8]]) -> list[FrameQuality]:
    """Measure many frames."""
    return list(pool.map(look, frames, chunksize=8))


def compare(seen: Sequence[FrameQuality], true: Sequence[FrameQuality]) -> FaceQuality:
    """Hold frames against true frames through the VAE."""

    def mean(name: str, frames: Sequence[FrameQuality]) -> float:
        values = np.array([getattr(frame, name) for frame in frames])
        return float(np.nanmean(values)) if np.isfinite(values).any() else np.nan

    ours, theirs = (np.stack([frame.embedding for frame in frames]) for frames in (seen, true))
    ours, theirs = (rows[np.isfinite(rows[:, 0])] for rows in (ours, theirs))
    return FaceQuality(
        face_rate=len(ours) / len(seen),
        score_share=mean("score", seen) / mean("score", true),
        mirror_agreement=mean("disagreement", true) / mean("disagreement", seen),
        symmetry_share=mean("symmetry", seen) / mean("symmetry", true),
        face_distance=frechet_distance(ours, theirs),
    )
