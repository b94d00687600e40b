"""A clip becomes files: an mp4 to look at, and the record of how it was made, inside it and beside it."""

import json
import math
from pathlib import Path

import numpy as np

from likeness.errors import ConfigError
from likeness.media import resize, write_video
from likeness.records import Clip

SHOWN_SIDE_PX = 256
"""Small videos are enlarged by a whole number until their short side reaches this."""


def display_factor(frames: np.ndarray) -> int:
    """How many times larger the saved video is by default."""
    return max(1, math.ceil(SHOWN_SIDE_PX / min(frames.shape[1:3])))


def enlarge_frames(frames: np.ndarray, factor: int) -> np.ndarray:
    """Enlarge smoothly by a whole number.

    Shapes:
        frames: (frames, height, width, 3) uint8
        returns: (frames, factor * height, factor * width, 3) uint8
    """
    _, height, width, _ = frames.shape
    return np.stack([resize(frame, factor * width, factor * height) for frame in frames])


def save_clip(clip: Clip, path: str | Path, *, enlarge: int | None = None) -> Path:
    """Write the mp4 at `path` and the same record beside it as JSON.

    Nothing in either depends on the time or the folder, so the same seed gives the same bytes.

    Args:
        clip: What to save.
        path: Ends in `.mp4`; parent folders are made.
        enlarge: Whole number by which the shown video is larger than the clip's frames; by default the smallest
            one with which the short side reaches `SHOWN_SIDE_PX`.
    """
    path = Path(path)
    factor = display_factor(clip.frames) if enlarge is None else enlarge
    if factor < 1:
        raise ConfigError(f"`enlarge` is {factor}; a whole number from 1 is needed.")
    record = clip.to_dict() | {"enlarged": factor}
    write_video(path, enlarge_frames(clip.frames, factor), clip.fps, metadata=record)
    path.with_suffix(".json").write_text(json.dumps(record, indent=2) + "\n", encoding="utf-8")
    return path
