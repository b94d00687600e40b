"""Optical flow by Farneback's method, summarized for the metrics.

The flow of each pair of consecutive frames is computed once, for the motion score, face motion and, at no more than
eight frames a second, the dynamic degree. Settings and gray conversion are those of OpenS2V-Nexus'
`get_motionscore.py`: pyramid 0.5, 3 levels, window 15, 3 iterations, polynomial 5 and 1.2. That script swaps the
weights of red and blue, and so does this module.
"""

from collections.abc import Iterator

import cv2
import numpy as np

from likeness.evaluation.features.farneback import dense_flow
from likeness.evaluation.features.stabilized_flow import camera_motion, median_shift, motion_besides

RATE_FPS = 8.0
"""Frames a second that VBench samples for the dynamic degree, about."""
TOP_SHARE = 0.05
"""The dynamic degree takes the mean over this share of the fastest pixels."""
SIGNED_WIDTH_PX = 16
"""Width to which flow is averaged for the motion score."""


def measure_flow(
    frames: np.ndarray, fps: float, face_frames: np.ndarray, face_boxes: np.ndarray
) -> dict[str, np.ndarray]:
    """Flow of all consecutive pairs, and of the pairs that the dynamic degree samples.

    Shapes:
        frames: (frames, height, width, 3) uint8
        face_frames: (faces,), the frame of each face
        face_boxes: (faces, 4) px
        magnitude_px: returned, (frames - 1,), mean length of the vectors
        signed_px: returned, (frames - 1,), mean of all signed components of the flow at 16 px width
        face_px: returned, (faces,), mean length inside the face's box, to the next frame; NaN in the last frame
        face_crop_px, face_camera_px: returned, (faces,), the same without the motion of the face's box, and without the
            motion of the camera; see `stabilized_flow`
        fast_px: returned, (pairs,), mean length of the fastest 5 % of the pixels, pairs at about 8 frames a second
    """
    grays = [cv2.cvtColor(np.ascontiguousarray(frame), cv2.COLOR_BGR2GRAY) for frame in frames]
    interval = sample_interval(fps)
    magnitude_px, signed_px, fast_px = [], [], []
    face_px, face_crop_px, face_camera_px = np.full((3, len(face_frames)), np.nan, dtype=np.float32)
    for index, flow in enumerate(_fields(grays, 1)):
        first, second = grays[index], grays[index + 1]
        lengths = np.hypot(flow[..., 0], flow[..., 1])
        magnitude_px.append(lengths.mean())
        signed_px.append(signed_mean(flow))
        rows = np.flatnonzero(face_frames == index)
        camera = camera_motion(first, flow, face_boxes[rows]) if len(rows) else None
        for row in rows:
            box = face_boxes[row]
            face_px[row] = mean_in_box(lengths, box)
            face_crop_px[row] = motion_besides(first, second, median_shift(flow, box), box)
            face_camera_px[row] = motion_besides(first, second, camera, box)
        if interval == 1:
            fast_px.append(top_mean(lengths))
    if interval > 1:
        fast_px = [top_mean(np.hypot(flow[..., 0], flow[..., 1])) for flow in _fields(grays[::interval], 1)]
    return {
        "magnitude_px": np.array(magnitude_px, dtype=np.float32),
        "signed_px": np.array(signed_px, dtype=np.float32),
        "face_px": face_px,
        "face_crop_px": face_crop_px,
        "face_camera_px": face_camera_px,
        "fast_px": np.array(fast_px, dtype=np.float32),
    }


def sample_interval(fps: float) -> int:
    """Distance of the frames that VBench samples: about eight a second."""
    return max(1, round(fps / RATE_FPS))


def top_mean(lengths: np.ndarray) -> float:
    """Mean of the largest 5 % of the values, at least one."""
    count = max(1, int(lengths.size * TOP_SHARE))
    flat = lengths.ravel()
    return float(np.partition(flat, flat.size - count)[flat.size - count :].mean())


def signed_mean(flow: np.ndarray) -> float:
    """Mean of both signed components of a (height, width, 2) flow, averaged by area to 16 px width first."""
    height, width = flow.shape[:2]
    size = (SIGNED_WIDTH_PX, max(1, int(height * (SIGNED_WIDTH_PX / width))))
    return float(cv2.resize(flow, size, interpolation=cv2.INTER_AREA).mean())


def mean_in_box(lengths: np.ndarray, box: np.ndarray) -> float:
    """Mean of (height, width) values in a box in pixels, clipped to the image; NaN if the box is outside."""
    height, width = lengths.shape
    left, top = max(0, int(np.floor(box[0]))), max(0, int(np.floor(box[1])))
    right, bottom = min(width, int(np.ceil(box[2]))), min(height, int(np.ceil(box[3])))
    region = lengths[top:bottom, left:right]
    return float(region.mean()) if region.size else float("nan")


def dynamic_threshold_px(height_px: int, width_px: int, fps: float) -> float:
    """Motion of a pair from which VBench calls it dynamic: 6 px where the shorter side has 256.

    Below 8 frames a second a pair spans more time, and VBench's code raises the threshold in proportion.
    """
    return max(1.0, RATE_FPS / fps) * 6.0 * min(height_px, width_px) / 256.0


def is_dynamic(fast_px: np.ndarray, threshold_px: float, num_frames: int) -> bool:
    """VBench's rule: enough pairs move fast. A quarter of the sampled frames is needed.

    VBench's rounding needs no pair in a video of two frames and calls it dynamic; here at least one pair is needed.
    """
    needed = max(1, round(4 * (num_frames / 16.0)))
    return int((fast_px > threshold_px).sum()) >= needed


def _fields(grays: list[np.ndarray], step: int) -> Iterator[np.ndarray]:
    for first, second in zip(grays[:-step], grays[step:], strict=True):
        yield dense_flow(first, second)
