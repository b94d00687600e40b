"""Frames of a candidate, sampled evenly and scaled down, and small edits of candidates that all stages share."""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from typing import Any, TypeVar

import cv2
import numpy as np

from likeness.curation.stage import Candidate, SourceView

CHUNK_FRAMES = 256
"""Frames that `walk` asks for at once."""
Figure = TypeVar("Figure")


def sample(
    candidate: Candidate, view: SourceView, count: int, *, max_side_px: int | None = None
) -> tuple[np.ndarray, np.ndarray]:
    """Evenly spaced frames of a candidate's span, from its first frame on.

    Args:
        candidate: A picture or a span.
        view: Its source.
        count: Largest number of frames; at least half of it if the span is long enough.
        max_side_px: Frames are scaled down to this longer side.

    Returns:
        Numbers of the frames in the source, (frames,) int64, and (frames, height, width, 3) uint8.
    """
    step = max(1, -(-candidate.num_frames // count))
    return every(candidate, view, step, max_side_px=max_side_px)


def every(
    candidate: Candidate, view: SourceView, step: int, *, max_side_px: int | None = None
) -> tuple[np.ndarray, np.ndarray]:
    """Every `step`-th frame of a candidate's span; see `sample`."""
    frames = view.frames(candidate.first_frame, candidate.num_frames, step=step, max_side_px=max_side_px)
    return candidate.first_frame + step * np.arange(len(frames)), frames


def walk(
    candidate: Candidate, view: SourceView, *, step: int = 1, max_side_px: int | None = None
) -> Iterator[tuple[int, np.ndarray]]:
    """Number and pixels of every `step`-th frame of a span, read in chunks, so that long videos fit in memory."""
    length = CHUNK_FRAMES * step
    for start in range(0, candidate.num_frames, length):
        count = min(length, candidate.num_frames - start)
        frames = view.frames(candidate.first_frame + start, count, step=step, max_side_px=max_side_px)
        for index, frame in enumerate(frames):
            yield candidate.first_frame + start + step * index, frame


def by_span(
    candidates: Sequence[Candidate], measure: Callable[[Candidate], Figure]
) -> Iterator[tuple[Candidate, Figure]]:
    """Each candidate with the figure of its frames, measured once for a span: people in one shot share its frames."""
    known: dict[tuple[int, int], Figure] = {}
    for candidate in candidates:
        span = (candidate.first_frame, candidate.num_frames)
        if span not in known:
            known[span] = measure(candidate)
        yield candidate, known[span]


def with_facts(candidate: Candidate, **facts: Any) -> Candidate:
    """A copy with more facts."""
    return replace(candidate, facts={**candidate.facts, **facts})


def with_arrays(candidate: Candidate, **arrays: np.ndarray) -> Candidate:
    """A copy with more arrays."""
    return replace(candidate, arrays={**candidate.arrays, **arrays})


def to_gray(frame: np.ndarray) -> np.ndarray:
    """(height, width) uint8 of (height, width, 3) RGB, by the weights of BT.601."""
    return np.asarray(cv2.cvtColor(np.ascontiguousarray(frame), cv2.COLOR_RGB2GRAY))


def crop_box(frame: np.ndarray, box: np.ndarray) -> np.ndarray:
    """The part of a (height, width, ...) picture inside a box in pixels, clipped; at least one pixel."""
    height, width = frame.shape[:2]
    left, top = int(np.clip(np.floor(box[0]), 0, width - 1)), int(np.clip(np.floor(box[1]), 0, height - 1))
    right, bottom = int(np.clip(np.ceil(box[2]), left + 1, width)), int(np.clip(np.ceil(box[3]), top + 1, height))
    return frame[top:bottom, left:right]
