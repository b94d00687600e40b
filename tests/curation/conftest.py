"""A source in memory, and a face engine that finds squares of one color."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from likeness.curation.stage import Candidate, Kind, Source, make_id
from likeness.faces.engines.base import DetectionPass
from likeness.faces.geometry.layouts import EYE_CENTERS
from likeness.media import resize
from likeness.records import Detection


class ArrayView:
    """A `SourceView` of an array."""

    def __init__(self, frames: np.ndarray, *, fps: float = 8.0, kind: Kind = "video", path: Path | None = None) -> None:
        self.source = Source(path=path or Path("clip.mp4"), sha256="ab" * 32, kind=kind)
        self.pixels, self.fps = frames, fps
        self.num_frames = len(frames)
        self.height_px, self.width_px = frames.shape[1:3]

    def frames(self, first: int, count: int, *, step: int = 1, max_side_px: int | None = None) -> np.ndarray:
        if first < 0 or count < 1 or first + count > len(self.pixels):
            raise ValueError(f"{first} + {count} of {len(self.pixels)}")
        frames = self.pixels[first : first + count : step]
        scale = 1.0 if max_side_px is None else min(1.0, max_side_px / max(self.height_px, self.width_px))
        if scale == 1.0:
            return frames
        return np.stack([resize(f, round(self.width_px * scale), round(self.height_px * scale)) for f in frames])

    def whole(self, **facts: Any) -> Candidate:
        source = self.source.sha256
        return Candidate(
            id=make_id(source, 0, self.num_frames),
            source=source,
            num_frames=self.num_frames,
            facts={"fps": self.fps, "width_px": self.width_px, "height_px": self.height_px, **facts},
        )


class SquareEngine:
    """Finds squares of pure red, green or blue; the embedding is the color."""

    name = "squares"
    embedding_width = 3
    threshold = 0.5
    metric = "cosine"
    min_score = 0.5
    layout = EYE_CENTERS
    detection_passes = (DetectionPass(10_000, max_scale=1.0),)

    def detect(self, picture: np.ndarray) -> list[Detection]:
        found = []
        for channel in range(3):
            others = [c for c in range(3) if c != channel]
            rows, columns = np.nonzero((picture[..., channel] > 200) & (picture[..., others].max(axis=-1) < 60))
            if len(rows):
                box = (float(columns.min()), float(rows.min()), float(columns.max() + 1), float(rows.max() + 1))
                found.append(Detection(box=box, landmarks=_landmarks(box), score=0.95, layout=EYE_CENTERS.name))
        return found

    def embed(self, picture: np.ndarray, landmarks: np.ndarray) -> np.ndarray:
        x, y = landmarks.mean(axis=0).round().astype(int)
        return picture[y, x].astype(np.float32) / 255


def _landmarks(box: tuple[float, float, float, float]) -> np.ndarray:
    left, top, right, bottom = box
    shares = np.array([[0.3, 0.35], [0.7, 0.35], [0.5, 0.55], [0.35, 0.75], [0.65, 0.75]])
    return (np.array([left, top]) + shares * np.array([right - left, bottom - top])).astype(np.float32)


@pytest.fixture
def view() -> Callable[..., ArrayView]:
    return ArrayView


@pytest.fixture
def engine() -> SquareEngine:
    return SquareEngine()


@pytest.fixture
def squares() -> Callable[..., np.ndarray]:
    """Frames with squares of 24 px: a list of (channel, left, top) for each frame."""

    def draw(frames: list[list[tuple[int, int, int]]], size_px: int = 96) -> np.ndarray:
        pixels = np.full((len(frames), size_px, size_px, 3), 128, np.uint8)
        for frame, marks in zip(pixels, frames, strict=True):
            for channel, left, top in marks:
                frame[top : top + 24, left : left + 24] = 255 * np.eye(3, dtype=np.uint8)[channel]
        return pixels

    return draw
