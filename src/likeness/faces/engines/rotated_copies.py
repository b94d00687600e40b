"""Rotated copies of a picture, and how stable landmarks are: for a second search where a detector found nothing."""

from collections.abc import Callable
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

from likeness.errors import Box
from likeness.faces.geometry.align import apply_affine
from likeness.records import Detection

ANGLES_DEG = (0, 30, -30, 60, -60, 90, -90, 180)
"""HOG finds upright faces, and most that are turned up to 30 degrees."""
_BOX_JITTER = ((0.1, 0.0, 1.0), (-0.1, 0.0, 1.0), (0.0, 0.1, 1.0), (0.0, -0.1, 1.0), (0.0, 0.0, 1.12), (0.0, 0.0, 0.9))
"""Changes of a box: shift to the right and down in widths of the box, and scale."""


def rotate(picture: np.ndarray, angle_deg: float) -> tuple[np.ndarray, np.ndarray]:
    """Rotate a picture about its center, on a canvas that holds all of it.

    Returns:
        The copy, and the (2, 3) matrix from pixels of the copy to pixels of the picture.
    """
    height, width = picture.shape[:2]
    matrix = cv2.getRotationMatrix2D(((width - 1) / 2, (height - 1) / 2), angle_deg, 1.0)
    cosine, sine = abs(matrix[0, 0]), abs(matrix[0, 1])
    size = round(height * sine + width * cosine), round(height * cosine + width * sine)
    matrix[:, 2] += (np.array(size) - (width, height)) / 2
    copy = cv2.warpAffine(picture, matrix, size, borderMode=cv2.BORDER_REPLICATE)
    return copy, cv2.invertAffineTransform(matrix)


def landmark_spread(box: Box, landmarks: np.ndarray, predict: Callable[[Box], np.ndarray]) -> float:
    """How far the eye corners move if the box is shifted and scaled by a tenth, in distances of the eyes.

    On a face the predictor finds the same points again; elsewhere its points follow the box.
    """
    left, top, right, bottom = box
    side, x, y = right - left, (left + right) / 2, (top + bottom) / 2
    points = [landmarks]
    for shift_x, shift_y, scale in _BOX_JITTER:
        half, center_x, center_y = side * scale / 2, x + shift_x * side, y + shift_y * side
        points.append(predict((center_x - half, center_y - half, center_x + half, center_y + half)))
    eyes = np.linalg.norm(landmarks[2:4].mean(axis=0) - landmarks[:2].mean(axis=0))
    return float(np.std(points, axis=0)[:4].mean() / max(float(eyes), 1e-6))


def rotate_back(detection: Detection, matrix: NDArray[Any]) -> Detection:
    """Map a detection from a rotated copy to the picture; the box keeps its size and stays upright."""
    left, top, right, bottom = detection.box
    ((x, y),) = apply_affine(matrix, np.array([[(left + right) / 2, (top + bottom) / 2]]))
    half_width, half_height = (right - left) / 2, (bottom - top) / 2
    return Detection(
        box=(float(x - half_width), float(y - half_height), float(x + half_width), float(y + half_height)),
        landmarks=apply_affine(matrix, detection.landmarks).astype(np.float32),
        score=detection.score,
        layout=detection.layout,
    )


def drop_duplicates(detections: list[Detection]) -> list[Detection]:
    """Keep the detection with the highest score of those whose centers are in each other's boxes."""
    kept: list[Detection] = []
    for detection in sorted(detections, key=lambda candidate: -candidate.score):
        left, top, right, bottom = detection.box
        x, y = (left + right) / 2, (top + bottom) / 2
        if not any(box[0] < x < box[2] and box[1] < y < box[3] for box in (other.box for other in kept)):
            kept.append(detection)
    return kept
