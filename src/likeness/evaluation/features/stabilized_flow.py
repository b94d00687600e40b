"""Motion of a face without that of the camera: flow to the next frame after that frame was warped to remove it.

FantasyID's FM is "average dense optical flow" of videos from which "we cropped the facial regions" (arXiv:2502.13995,
section 4.1). Flow of the whole frame, averaged in the face's box, also counts a camera that pans over a still face.
Two variants exclude that. The next frame is warped and flow measured again; subtracting vectors instead would leave
what Farneback's method underestimates on smooth skin.

- `crop`: the crop follows the face. Its shift is the median flow in the box, because the detector's boxes jitter by
  pixels. Expression and turns of the head remain.
- `camera`: a similarity transform of the background (shift, rotation, scale) is removed. A head that moves in front of
  the background still counts. Without enough background the value is NaN.
"""

import cv2
import numpy as np

from likeness.evaluation.features.farneback import dense_flow

MIN_POINTS = 24
"""Fewest background corners from which the camera's motion is estimated."""
MIN_INLIERS = 0.5
"""Least share of them that must agree."""
_TOLERANCE_PX = 1.0
_MAX_POINTS = 400
_HEAD_WIDTHS = (0.6, 0.8, 0.6, 4.0)
"""Extent of a person beyond the face's box, in sides of the box: left, up, right, down."""
_MARGIN_PX = 32
"""Pixels around the box that are included: about the reach of the flow's windows and pyramid."""


def camera_motion(gray: np.ndarray, flow: np.ndarray, boxes: np.ndarray) -> np.ndarray | None:
    """Motion of the background, from this frame to the next.

    Shapes:
        gray: (height, width) uint8
        flow: (height, width, 2) px, to the next frame
        boxes: (faces, 4) px
        returns: (2, 3), a similarity from this frame's pixels to the next one's; None without enough background
    """
    height, width = gray.shape
    mask = np.full((height, width), 255, dtype=np.uint8)
    for box in boxes:
        left, top, right, bottom = box
        across, down = right - left, bottom - top
        edges = (
            left - _HEAD_WIDTHS[0] * across,
            top - _HEAD_WIDTHS[1] * down,
            right + _HEAD_WIDTHS[2] * across,
            bottom + _HEAD_WIDTHS[3] * down,
        )
        first, upper = (max(0, int(edge)) for edge in edges[:2])
        mask[upper : max(0, int(edges[3])), first : max(0, int(edges[2]))] = 0
    corners = cv2.goodFeaturesToTrack(gray, _MAX_POINTS, 0.01, 4, mask=mask)
    if corners is None or len(corners) < MIN_POINTS:
        return None
    points = corners.reshape(-1, 2)
    columns, rows = points.round().astype(int).T
    moved = points + flow[rows, columns]
    cv2.setRNGSeed(0)  # RANSAC uses OpenCV's own generator; results must be reproducible.
    motion, inliers = cv2.estimateAffinePartial2D(points, moved, method=cv2.RANSAC, ransacReprojThreshold=_TOLERANCE_PX)
    if motion is None or inliers.sum() < max(MIN_POINTS, MIN_INLIERS * len(points)):
        return None
    return motion


def median_shift(flow: np.ndarray, box: np.ndarray) -> np.ndarray | None:
    """Median shift of a box, (2, 3) like `camera_motion`; None where the box is outside of the image."""
    left, top, right, bottom = _cut(box, flow.shape[:2])
    if right <= left or bottom <= top:
        return None
    shift = np.median(flow[top:bottom, left:right].reshape(-1, 2), axis=0)
    return np.array([[1.0, 0.0, shift[0]], [0.0, 1.0, shift[1]]])


def motion_besides(first: np.ndarray, second: np.ndarray, motion: np.ndarray | None, box: np.ndarray) -> float:
    """Mean length of Farneback's flow in a box after `motion` was removed from the second frame.

    Shapes:
        first, second: (height, width) uint8
        motion: (2, 3), from pixels of `first` to pixels of `second`
        box: (4,) px, in `first`

    Returns:
        Pixels; NaN without `motion`, or where the box is outside of the image.
    """
    height, width = first.shape
    left, top, right, bottom = _cut(box, first.shape)
    if motion is None or right <= left or bottom <= top:
        return float("nan")
    outer = (
        max(0, left - _MARGIN_PX),
        max(0, top - _MARGIN_PX),
        min(width, right + _MARGIN_PX),
        min(height, bottom + _MARGIN_PX),
    )
    size = (outer[2] - outer[0], outer[3] - outer[1])
    # Window coordinates to frame coordinates, then along the motion.
    to_second = motion.copy()
    to_second[:, 2] += motion[:, :2] @ np.array(outer[:2], dtype=np.float64)
    flags = cv2.INTER_LINEAR | cv2.WARP_INVERSE_MAP
    held = cv2.warpAffine(second, to_second, size, flags=flags, borderMode=cv2.BORDER_REPLICATE)
    window = np.ascontiguousarray(first[outer[1] : outer[3], outer[0] : outer[2]])
    flow = dense_flow(window, np.asarray(held))
    inner = flow[top - outer[1] : bottom - outer[1], left - outer[0] : right - outer[0]]
    seen = _seen(to_second, size, second.shape)[top - outer[1] : bottom - outer[1], left - outer[0] : right - outer[0]]
    # Pixels that left the frame are copies of its border and do not count.
    return float(np.hypot(inner[..., 0], inner[..., 1])[seen].mean()) if seen.any() else float("nan")


def _seen(motion: np.ndarray, size: tuple[int, int], shape: tuple[int, ...]) -> np.ndarray:
    """(height, width) bool: pixels of a window that `motion` maps inside the image."""
    columns, rows = np.meshgrid(np.arange(size[0]), np.arange(size[1]))
    across = motion[0, 0] * columns + motion[0, 1] * rows + motion[0, 2]
    down = motion[1, 0] * columns + motion[1, 1] * rows + motion[1, 2]
    return (across >= 0) & (down >= 0) & (across <= shape[1] - 1) & (down <= shape[0] - 1)


def _cut(box: np.ndarray, shape: tuple[int, ...]) -> tuple[int, int, int, int]:
    return (
        max(0, int(np.floor(box[0]))),
        max(0, int(np.floor(box[1]))),
        min(shape[1], int(np.ceil(box[2]))),
        min(shape[0], int(np.ceil(box[3]))),
    )
