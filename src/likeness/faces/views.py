"""Chooses several views of one person: a multi-view face collection (FantasyID, arXiv:2502.13995v1, Sec. 3.2).

One face is read from each frame, head pose is estimated from its five landmarks, and the views that differ most are
chosen by farthest-point sampling over (yaw, pitch, roll), the most frontal first. It does not track several people.
"""

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from likeness.errors import ConfigError, NoFaceError
from likeness.faces.engines.base import FaceEngine, distances
from likeness.faces.engines.registry import resolve_engine
from likeness.faces.read import find_faces, prominence
from likeness.records import Face, Pose

NUM_VIEWS = 6
ROLL_WEIGHT = 0.5
"""Weight of roll beside yaw and pitch: a tilted head shows the same side of the face."""


def choose_views(
    poses: Sequence[Pose],
    num_views: int = NUM_VIEWS,
    *,
    min_difference_deg: float = 0.0,
    sharpness: Sequence[float] | None = None,
) -> list[int]:
    """Choose the poses that differ most: each next one is the farthest from all chosen before.

    Args:
        poses: One per candidate.
        num_views: Largest number to choose.
        min_difference_deg: Stop when no remaining pose differs more than this from all chosen ones.
        sharpness: One per candidate; among equal distances the sharper wins, without it the earlier.

    Returns:
        Indices in the order of choice; the most frontal is the first.

    Raises:
        ConfigError: `num_views` is not positive.
    """
    if num_views < 1:
        raise ConfigError(f"`num_views` is {num_views}; at least 1 is needed.")
    if not poses:
        return []
    points = np.array([(pose.yaw_deg, pose.pitch_deg, ROLL_WEIGHT * pose.roll_deg) for pose in poses])
    sharpness_scores = np.zeros(len(poses)) if sharpness is None else np.asarray(sharpness, dtype=np.float64)
    chosen = [_argmax_sharpest(-np.linalg.norm(points, axis=1), sharpness_scores)]
    min_distances = np.linalg.norm(points - points[chosen[0]], axis=1)  # Distance to the nearest chosen pose.
    while len(chosen) < min(num_views, len(poses)) and min_distances.max() > min_difference_deg:
        chosen.append(_argmax_sharpest(min_distances, sharpness_scores))
        min_distances = np.minimum(min_distances, np.linalg.norm(points - points[chosen[-1]], axis=1))
    return chosen


def read_views(
    frames: NDArray[np.uint8],
    num_views: int = NUM_VIEWS,
    *,
    engine: FaceEngine | str | None = None,
    min_score: float | None = None,
    min_difference_deg: float = 4.0,
    enlarge_to_px: int | None = None,
    source: str = "video",
) -> list[Face]:
    """Read a person's face from the frames of a video, and keep the views that differ most.

    The person is the one found in most frames; frames in which another person is most prominent are ignored.

    Args:
        frames: (frames, height, width, 3) uint8.
        num_views: Largest number of views; a person who does not move gives fewer.
        engine: An engine or its name; by default `default_engine()`.
        min_score: Detections below it are ignored, on the engine's scale. The paper uses 0.9 with RetinaFace.
        min_difference_deg: Views closer than this count as equal; about the precision of five landmarks.
        enlarge_to_px: See `find_faces`.
        source: Where the frames came from, for messages and records.

    Returns:
        Views in the order of choice, the most frontal first.

    Raises:
        NoFaceError: No frame has a face with that score.
    """
    engine = resolve_engine(engine)
    score_threshold = engine.min_score if min_score is None else min_score
    faces: list[Face] = []
    best_score: float | None = None
    for number, frame in enumerate(frames):
        found = find_faces(frame, engine, enlarge_to_px=enlarge_to_px, source=f"frame {number} of {source}")
        if found:
            face = max(found, key=prominence)
            best_score = max(face.score, best_score or face.score)
            faces += [face] if face.score >= score_threshold else []
    if not faces:
        raise NoFaceError(source, best_score=best_score, min_score=score_threshold)
    return choose_faces(_keep_most_frequent_person(faces), num_views, min_difference_deg=min_difference_deg)


def choose_faces(faces: Sequence[Face], num_views: int = NUM_VIEWS, *, min_difference_deg: float = 4.0) -> list[Face]:
    """Choose the faces of one person with the most different poses, the most frontal first; ties go to the sharper."""
    chosen = choose_views(
        [face.pose for face in faces],
        num_views,
        min_difference_deg=min_difference_deg,
        sharpness=[_sharpness(face.crop) for face in faces],
    )
    return [faces[number] for number in chosen]


def _keep_most_frequent_person(faces: list[Face]) -> list[Face]:
    """Keep the faces of the person who is found most often."""
    embeddings = np.stack([face.embedding for face in faces])
    is_same = np.stack([distances(embeddings, face.embedding, face.metric) < face.threshold for face in faces])
    return [faces[number] for number in np.flatnonzero(is_same[is_same.sum(axis=1).argmax()])]


def _sharpness(crop: NDArray[np.uint8]) -> float:
    """Variance of the Laplacian."""
    gray = crop.astype(np.float64).mean(axis=-1)
    neighbor_sum = gray[:-2, 1:-1] + gray[2:, 1:-1] + gray[1:-1, :-2] + gray[1:-1, 2:]
    return float((neighbor_sum - 4 * gray[1:-1, 1:-1]).var())


def _argmax_sharpest(values: NDArray[np.float64], sharpness_scores: NDArray[np.float64]) -> int:
    """Index of the largest value; the sharpest among equals, then the first."""
    ties = np.flatnonzero(values >= values.max() - 1e-9)
    return int(ties[sharpness_scores[ties].argmax()])
