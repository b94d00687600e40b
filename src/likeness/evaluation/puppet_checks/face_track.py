"""A face followed through a clip: where it is, where it looks, how large it is. Who it is stands elsewhere."""

from dataclasses import dataclass

import numpy as np

from likeness.faces import DETECTION_PX, HEAD_TEMPLATE, DlibEngine, fit_similarity, head_pose, prominence, warp
from likeness.media import resize
from likeness.records import Box, Detection

HEAD_PX = 96
"""Side of the aligned head pictures."""
MIN_OVERLAP = 0.3
"""Overlap (intersection over union) with the face before, from which a detection is the same face."""


@dataclass(frozen=True, kw_only=True, slots=True, eq=False)
class FaceTrack:
    """What the frames of one clip show; a frame without a face has NaN everywhere.

    Shapes:
        is_sure: (frames,) bool: the detector was sure; in other frames it guessed where the face was before
        pose_deg: (frames, 3): yaw, pitch, roll
        size_px: (frames,): distance of the outer eye corners in the detector's pixels, freed from the shortening by yaw
        landmarks: (frames, 5, 2) in pixels of the frame
        heads: (frames, HEAD_PX, HEAD_PX, 3) uint8, eyes level
    """

    height_px: int
    """Height of a frame."""
    is_sure: np.ndarray
    pose_deg: np.ndarray
    size_px: np.ndarray
    landmarks: np.ndarray
    heads: np.ndarray

    @property
    def is_found(self) -> np.ndarray:
        """(frames,) bool."""
        return np.isfinite(self.size_px)

    @property
    def face_rate(self) -> float:
        """Share of the frames in which the detector was sure of a face."""
        return float(self.is_sure.mean())


def track_face(frames: np.ndarray, engine: DlibEngine | None = None) -> FaceTrack:
    """Follow the most prominent face.

    A turned head often falls just under the detector's threshold, so guesses count where the face was before.

    Shapes:
        frames: (frames, height, width, 3) uint8
    """
    engine = engine or DlibEngine()
    count = len(frames)
    track = FaceTrack(
        height_px=frames.shape[1],
        is_sure=np.zeros(count, dtype=bool),
        pose_deg=np.full((count, 3), np.nan),
        size_px=np.full(count, np.nan),
        landmarks=np.full((count, 5, 2), np.nan, dtype=np.float32),
        heads=np.zeros((count, HEAD_PX, HEAD_PX, 3), dtype=np.uint8),
    )
    before: Box | None = None
    for index, frame in enumerate(frames):
        scale = max(1.0, DETECTION_PX / max(frame.shape[:2]))
        large = resize(frame, round(frame.shape[1] * scale), round(frame.shape[0] * scale))
        face = _choose(engine.detect(large), before, engine.min_score)
        if face is None:
            continue
        before = face.box
        pose = head_pose(face.landmarks)
        track.is_sure[index] = face.score >= engine.min_score
        track.pose_deg[index] = pose.yaw_deg, pose.pitch_deg, pose.roll_deg
        across = np.linalg.norm(face.landmarks[3] - face.landmarks[0])
        track.size_px[index] = across / np.cos(np.radians(pose.yaw_deg))
        track.landmarks[index] = face.landmarks / scale
        track.heads[index] = warp(large, fit_similarity(face.landmarks, HEAD_TEMPLATE * HEAD_PX), HEAD_PX)
    return track


def overlap(a: Box, b: Box) -> float:
    """Intersection over union of two boxes."""
    width = min(a[2], b[2]) - max(a[0], b[0])
    height = min(a[3], b[3]) - max(a[1], b[1])
    if width <= 0 or height <= 0:
        return 0.0
    shared = width * height
    return shared / ((a[2] - a[0]) * (a[3] - a[1]) + (b[2] - b[0]) * (b[3] - b[1]) - shared)


def _choose(found: list[Detection], before: Box | None, min_score: float) -> Detection | None:
    if before is not None:
        same = [face for face in found if overlap(face.box, before) >= MIN_OVERLAP]
        if same:
            return max(same, key=lambda face: face.score)
    return max((face for face in found if face.score >= min_score), key=prominence, default=None)
