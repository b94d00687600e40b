"""A clip becomes files: an mp4 or one PNG to look at, and the record of how it was made, inside it and beside it."""

import json
import math
from pathlib import Path

import numpy as np

from likeness.errors import ConfigError, MediaError
from likeness.generation.similarity import read_similarity
from likeness.media import check_video_path, read_metadata, read_video, resize, write_picture, write_video
from likeness.records import Clip, Face

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
    """Write the mp4 or PNG at `path` and the same record beside it as JSON.

    Nothing in either depends on the time or the folder, so the same seed gives the same bytes.

    Args:
        clip: What to save.
        path: Ends in `.mp4`, or in `.png` if the clip is one frame; parent folders are made.
        enlarge: Whole number by which the shown video is larger than the clip's frames; by default the smallest
            one with which the short side reaches `SHOWN_SIDE_PX`.

    Raises:
        ConfigError: `enlarge` is no whole number from 1, or several frames were to become one picture.
        MediaError: The suffix is another, or the disk refuses.
    """
    path = Path(path)
    check_output(path, len(clip.frames))
    factor = display_factor(clip.frames) if enlarge is None else enlarge
    if factor < 1:
        raise ConfigError(f"`enlarge` is {factor}; a whole number from 1 is needed.")
    record = clip.to_dict() | {"enlarged": factor}
    frames = enlarge_frames(clip.frames, factor)
    if path.suffix.lower() == ".png":
        write_picture(path, frames[0], metadata=record)
    else:
        write_video(path, frames, clip.fps, metadata=record)
    path.with_suffix(".json").write_text(json.dumps(record, indent=2) + "\n", encoding="utf-8")
    return path


def check_output(path: Path, num_frames: int) -> None:
    """Refuse what a clip of so many frames could not be saved as, before it is made.

    Raises:
        ConfigError: Several frames were to become one picture.
        MediaError: The suffix is neither .mp4 nor .png, or a folder has that name.
    """
    if path.suffix.lower() != ".png":
        check_video_path(path)
    elif num_frames != 1:
        raise ConfigError(
            f"{path} is a picture, but `frames` is {num_frames}. Use `--frames 1` for a picture, or a name that ends in .mp4."
        )
    elif path.is_dir():
        raise MediaError(f"{path} cannot be written as a picture: it is a folder. Name a file inside it.")


def read_clip(path: Path, references: tuple[Face, ...] = ()) -> Clip:
    """Read what `save_clip` wrote as mp4. The frames come back as large as they were saved.

    Raises:
        MediaError: It is no readable video, or holds no record.
    """
    record = read_metadata(path)
    frames, fps = read_video(path)
    if "prompt" not in record or "settings" not in record:
        raise MediaError(f"{path} was not made by likeness: it holds no record. Use another video.")
    measured = record.get("similarity")
    return Clip(
        frames=frames,
        fps=fps,
        prompt=record["prompt"],
        settings=record["settings"],
        similarity=None if measured is None else read_similarity(measured),
        references=references,
    )
