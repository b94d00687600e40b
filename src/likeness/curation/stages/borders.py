"""Finds black bars around pictures and videos, and chooses the part of each frame that is kept.

Bars are crops of what training would otherwise learn; Magic Mirror describes them in the prompt of one of its sets
instead (M14, set B). The fact `crop` is [left, top, right, bottom] in pixels of the source.
"""

from typing import ClassVar, Literal

import numpy as np
from pydantic import Field

from likeness.config import Settings
from likeness.curation.stage import Candidate, Needs, SourceView, register
from likeness.curation.stages.frames import sample, to_gray, with_facts

Box = tuple[int, int, int, int]


class BorderSettings(Settings):
    """How bars are found, and what is kept."""

    crop: Literal["bars", "square"] = "bars"
    """`bars` keeps all between the bars, `square` the largest square in it around the face of the track."""
    max_gray: int = Field(default=12, ge=0, le=255)
    """Largest gray value of a bar: codecs leave noise in black, and night skies are little brighter (15 to 20)."""
    max_bright_share: float = Field(default=0.01, ge=0, le=1)
    """Largest share of brighter pixels in a row or column of a bar."""
    min_bar_share: float = Field(default=0.02, ge=0, le=0.5)
    """Narrower bars, as a share of the side, are left."""
    min_kept_share: float = Field(default=0.25, ge=0, le=1)
    """Candidates of which a smaller part of the frame is left are dropped."""
    num_frames: int = Field(default=8, ge=1)
    """Frames that must all have the bar."""


@register("borders")
class Borders:
    """Writes which part of each frame is kept."""

    name = "borders"
    version = 1
    reads = ()
    writes = ("crop", "has_bars")
    needs = Needs()
    Settings = BorderSettings
    limits: ClassVar = {"mostly bars": "min_kept_share"}

    def __init__(self, settings: BorderSettings) -> None:
        self.settings = settings

    def __call__(self, candidates: list[Candidate], view: SourceView) -> list[Candidate]:
        return [self._crop(candidate, view) for candidate in candidates]

    def _crop(self, candidate: Candidate, view: SourceView) -> Candidate:
        settings = self.settings
        whole = (0, 0, view.width_px, view.height_px)
        _, frames = sample(candidate, view, settings.num_frames)
        inside = find_inside(
            frames,
            max_gray=settings.max_gray,
            max_bright_share=settings.max_bright_share,
            min_bar_share=settings.min_bar_share,
        )
        if inside is None:
            return candidate.drop(self.name, "black")
        kept_share = (inside[2] - inside[0]) * (inside[3] - inside[1]) / (view.width_px * view.height_px)
        if kept_share < settings.min_kept_share:
            return candidate.drop(self.name, "mostly bars", kept_share)
        crop = inside
        if settings.crop == "square":
            boxes = candidate.arrays.get("boxes")
            crop = square_around(inside, np.median(boxes, axis=0) if boxes is not None else np.array(inside))
        return with_facts(candidate, crop=list(crop), has_bars=inside != whole)


def find_inside(
    frames: np.ndarray, *, max_gray: int = 12, max_bright_share: float = 0.01, min_bar_share: float = 0.02
) -> Box | None:
    """The part of frames between black bars; None if all is black.

    Shapes:
        frames: (frames, height, width, 3) uint8
    """
    brightest = np.max([to_gray(frame) for frame in frames], axis=0) > max_gray
    top, bottom = _edges(brightest.mean(axis=1), max_bright_share, min_bar_share)
    if bottom <= top:
        return None
    left, right = _edges(brightest[top:bottom].mean(axis=0), max_bright_share, min_bar_share)
    return (left, top, right, bottom) if right > left else None


def square_around(inside: Box, face: np.ndarray) -> Box:
    """The largest square inside a box whose center is as near as possible to that of a face.

    Args:
        inside: What may be kept.
        face: (4,) left, top, right, bottom.
    """
    left, top, right, bottom = inside
    side = min(right - left, bottom - top)
    x = int(np.clip(round(float(face[0] + face[2]) / 2 - side / 2), left, right - side))
    y = int(np.clip(round(float(face[1] + face[3]) / 2 - side / 2), top, bottom - side))
    return x, y, x + side, y + side


def _edges(bright_share: np.ndarray, max_share: float, min_bar_share: float) -> tuple[int, int]:
    """First and last + 1 of the lines that belong to no bar."""
    inner = np.flatnonzero(bright_share > max_share)
    if not len(inner):
        return 0, 0
    count, least = len(bright_share), min_bar_share * len(bright_share)
    first, end = int(inner[0]), int(inner[-1]) + 1
    return first if first >= least else 0, end if count - end >= least else count
