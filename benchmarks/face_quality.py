"""How complete the faces of some frames are, by several figures, so that no single detector decides.

All of them are relative to true clips that went through the same VAE, the best that this backbone can show. Landmarks
do not separate broken faces: dlib's predictor finds them in a broken face too, and those of the mirrored frame agree
as well as in a true frame (0.013 eye distances against 0.016). The recognizer does: the mirror image of a broken face
has a distant embedding.
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
"""Largest yaw at which the two halves of a face are compared."""
EYE_PX = 19
"""Side of an eye's surroundings in an aligned head."""
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
    mirror_distance: float
    """Between the recognizer's embeddings of the face and of its mirror image; NaN unless near frontal."""
    eye_agreement: float
    """Correlation of one eye with the other one's mirror image; NaN unless near frontal."""
    embedding: NDArray[np.float32]


@dataclass(frozen=True, slots=True)
class FaceQuality:
    """The means over frames, as shares of those of true frames through the VAE where a share is meant."""

    face_rate: float
    score_share: float
    mirror_ratio: float
    """How many times as far as a true face's the recognizer finds a face from its mirror image."""
    eye_agreement_share: float
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
    mirrored = face.landmarks[_MIRRORED] * [-1, 1] + [large.shape[1] - 1, 0]
    reflection = engine.embed(large[:, ::-1], mirrored.astype(np.float32))
    head = warp(large, fit_similarity(face.landmarks, HEAD_TEMPLATE * HEAD_PX), HEAD_PX)
    return FrameQuality(face.score, float(np.linalg.norm(embedding - reflection)), eye_agreement(head), embedding)


def eye_agreement(head: NDArray[np.uint8]) -> float:
    """How well one eye of an aligned head is the other one's mirror image, from -1 to 1."""
    gray, corners = head.astype(np.float64).mean(axis=2), HEAD_TEMPLATE[:4] * HEAD_PX

    def cut(center: NDArray[np.float64]) -> NDArray[np.float64]:
        left, top = np.round(center - EYE_PX / 2).astype(int)
        return gray[top : top + EYE_PX, left : left + EYE_PX]

    left, right = cut(corners[:2].mean(axis=0)), cut(corners[2:].mean(axis=0))[:, ::-1]
    left, right = left - left.mean(), right - right.mean()
    return float((left * right).mean() / max(np.sqrt(left.var() * right.var()), 1e-9))


def _found(large: NDArray[np.uint8]) -> Detection | None:
    engine = _engine()
    faces = [face for face in engine.detect(large) if face.score >= engine.min_score]
    return max(faces, key=prominence, default=None)


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
        mirror_ratio=mean("mirror_distance", seen) / mean("mirror_distance", true),
        eye_agreement_share=mean("eye_agreement", seen) / mean("eye_agreement", true),
        face_distance=frechet_distance(ours, theirs),
    )
