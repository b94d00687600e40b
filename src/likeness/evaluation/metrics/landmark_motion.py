"""Does the face move: Magic Mirror's FM_ref and FM_inter on five landmarks (arXiv:2501.03931, section 4.1 and A.4).

The paper takes RetinaFace's five points (eyes, nose, corners of the mouth); here they are those of the landmark engine. dlib's
(corners of the eyes, base of the nose) do not see a mouth; SCRFD's and YuNet's are the paper's points. Distances are in face
sizes here, so that a face far away counts as one nearby; `frame_motion_...` have the paper's coordinates of the frame.
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


def frame_motion_from_reference(
    landmarks: np.ndarray, size_px: np.ndarray, references: np.ndarray, reference_sizes_px: np.ndarray
) -> np.ndarray:
    """FM_ref with the paper's normalization: coordinates in widths and heights of the own picture, around their mean.

    Shapes:
        landmarks: (frames, 5, 2) px, NaN where there is no face
        size_px: (2,), width and height of the frames
        references: (references, 5, 2) px
        reference_sizes_px: (references, 2), NaN where the picture is not known
        returns: (frames,), in frame sizes, NaN where there is no face
    """
    own = _centered(landmarks / size_px)
    others = _centered(references / reference_sizes_px[:, None])
    return np.sqrt(((own[:, None] - others[None]) ** 2).sum(axis=(-1, -2))).mean(axis=1)


def frame_motion_between_frames(landmarks: np.ndarray, size_px: np.ndarray) -> np.ndarray:
    """FM_inter with the paper's normalization: coordinates on the original frame, in its longer sides, not aligned.

    Shapes:
        landmarks: (frames, 5, 2) px, NaN where there is no face
        size_px: (2,), width and height of the frames
        returns: (frames - 1,), in longer sides of the frame, NaN where either frame has no face
    """
    return np.sqrt(((landmarks[1:] - landmarks[:-1]) ** 2).sum(axis=(-1, -2))) / size_px.max()


def _centered(points: np.ndarray) -> np.ndarray:
    return points - points.mean(axis=-2, keepdims=True)


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
