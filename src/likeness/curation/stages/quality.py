"""Drops tracks and pictures whose face is uncertain, small, blurred, badly exposed, turned away, or seen too shortly.

Each limit is a setting; None switches it off. Figures are medians over the samples of a track, so that single bad
frames do not decide.
"""

from collections.abc import Iterator
from typing import ClassVar

import cv2
import numpy as np
from pydantic import Field

from likeness.config import Settings
from likeness.curation.stage import Candidate, Needs, SourceView, register
from likeness.curation.stages.frames import crop_box, to_gray, with_facts

FACE_PX = 112
"""Side to which the face is scaled before sharpness is measured, so that it does not depend on the face's size."""
_CLIPPED = (4, 251)
"""Gray values outside of these count as clipped."""

Problem = tuple[str, float]
"""Reason and figure."""


class QualitySettings(Settings):
    """Limits of a face."""

    min_score: float | None = 0.9
    """Of the detector, for engines whose scores are probabilities (F8 of FantasyID); dlib's own rule decides there."""
    min_face_px: float | None = 64.0
    """Smallest shorter side of the face's box."""
    min_face_share: float | None = 0.01
    """Smallest share of the frame that the box covers."""
    max_face_share: float | None = 0.8
    """Largest share of the frame that the box covers."""
    min_sharpness: float | None = 20.0
    """Smallest variance of the Laplacian in the face, at 112 px. Ten portraits have 160 to 670; blurred by a Gaussian
    of 1 px at that size 32 to 70, of 2 px 8 to 14."""
    min_brightness: float | None = 30.0
    """Smallest mean gray value in the face, from 0 to 255."""
    max_brightness: float | None = 230.0
    """Largest mean gray value in the face."""
    max_clipped: float | None = 0.35
    """Largest share of black and of white pixels in the face."""
    max_yaw_deg: float | None = 75.0
    """Largest turn to a side."""
    max_pitch_deg: float | None = 45.0
    """Largest turn up or down."""
    max_roll_deg: float | None = 45.0
    """Largest tilt."""
    min_length_s: float | None = 1.0
    """Shortest track of a video."""
    min_coverage: float | None = 0.7
    """Smallest share of the samples, from first to last, in which the face was found."""
    max_others: int | None = None
    """Most other faces in the frame."""
    num_frames: int = Field(default=5, ge=1)
    """Frames in which sharpness and exposure are measured."""


@register("quality")
class Quality:
    """Measures each face and drops those outside of the limits."""

    name = "quality"
    version = 1
    reads = ("frames", "boxes", "poses", "scores", "engine", "coverage", "num_others")
    writes = (
        "score",
        "face_px",
        "face_share",
        "sharpness",
        "brightness",
        "clipped",
        "yaw_deg",
        "pitch_deg",
        "roll_deg",
    )
    needs = Needs()
    Settings = QualitySettings
    limits: ClassVar = {
        "track too short": "min_length_s",
        "face often lost": "min_coverage",
        "other people": "max_others",
        "face uncertain": "min_score",
        "face too small": "min_face_px",
        "face too small in the frame": "min_face_share",
        "face too large in the frame": "max_face_share",
        "too dark": "min_brightness",
        "too bright": "max_brightness",
        "clipped": "max_clipped",
        "blurred": "min_sharpness",
        "turned sideways": "max_yaw_deg",
        "turned up or down": "max_pitch_deg",
        "tilted": "max_roll_deg",
    }

    def __init__(self, settings: QualitySettings) -> None:
        self.settings = settings

    def __call__(self, candidates: list[Candidate], view: SourceView) -> list[Candidate]:
        return [self._judge(candidate, view) for candidate in candidates]

    def _judge(self, candidate: Candidate, view: SourceView) -> Candidate:
        boxes, poses = candidate.arrays["boxes"], np.abs(candidate.arrays["poses"])
        sides = boxes[:, 2:] - boxes[:, :2]
        yaw, pitch, roll = (float(value) for value in np.median(poses, axis=0))
        facts = {
            "score": float(np.median(candidate.arrays["scores"])),
            "face_px": float(np.median(sides.min(axis=1))),
            "face_share": float(np.median(sides.prod(axis=1)) / (view.width_px * view.height_px)),
            "yaw_deg": yaw,
            "pitch_deg": pitch,
            "roll_deg": roll,
            **self._measure_pixels(candidate, view),
        }
        candidate = with_facts(candidate, **facts)
        problem = next(self._problems(candidate, view), None)
        return candidate if problem is None else candidate.drop(self.name, *problem)

    def _measure_pixels(self, candidate: Candidate, view: SourceView) -> dict[str, float]:
        numbers, boxes = candidate.arrays["frames"], candidate.arrays["boxes"]
        rows = np.unique(
            np.linspace(0, len(numbers) - 1, min(self.settings.num_frames, len(numbers))).round().astype(int)
        )
        faces = [crop_box(view.frames(int(numbers[row]), 1)[0], boxes[row]) for row in rows]
        figures = np.array([measure_face(face) for face in faces])
        sharpness, brightness, clipped = (float(value) for value in np.median(figures, axis=0))
        return {"sharpness": sharpness, "brightness": brightness, "clipped": clipped}

    def _problems(self, candidate: Candidate, view: SourceView) -> Iterator[Problem]:
        limits, facts = self.settings, candidate.facts
        if view.source.kind == "video":
            length_s = candidate.num_frames / view.fps
            yield from _below("track too short", length_s, limits.min_length_s)
            yield from _below("face often lost", facts["coverage"], limits.min_coverage)
        yield from _above("other people", facts["num_others"], limits.max_others)
        if facts["engine"] != "dlib":  # Its score is no probability; the engine's own rule has found the face.
            yield from _below("face uncertain", facts["score"], limits.min_score)
        yield from _below("face too small", facts["face_px"], limits.min_face_px)
        yield from _below("face too small in the frame", facts["face_share"], limits.min_face_share)
        yield from _above("face too large in the frame", facts["face_share"], limits.max_face_share)
        yield from _below("too dark", facts["brightness"], limits.min_brightness)
        yield from _above("too bright", facts["brightness"], limits.max_brightness)
        yield from _above("clipped", facts["clipped"], limits.max_clipped)
        # After exposure: dark faces have little contrast, and so little variance.
        yield from _below("blurred", facts["sharpness"], limits.min_sharpness)
        yield from _above("turned sideways", facts["yaw_deg"], limits.max_yaw_deg)
        yield from _above("turned up or down", facts["pitch_deg"], limits.max_pitch_deg)
        yield from _above("tilted", facts["roll_deg"], limits.max_roll_deg)


def measure_face(face: np.ndarray) -> tuple[float, float, float]:
    """Sharpness, brightness and share of clipped pixels of a face.

    Shapes:
        face: (height, width, 3) uint8
    """
    gray = to_gray(face)
    small = cv2.resize(gray, (FACE_PX, FACE_PX), interpolation=cv2.INTER_AREA)
    sharpness = float(cv2.Laplacian(small, cv2.CV_64F).var())
    clipped = float(((gray < _CLIPPED[0]) | (gray > _CLIPPED[1])).mean())
    return sharpness, float(gray.mean()), clipped


def _below(reason: str, value: float, limit: float | None) -> Iterator[Problem]:
    if limit is not None and value < limit:
        yield reason, value


def _above(reason: str, value: float, limit: float | None) -> Iterator[Problem]:
    if limit is not None and value > limit:
        yield reason, value
