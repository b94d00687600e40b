"""Save a clip as mp4 or picture, with its record inside the file and as JSON beside it; read it back."""

import json
import math
import secrets
import tempfile
from pathlib import Path

import numpy as np
from pydantic import BaseModel, ConfigDict, Field, ValidationError

from likeness.errors import LikenessError, MediaError
from likeness.files import write_text
from likeness.generation.outputs.destinations import VIDEO_SUFFIX, check_enlarge_factor, check_output, record_file
from likeness.generation.outputs.similarity import read_similarity
from likeness.media import read_metadata, read_video, resize, write_image, write_video
from likeness.records import Clip, Face

MIN_SAVED_SIDE_PX = 256
"""Small videos are enlarged by the smallest whole number that gives the short side this length."""


class _SimilarityRecord(BaseModel):
    """The fields of a similarity that are read."""

    threshold: float = Field(gt=0, allow_inf_nan=False)
    distances: list[float | None]
    cosines: list[float | None]


class _CandidateRecord(BaseModel):
    """The fields of a candidate that are read."""

    seed: int
    similarity: float | None


class _SearchRecord(BaseModel):
    """The fields of a search among seeds that are read."""

    candidates: list[_CandidateRecord]
    passed: bool | None


class _SettingsRecord(BaseModel):
    """The fields of a clip's settings that are read."""

    seed: int
    best_of: _SearchRecord | None = None


class _ClipRecord(BaseModel):
    """The fields of a record that pages and figures need; the file may come from anywhere, so they are validated."""

    model_config = ConfigDict(strict=True)

    prompt: str
    settings: _SettingsRecord
    similarity: _SimilarityRecord | None = None


def default_enlarge_factor(frames: np.ndarray) -> int:
    """Default factor of enlargement of a saved video."""
    return max(1, math.ceil(MIN_SAVED_SIDE_PX / min(frames.shape[1:3])))


def enlarge_frames(frames: np.ndarray, factor: int) -> np.ndarray:
    """Enlarge smoothly by a whole number.

    Shapes:
        frames: (frames, height, width, 3) uint8
        returns: (frames, factor * height, factor * width, 3) uint8
    """
    _, height, width, _ = frames.shape
    return np.stack([resize(frame, factor * width, factor * height) for frame in frames])


def save_clip(clip: Clip, path: str | Path, *, enlarge: int | None = None, overwrite: bool = True) -> Path:
    """Write the mp4, PNG or JPEG at `path` and the same record beside it as JSON, each whole or not at all.

    Nothing in either depends on the time or the folder, so the same seed gives the same bytes.

    Args:
        clip: What to save.
        path: Ends in `.mp4`, or in `.png`, `.jpg` or `.jpeg` if the clip is one frame; parent folders are made.
        enlarge: Whole number by which the shown video is larger than the clip's frames; by default the smallest
            one with which the short side reaches `MIN_SAVED_SIDE_PX`.
        overwrite: Whether a clip of that name, and its record, may be replaced. A JSON file that is not the record of
            this file is never replaced.

    Raises:
        ConfigError: `enlarge` is out of range, a picture of several frames was asked for, or a file would be replaced.
        MediaError: The suffix is another, or a folder has that name.
        FileWriteError: The disk refuses.
    """
    path = Path(path)
    check_output(path, len(clip.frames), overwrite=overwrite)
    factor = default_enlarge_factor(clip.frames) if enlarge is None else enlarge
    check_enlarge_factor(clip.frames.shape[:3], factor)
    record = clip.to_dict() | {"enlarged": factor}
    frames = enlarge_frames(clip.frames, factor)
    if path.suffix.lower() == VIDEO_SUFFIX:
        write_video(path, frames, clip.fps, metadata=record)
    else:
        write_image(path, frames[0], metadata=record)
    # Last: a record says that its clip is finished.
    write_text(record_file(path), json.dumps(record, indent=2) + "\n")
    return path


def save_with_fallback(clip: Clip, path: Path, *, enlarge: int | None = None, overwrite: bool = True) -> Path:
    """Save a clip; if `path` cannot be written, save it in another folder, and raise with its place in the message.

    Raises:
        LikenessError: As `save_clip`. The message names the file, or says that the clip could not be saved.
    """
    try:
        return save_clip(clip, path, enlarge=enlarge, overwrite=overwrite)
    except LikenessError as error:
        for folder in (path.parent, Path(tempfile.gettempdir()), Path.home()):
            fallback = folder / f"{path.stem}.{secrets.token_hex(4)}{path.suffix}"
            try:
                save_clip(clip, fallback, enlarge=enlarge, overwrite=False)
            except LikenessError:
                continue
            raise type(error)(f"{error} The clip is not lost: it is {fallback}.") from error
        raise type(error)(
            f"{error} It could be saved nowhere else either. The same command with the same seed makes it again."
        ) from error


def read_clip(path: Path, references: tuple[Face, ...] = ()) -> Clip:
    """Read an mp4 written by `save_clip`. The frames have the size in which they were saved.

    Raises:
        MediaError: It is no readable video, or holds no record.
    """
    record = read_metadata(path)
    frames, fps = read_video(path)
    if "prompt" not in record or "settings" not in record:
        raise MediaError(f"{path} was not made by likeness: it holds no record. Use another video.")
    try:
        _ClipRecord.model_validate(record)
    except ValidationError as error:
        problem = error.errors()[0]
        raise MediaError(
            f"{path} holds a record that likeness did not write: `{'.'.join(map(str, problem['loc']))}`: "
            f"{problem['msg']}. Make the video again."
        ) from error
    similarity = record.get("similarity")
    return Clip(
        frames=frames,
        fps=fps,
        prompt=record["prompt"],
        settings=record["settings"],
        similarity=None if similarity is None else read_similarity(similarity),
        references=references,
    )
