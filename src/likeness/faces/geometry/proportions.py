"""Estimates a face's proportions from a picture: from five landmarks, and from a mask of the face or of its skin.

A turned head looks narrow, and hair or a beard covers the edge of the skin.
`likeness.identity.face_shape.proportions` measures the same quantities exactly on vertices. Landmarks are eye corners
and base of the nose (dlib's).
"""

from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from likeness.faces.geometry.layouts import EYE_CORNERS, refuse_other_layout

CHEEK_BAND = (0.15, 0.45)
JAW_BAND = (0.75, 0.95)
"""Bands below the line through the eyes; the unit is the distance between the outer eye corners."""
_MAX_HALF_WIDTH = 1.4
"""Largest horizontal distance of a face pixel from the middle, in the same unit."""
_SKIN_CHROMA = 0.05
_SKIN_BRIGHTNESS = (0.35, 2.2)


def measure_landmarks(landmarks: NDArray[np.floating]) -> dict[str, float]:
    """Measure proportions from five landmarks (5, 2).

    Returns:
        `nose_length`, from the line through the eyes to the base of the nose, and `eye_spacing`, between the inner eye
        corners; the unit is the distance between the outer corners.

    Raises:
        FaceError: The landmarks have another layout.
    """
    refuse_other_layout(landmarks, EYE_CORNERS)
    _, inner_left, inner_right, _, nose = _to_eye_coordinates(np.asarray(landmarks, np.float64), landmarks)
    return {"nose_length": float(nose[1]), "eye_spacing": float(inner_right[0] - inner_left[0])}


def measure_mask(mask: NDArray[np.bool_], landmarks: NDArray[np.floating]) -> dict[str, float]:
    """Measure widths of a face.

    Shapes:
        mask: (height, width), True on the face or its skin
        landmarks: (5, 2) px

    Returns:
        `face_width` between the cheeks, divided by `nose_length`, and `jaw_width` at the height of the mouth, divided
        by the width between the cheeks; NaN where the mask is empty.

    Raises:
        FaceError: The landmarks have another layout.
    """
    refuse_other_layout(landmarks, EYE_CORNERS)
    rows, columns = np.nonzero(mask)
    points = _to_eye_coordinates(np.stack([columns, rows], axis=1).astype(np.float64), landmarks)
    points = points[np.abs(points[:, 0]) < _MAX_HALF_WIDTH]
    # Width of a pixel in the same unit; a band's extent includes its outermost pixels.
    pixel_size = 1 / max(float(np.linalg.norm(landmarks[3] - landmarks[0])), 1e-6)
    cheeks, jaw = (_band_width(points, low, high, pixel_size) for low, high in (CHEEK_BAND, JAW_BAND))
    # Eye distance grows with face width, so it cannot be the unit here.
    return {"face_width": cheeks / measure_landmarks(landmarks)["nose_length"], "jaw_width": jaw / cheeks}


def skin_mask(picture: NDArray[np.uint8], landmarks: NDArray[np.floating]) -> NDArray[np.bool_]:
    """Mask of the face's skin: pixels with the color of the cheeks that are connected to the cheeks.

    Shapes:
        picture: (height, width, 3) uint8
        landmarks: (5, 2) px
        returns: (height, width)
    """
    height, width = picture.shape[:2]
    y, x = np.mgrid[:height, :width]
    points = _to_eye_coordinates(np.stack([x.ravel(), y.ravel()], axis=1).astype(np.float64), landmarks)
    across, down = points.reshape(height, width, 2).transpose(2, 0, 1)
    cheeks = (np.abs(across) > 0.15) & (np.abs(across) < 0.5) & (down > 0.25) & (down < 0.6)
    if not cheeks.any():
        return np.zeros((height, width), dtype=bool)
    linear = (picture / 255.0) ** 2.2 + 1e-3  # Linear light.
    brightness = linear.sum(axis=-1)
    chroma = linear / brightness[..., None]
    chroma_distance = np.abs(chroma - np.median(chroma[cheeks], axis=0)).max(axis=-1)
    ratio = brightness / np.median(brightness[cheeks])
    low, high = _SKIN_BRIGHTNESS
    is_skin = (chroma_distance < _SKIN_CHROMA) & (ratio > low) & (ratio < high) & (np.abs(across) < _MAX_HALF_WIDTH)
    # Keep the connected component with most pixels on the cheeks.
    labeled: Any = ndimage.label(is_skin)
    components = labeled[0]
    counts = np.bincount(components[cheeks & is_skin], minlength=2)
    counts[0] = 0
    return components == counts.argmax() if counts.any() else np.zeros((height, width), dtype=bool)


def _to_eye_coordinates(points: NDArray[np.float64], landmarks: NDArray[np.floating]) -> NDArray[np.float64]:
    """Points (points, 2) in coordinates with the origin between the eyes, the eyes level, outer corners 1 apart."""
    left, right = np.asarray(landmarks[0], np.float64), np.asarray(landmarks[3], np.float64)
    along = (right - left) / max(float(((right - left) ** 2).sum()), 1e-12)
    # The second axis points down the face; y grows downwards as in the picture.
    axes = np.stack([along, [-along[1], along[0]]], axis=1)
    return (points - (left + right) / 2) @ axes


def _band_width(points: NDArray[np.float64], low: float, high: float, pixel_size: float) -> float:
    """Median width over the rows of a band, robust to single hairs and holes."""
    band = points[(points[:, 1] > low) & (points[:, 1] < high)]
    if not len(band):
        return float("nan")
    rows = np.round(band[:, 1] / pixel_size)
    widths = [np.ptp(band[rows == row, 0]) + pixel_size for row in np.unique(rows)]
    return float(np.median(widths))
