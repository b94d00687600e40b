"""Does the face move: Magic Mirror's FM_ref and FM_inter on five landmarks (arXiv:2501.03931, section 4.1 and A.4).

The paper takes RetinaFace's five points (eyes, nose, corners of the mouth); here they are the engine's five (corners of
the eyes, base of the nose). So a mouth that opens moves nothing, a head that turns, nods, tilts or comes closer does, and
figures compare among systems measured here, not with the paper's.
"""

import numpy as np


def sizes(landmarks: np.ndarray) -> np.ndarray:
    """Size of each face: root mean square distance of its landmarks from their mean.

    Shapes:
        landmarks: (..., 5, 2) px
        returns: (...,) px
    """
    centered = landmarks - landmarks.mean(axis=-2, keepdims=True)
    return np.sqrt((centered**2).sum(axis=-1).mean(axis=-1))


def normalize(landmarks: np.ndarray) -> np.ndarray:
    """Landmarks around their mean in units of their size: position and size are gone, turns and tilts stay."""
    centered = landmarks - landmarks.mean(axis=-2, keepdims=True)
    with np.errstate(divide="ignore", invalid="ignore"):
        return centered / sizes(landmarks)[..., None, None]


def motion_from_reference(landmarks: np.ndarray, references: np.ndarray) -> np.ndarray:
    """L2 distance of each frame's normalized landmarks to a reference's, mean over the references.

    Shapes:
        landmarks: (frames, 5, 2) px, NaN where there is no face
        references: (references, 5, 2) px
        returns: (frames,), in face sizes, NaN where there is no face
    """
    difference = normalize(landmarks)[:, None] - normalize(references)[None]
    return np.sqrt((difference**2).sum(axis=(-1, -2))).mean(axis=1)


def motion_between_frames(landmarks: np.ndarray) -> np.ndarray:
    """L2 distance of consecutive frames' landmarks where they are, in units of the two faces' mean size.

    Shapes:
        landmarks: (frames, 5, 2) px
        returns: (frames - 1,), in face sizes, NaN where either frame has no face
    """
    moved = np.sqrt(((landmarks[1:] - landmarks[:-1]) ** 2).sum(axis=(-1, -2)))
    size = (sizes(landmarks[1:]) + sizes(landmarks[:-1])) / 2
    with np.errstate(divide="ignore", invalid="ignore"):
        return np.where(size > 0, moved / size, np.nan)


def largest(values: np.ndarray) -> float:
    """The largest of the numbers that exist; NaN where none does."""
    found = values[np.isfinite(values)]
    return float(found.max()) if len(found) else float("nan")
