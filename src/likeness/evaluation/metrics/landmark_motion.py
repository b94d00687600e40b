"""Face motion: Magic Mirror's FM_ref and FM_inter on five landmarks (arXiv:2501.03931, section 4.1 and A.4).

The paper uses RetinaFace's five points (eyes, nose, mouth corners); here the landmark engine gives them. SCRFD and
YuNet give the paper's points; dlib's (eye corners, base of the nose) include no mouth. Distances are in face sizes, so
that far and near faces compare; `frame_motion_...` use the paper's frame coordinates.
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
    """Center landmarks and divide by their size: removes position and scale, keeps rotation."""
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
    """FM_ref with the paper's normalization: coordinates in widths and heights of the own image, centered.

    Shapes:
        landmarks: (frames, 5, 2) px, NaN where there is no face
        size_px: (2,), width and height of the frames
        references: (references, 5, 2) px
        reference_sizes_px: (references, 2), NaN where unknown
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
    """L2 distance of consecutive frames' landmarks, not centered, in units of the two faces' mean size.

    Shapes:
        landmarks: (frames, 5, 2) px
        returns: (frames - 1,), in face sizes, NaN where either frame has no face
    """
    moved = np.sqrt(((landmarks[1:] - landmarks[:-1]) ** 2).sum(axis=(-1, -2)))
    size = (sizes(landmarks[1:]) + sizes(landmarks[:-1])) / 2
    with np.errstate(divide="ignore", invalid="ignore"):
        return np.where(size > 0, moved / size, np.nan)


def largest(values: np.ndarray) -> float:
    """The largest finite value; NaN if there is none."""
    found = values[np.isfinite(values)]
    return float(found.max()) if len(found) else float("nan")
