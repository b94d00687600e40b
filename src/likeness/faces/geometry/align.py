"""Geometry of the five landmarks: similarity fits, warps, head crops, head pose.

Landmarks are in picture order (`likeness.records.LANDMARK_NAMES`): eye corners and base of the nose, unless another
`LandmarkLayout` is given. Camera coordinates are x to the right, y down, z towards the viewer.
"""

import numpy as np
from numpy.typing import ArrayLike

from likeness.faces.geometry.layouts import EYE_CORNERS, LandmarkLayout
from likeness.records import Pose

HEAD_TEMPLATE = EYE_CORNERS.template
"""Eye corners and base of the nose in a head crop of side 1; each layout has its own template."""

_POSE_STEPS = 12
_POSE_PRIOR = 0.005
"""Weight of the prior of angles (radians) towards frontal; without it nearly flat point sets give flipped poses."""
_MIN_AVERAGED_SHRINK = 2.0
"""A warp that shrinks more than this averages blocks first, because bilinear sampling would alias."""


def fit_similarity(source: np.ndarray, target: np.ndarray) -> np.ndarray:
    """Least-squares rotation, uniform scale and shift (no mirroring) that maps `source` to `target`.

    Shapes:
        source, target: (points, 2)
        returns: (2, 3), applied as `points @ matrix[:, :2].T + matrix[:, 2]`
    """
    source, target = np.asarray(source, np.float64), np.asarray(target, np.float64)
    source_mean, target_mean = source.mean(0), target.mean(0)
    a, b = source - source_mean, target - target_mean
    # A 2-D similarity is multiplication by a complex number, so the fit is one complex division.
    cosine = (a * b).sum()
    sine = (a[:, 0] * b[:, 1] - a[:, 1] * b[:, 0]).sum()
    spread = (a**2).sum()
    linear = np.array([[cosine, -sine], [sine, cosine]]) / max(spread, np.finfo(np.float64).tiny)
    return np.column_stack([linear, target_mean - linear @ source_mean])


def apply_affine(matrix: np.ndarray, points: np.ndarray) -> np.ndarray:
    """Map (points, 2) by a (2, 3) affine matrix."""
    return np.asarray(points) @ matrix[:, :2].T + matrix[:, 2]


def warp(picture: np.ndarray, matrix: np.ndarray, size_px: int, *, fill: ArrayLike | None = None) -> np.ndarray:
    """Resample `picture` into a square, bilinear.

    Args:
        picture: (height, width, 3) uint8.
        matrix: (2, 3), from pixels of the picture to pixels of the square.
        size_px: side of the square.
        fill: color outside the picture; None repeats its edge.
    """
    shrink = 1 / max(float(np.sqrt(abs(np.linalg.det(matrix[:, :2])))), 1e-6)
    block = round(shrink) if shrink >= _MIN_AVERAGED_SHRINK else 1
    block = max(1, min(block, *picture.shape[:2]))
    if block > 1:
        # Pixel centers: coarse pixel i covers fine pixels from i * block on.
        scale = np.array([[block, 0, (block - 1) / 2], [0, block, (block - 1) / 2], [0, 0, 1]])
        matrix = matrix @ scale
    # Source coordinates of every pixel of the square.
    inverse = np.linalg.inv(np.vstack([matrix, [0, 0, 1]]))[:2]
    y, x = np.mgrid[:size_px, :size_px].astype(np.float64)
    source_x, source_y = apply_affine(inverse, np.stack([x.ravel(), y.ravel()], axis=1)).T.copy()
    height, width = (side // block for side in picture.shape[:2])
    x = np.clip(source_x, 0, width - 1)
    y = np.clip(source_y, 0, height - 1)
    left, top = x.astype(int), y.astype(int)
    right, bottom = np.minimum(left + 1, width - 1), np.minimum(top + 1, height - 1)
    fx, fy = x - left, y - top
    if block > 1:  # Average only the blocks that are sampled: a face is a small part of a large photograph.
        first_row, first_column = top.min(), left.min()
        picture = _average_blocks(
            picture[
                first_row * block : (bottom.max() + 1) * block,
                first_column * block : (right.max() + 1) * block,
            ],
            block,
        )
        top, bottom, left, right = (
            top - first_row,
            bottom - first_row,
            left - first_column,
            right - first_column,
        )
    square = np.empty((size_px * size_px, 3), np.uint8)
    pixels, row_px = np.ascontiguousarray(picture).reshape(-1, 3), picture.shape[1]
    corners = [pixels.take(rows * row_px + columns, axis=0).T for rows in (top, bottom) for columns in (left, right)]
    is_outside = None
    if fill is not None:
        # dlib's rule: outside is every pixel whose four neighbors are not all inside.
        is_outside = ~((source_x >= 0) & (source_y >= 0) & (source_x < width - 1) & (source_y < height - 1))
        fill = np.broadcast_to(fill, 3)
    # Bilinear interpolation. Channel by channel: loops of numpy over rows of three numbers are three times as slow.
    for channel, (top_left, top_right, bottom_left, bottom_right) in enumerate(zip(*corners, strict=True)):
        upper = top_left * (1 - fx) + top_right * fx
        lower = bottom_left * (1 - fx) + bottom_right * fx
        interpolated = upper * (1 - fy) + lower * fy
        if fill is not None and is_outside is not None:
            interpolated[is_outside] = fill[channel]
        square[:, channel] = interpolated + 0.5
    return square.reshape(size_px, size_px, 3)


def crop_head(
    picture: np.ndarray, landmarks: np.ndarray, size_px: int = 224, *, layout: LandmarkLayout = EYE_CORNERS
) -> np.ndarray:
    """The whole head, eyes level, as a (size_px, size_px, 3) uint8 square.

    Outside the picture it has the median color of the picture's border: repeated edge pixels would look like hair.
    """
    border = np.concatenate([picture[0], picture[-1], picture[:, 0], picture[:, -1]])
    matrix = fit_similarity(landmarks, layout.template * size_px)
    return warp(picture, matrix, size_px, fill=np.median(border, axis=0))


def head_pose(landmarks: np.ndarray, *, layout: LandmarkLayout = EYE_CORNERS) -> Pose:
    """Head pose by a weak-perspective fit of a mean head to the five landmarks.

    Eye corners and nose base are nearly coplanar, so an affine fit cannot recover the depth axis. The six parameters
    (three angles, scale, shift) are fitted directly by damped Gauss-Newton.
    """
    landmarks = np.asarray(landmarks, np.float64)
    center = landmarks.mean(0)
    spread = np.sqrt(((landmarks - center) ** 2).sum())
    if spread < 1e-6:
        return Pose(yaw_deg=0.0, pitch_deg=0.0, roll_deg=0.0)
    points = (landmarks - center) / spread
    left, right = layout.eyes
    eyes = points[right] - points[left]
    head = layout.head_points - layout.head_points.mean(0)
    angles = np.array([0.0, 0.0, np.arctan2(eyes[1], eyes[0])])
    prior = np.sqrt(_POSE_PRIOR) * np.array([1.0, 1.0, 0.0])
    damping = 1e-3
    error = _pose_residuals(angles, points, head, prior)
    for _ in range(_POSE_STEPS):
        # Forward differences; scale and shift are eliminated in the residuals.
        jacobian = np.stack(
            [(_pose_residuals(angles + step, points, head, prior) - error) / 1e-5 for step in np.eye(3) * 1e-5],
            axis=1,
        )
        normal = jacobian.T @ jacobian
        candidate = angles - np.linalg.solve(normal + damping * np.eye(3), jacobian.T @ error)
        candidate_error = _pose_residuals(candidate, points, head, prior)
        # Levenberg-Marquardt: accept a better step and reduce the damping, else increase it.
        if candidate_error @ candidate_error < error @ error:
            angles, error, damping = candidate, candidate_error, damping / 4
        else:
            damping *= 8
    yaw_deg, pitch_deg, roll_deg = np.rad2deg(angles)
    return Pose(yaw_deg=float(yaw_deg), pitch_deg=float(pitch_deg), roll_deg=float(roll_deg))


def rotation_matrix(yaw_deg: float, pitch_deg: float, roll_deg: float) -> np.ndarray:
    """(3, 3) rotation of a head: first yaw about its vertical axis, then pitch, then roll in the image plane."""
    (cy, cp, cr), (sy, sp, sr) = np.cos(a := np.deg2rad([yaw_deg, pitch_deg, roll_deg])), np.sin(a)
    yaw = np.array([[cy, 0, sy], [0, 1, 0], [-sy, 0, cy]])
    pitch = np.array([[1, 0, 0], [0, cp, -sp], [0, sp, cp]])
    roll = np.array([[cr, -sr, 0], [sr, cr, 0], [0, 0, 1]])
    return roll @ pitch @ yaw


def _pose_residuals(angles: np.ndarray, points: np.ndarray, head: np.ndarray, prior: np.ndarray) -> np.ndarray:
    """Residuals of `points` (centered, unit spread) from the rotated head at its best scale, then of the prior."""
    rotated = head @ rotation_matrix(*np.rad2deg(angles))[:2].T
    scale = (rotated * points).sum() / (rotated**2).sum()
    return np.concatenate([(scale * rotated - points).ravel(), prior * angles])


def _average_blocks(picture: np.ndarray, block: int) -> np.ndarray:
    """Means of blocks of `block` x `block` pixels, float32. Sides are multiples of `block`.

    Integer sums of rows, then of columns, are exact and several times as fast as a mean over two axes.
    """
    rows = picture[::block].astype(np.uint32)
    for row in range(1, block):
        rows += picture[row::block]
    sums = rows[:, ::block].copy()
    for column in range(1, block):
        sums += rows[:, column::block]
    return sums.astype(np.float32) / np.float32(block * block)
