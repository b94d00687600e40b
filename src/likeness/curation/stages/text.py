"""Drops clips and pictures with text on them: subtitles, titles, watermarks (F8 of FantasyID)."""

from collections.abc import Callable, Sequence
from typing import ClassVar

import cv2
import numpy as np
from pydantic import Field

from likeness.config import Settings
from likeness.curation.stage import Candidate, Needs, SourceView, register
from likeness.curation.stages.frames import by_span, sample, with_facts
from likeness.curation.stages.networks.ocr import Text, read_text

Reader = Callable[[np.ndarray], list[Text]]


class TextSettings(Settings):
    """How text is found, and how much is allowed."""

    max_text_share: float = Field(default=0.002, ge=0, le=1)
    """Largest share of the frame that lines of text cover."""
    min_confidence: float = Field(default=0.7, ge=0, le=1)
    """Lines that are read with less certainty do not count."""
    min_letters: int = 3
    """Lines with fewer letters and digits do not count."""
    num_frames: int = Field(default=3, ge=1)
    """Frames of a span that are searched; the one with the most text decides."""
    side_px: int = Field(default=640, ge=16)
    """Longer side to which frames are scaled before text is searched."""


@register("text")
class TextOnScreen:
    """Measures the area of text and drops what has too much of it.

    Args:
        settings: See `TextSettings`.
        reader: From a frame to its lines of text; RapidOCR by default.
    """

    name = "text"
    version = 1
    reads = ()
    writes = ("text_share",)
    needs = Needs()
    Settings = TextSettings
    limits: ClassVar = {"text on screen": "max_text_share"}

    def __init__(self, settings: TextSettings, reader: Reader | None = None) -> None:
        self.settings = settings
        self._read: Reader = reader or (lambda frame: read_text(frame, side_px=settings.side_px))

    def __call__(self, candidates: list[Candidate], view: SourceView) -> list[Candidate]:
        def measure(candidate: Candidate) -> float:
            return max(self._share(frame) for frame in sample(candidate, view, self.settings.num_frames)[1])

        judged = []
        for candidate, share in by_span(candidates, measure):
            known = with_facts(candidate, text_share=share)
            has_text = share > self.settings.max_text_share
            judged.append(known.drop(self.name, "text on screen", share) if has_text else known)
        return judged

    def _share(self, frame: np.ndarray) -> float:
        lines = [
            corners
            for text, confidence, corners in self._read(frame)
            if confidence >= self.settings.min_confidence
            and sum(letter.isalnum() for letter in text) >= self.settings.min_letters
        ]
        return text_share(lines, frame.shape[0], frame.shape[1])


def text_share(lines: Sequence[np.ndarray], height_px: int, width_px: int) -> float:
    """Share of a frame that lies inside of quadrilaterals, (4, 2) each, in pixels."""
    covered = np.zeros((height_px, width_px), np.uint8)
    for corners in lines:
        cv2.fillPoly(covered, [np.round(corners).astype(np.int32)], (1,))
    return float(covered.mean())
