"""Drops spans in which nothing moves, and those whose camera shakes, by dense optical flow (Farneback).

Motion is the speed of the fastest 5 % of the pixels, as in VBench's dynamic degree; shaking is how much the camera's
velocity, the median of the flow, changes from one pair of frames to the next. Both are shares of the shorter side.
"""

from itertools import pairwise
from typing import ClassVar

import cv2
import numpy as np
from pydantic import Field

from likeness.config import Settings
from likeness.curation.stage import Candidate, Needs, SourceView, register
from likeness.curation.stages.frames import to_gray, with_facts

_FARNEBACK = (0.5, 3, 15, 3, 5, 1.2, 0)
"""Pyramid scale, levels, window, iterations, polynomial and its sigma, flags."""
_TOP_SHARE = 0.05


class MotionSettings(Settings):
    """Limits of motion."""

    min_motion: float | None = 0.01
    """Slowest span: shorter sides of the frame per second."""
    max_motion: float | None = None
    """Fastest span."""
    max_shake: float | None = 0.02
    """Largest root mean square of the change of the camera's shift between pairs, in shorter sides."""
    sample_fps: float = Field(default=8.0, gt=0)
    """Frames compared for each second."""
    max_pairs: int = Field(default=24, ge=1)
    """Most pairs of frames; of a longer span the middle part is measured."""
    side_px: int = Field(default=160, ge=16)
    """Longer side to which frames are scaled down."""


@register("motion")
class Motion:
    """Measures the motion of videos; pictures pass unchanged."""

    name = "motion"
    version = 1
    reads = ()
    writes = ("motion", "shake")
    needs = Needs()
    Settings = MotionSettings
    limits: ClassVar = {
        "still": "min_motion",
        "too fast": "max_motion",
        "camera shakes": "max_shake",
    }

    def __init__(self, settings: MotionSettings) -> None:
        self.settings = settings

    def __call__(self, candidates: list[Candidate], view: SourceView) -> list[Candidate]:
        if view.source.kind == "image":
            return candidates
        return [self._judge(candidate, view) for candidate in candidates]

    def _judge(self, candidate: Candidate, view: SourceView) -> Candidate:
        limits = self.settings
        step = max(1, round(view.fps / limits.sample_fps))
        count = min(candidate.num_frames, limits.max_pairs * step + 1)
        first = candidate.first_frame + (candidate.num_frames - count) // 2
        motion, shake = measure_motion(
            view.frames(first, count, step=step, max_side_px=limits.side_px), view.fps / step
        )
        candidate = with_facts(candidate, motion=motion, shake=shake)
        if limits.min_motion is not None and motion < limits.min_motion:
            return candidate.drop(self.name, "still", motion)
        if limits.max_motion is not None and motion > limits.max_motion:
            return candidate.drop(self.name, "too fast", motion)
        if limits.max_shake is not None and shake > limits.max_shake:
            return candidate.drop(self.name, "camera shakes", shake)
        return candidate


def measure_motion(frames: np.ndarray, fps: float) -> tuple[float, float]:
    """Motion, in shorter sides per second, and shaking, in shorter sides; 0 for a single frame.

    Shapes:
        frames: (frames, height, width, 3) uint8
    """
    side_px = min(frames.shape[1:3])
    grays = [to_gray(frame) for frame in frames]
    fastest, camera = [], []
    for one, other in pairwise(grays):
        flow = np.asarray(cv2.calcOpticalFlowFarneback(one, other, np.empty((*one.shape, 2), np.float32), *_FARNEBACK))
        lengths = np.hypot(flow[..., 0], flow[..., 1]).ravel()
        count = max(1, int(lengths.size * _TOP_SHARE))
        fastest.append(float(np.partition(lengths, lengths.size - count)[-count:].mean()))
        camera.append(np.median(flow, axis=(0, 1)))
    if not fastest:
        return 0.0, 0.0
    changes = np.diff(np.array(camera, dtype=np.float64), axis=0)
    shake = float(np.sqrt(np.square(changes).sum(axis=1).mean())) if len(changes) else 0.0
    return float(np.mean(fastest)) * fps / side_px, shake / side_px
