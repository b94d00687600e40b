"""Checks of output paths, made before any heavy import and again before a file is replaced.

Every command follows one rule: an existing file is replaced only with `overwrite`. The record of a clip is `NAME.json`
beside it. A JSON file that is no record, or the record of another clip of the same name, is never replaced:
`smile.png` and `smile.mp4` cannot share `smile.json`.
"""

import math
import tempfile
from collections.abc import Iterable, Sequence
from pathlib import Path

from likeness.errors import ConfigError, FileWriteError, MediaError
from likeness.files import read_json

IMAGE_SUFFIXES = (".png", ".jpg", ".jpeg")
"""Suffixes for a clip of one frame."""
VIDEO_SUFFIX = ".mp4"
MAX_ENLARGED_BYTES = 1_000_000_000
"""Limit for the memory of the enlarged frames of a clip."""
MAX_ENLARGED_PX = 8192
"""Longest side of an enlarged frame."""
MAX_RECORD_BYTES = 50_000_000
"""Larger files are not read to find out whether they are records."""


def record_file(path: Path) -> Path:
    """The file of the record of the clip at `path`."""
    return path.with_suffix(".json")


def check_output(path: Path, num_frames: int, *, overwrite: bool = False) -> None:
    """Refuse an output file that cannot hold a clip of so many frames.

    Raises:
        ConfigError: A picture of several frames was asked for, or an existing file must not be replaced.
        MediaError: The suffix is another, or a folder has that name.
        FileWriteError: Nothing can be written there.
    """
    suffix = path.suffix.lower()
    if suffix in IMAGE_SUFFIXES and num_frames != 1:
        raise ConfigError(
            f"{path} is a picture, but `frames` is {num_frames}. Use `--frames 1` for a picture, or a name that ends "
            "in .mp4."
        )
    if suffix not in (*IMAGE_SUFFIXES, VIDEO_SUFFIX):
        possible = f".mp4, or for a picture {' or '.join(IMAGE_SUFFIXES)}" if num_frames == 1 else ".mp4"
        raise MediaError(
            f"{path} cannot be written as {'picture or video' if num_frames == 1 else 'video'}: its suffix is "
            f"{path.suffix or 'missing'}. Use {possible}."
        )
    check_output_file(path, overwrite=overwrite)
    check_record(path, overwrite=overwrite)


def check_output_file(path: Path, *, overwrite: bool = False) -> None:
    """Refuse a file that cannot be written or would replace another.

    Raises:
        ConfigError: Something has that name and `overwrite` is False.
        MediaError: A folder has that name.
        FileWriteError: Nothing can be written there.
    """
    check_folder_writable(path.parent)
    try:
        path.lstat()
    except FileNotFoundError:
        return
    except OSError as error:
        raise FileWriteError(f"{path} cannot be written: {error.strerror}. Choose another name.") from error
    if path.is_dir():
        raise MediaError(f"{path} cannot be written: it is a folder. Name a file inside it.")
    if not overwrite:
        raise ConfigError(f"{path} is there already. Choose another name, or replace it with `--overwrite`.")


def check_image_output(path: Path, *, overwrite: bool = False) -> None:
    """Refuse a picture file that cannot be written or would replace another file.

    Raises:
        ConfigError: Something has that name and `overwrite` is False.
        MediaError: The suffix is no picture's, or a folder has that name.
        FileWriteError: Nothing can be written there.
    """
    if path.suffix.lower() not in IMAGE_SUFFIXES:
        raise MediaError(
            f"{path} cannot be written as a picture: its suffix is {path.suffix or 'missing'}. "
            f"Use {' or '.join(IMAGE_SUFFIXES)}."
        )
    check_output_file(path, overwrite=overwrite)


def check_record(path: Path, *, overwrite: bool = False) -> None:
    """Refuse a clip at `path` if its record would replace another file.

    Raises:
        ConfigError: A file has that name and `overwrite` is False, it is no record, or it is that of another clip.
        MediaError: A folder has that name.
    """
    record = record_file(path)
    if record.is_dir():
        raise MediaError(
            f"{record}, the record of {path.name}, cannot be written: it is a folder. Choose another name."
        )
    if not record.exists() and not record.is_symlink():
        return
    other = next(
        (
            sibling
            for sibling in _clips_with_same_record(path)
            if sibling.exists() and _can_have_record(sibling, record)
        ),
        None,
    )
    if other is not None:
        raise ConfigError(
            f"{record} is the record of {other.name}, and would become that of {path.name}. Choose another name."
        )
    if not is_record(record):
        raise ConfigError(
            f"{record} would be replaced by the record of {path.name}, and holds something else. Choose another name."
        )
    if not overwrite:
        raise ConfigError(
            f"{record}, the record of a clip, is there already. Choose another name, or replace it with `--overwrite`."
        )


def is_record(path: Path) -> bool:
    """Whether a file is the record of a clip, as `Clip.save` writes it."""
    try:
        if path.stat().st_size > MAX_RECORD_BYTES:
            return False
        record = read_json(path)
    except (OSError, ValueError):
        return False
    return isinstance(record, dict) and {"prompt", "settings", "num_frames", "enlarged"} <= record.keys()


def check_output_folder(folder: Path, names: Iterable[str], *, overwrite: bool = False) -> None:
    """Refuse a folder in which files of these names cannot be written, or would replace others.

    Raises:
        ConfigError: A file has one of the names and `overwrite` is False.
        MediaError: A folder has one of the names.
        FileWriteError: The folder is none, or cannot be written to.
    """
    check_folder_writable(folder)
    for name in names:
        path = folder / name
        if path.is_dir():
            raise MediaError(f"{path} is a folder, and a file is to be written there. Choose another `--output`.")
        if not overwrite and (path.exists() or path.is_symlink()):
            raise ConfigError(f"{path} is there already. Choose another folder, or replace it with `--overwrite`.")


def check_folder_writable(folder: Path) -> None:
    """Refuse a folder that cannot be created or written to. The check leaves no file.

    Raises:
        FileWriteError: The folder cannot be used.
    """
    existing = folder
    try:
        while not existing.exists() and existing != existing.parent:
            if existing.is_symlink():
                raise FileNotFoundError(2, f"{existing} is a link to nothing", str(existing))
            existing = existing.parent
        with tempfile.TemporaryFile(dir=existing) as file:
            file.write(b"0")
    except OSError as error:
        raise FileWriteError(
            f"Nothing can be written to {folder}: {error.strerror or error}. Choose a folder with room that you may "
            "write to."
        ) from error


def check_enlarge_factor(shape: Sequence[int], factor: int) -> None:
    """Refuse a factor of enlargement that exceeds the limits of memory and size.

    Args:
        shape: (frames, height, width) of the clip, in pixels.
        factor: How many times larger each side becomes.

    Raises:
        ConfigError: It is no whole number from 1, or too large; the message says how large a clip it would make.
    """
    frames, height, width = shape
    if factor < 1:
        raise ConfigError(f"`enlarge` is {factor}; a whole number from 1 is needed.")
    max_factor = min(
        MAX_ENLARGED_PX // max(height, width), math.isqrt(MAX_ENLARGED_BYTES // (3 * frames * height * width))
    )
    if factor <= max(1, max_factor):
        return
    raise ConfigError(
        f"`enlarge` is {factor}: {frames} frames of {factor * width} x {factor * height} pixels, "
        f"{3 * frames * height * width * factor**2 / 1e9:.1f} GB; at most {MAX_ENLARGED_PX} pixels a side and "
        f"{MAX_ENLARGED_BYTES / 1e9:.0f} GB are made. Use {max(1, max_factor)} or less."
    )


def _can_have_record(clip: Path, record: Path) -> bool:
    """Whether a record can be that of `clip`: one of several frames is not that of a picture, say a photograph."""
    is_picture = clip.suffix.lower() in IMAGE_SUFFIXES
    return not (is_picture and is_record(record) and read_json(record)["num_frames"] != 1)


def _clips_with_same_record(path: Path) -> list[Path]:
    """Paths of other clips with the same record file."""
    return [path.with_suffix(suffix) for suffix in (*IMAGE_SUFFIXES, VIDEO_SUFFIX) if suffix != path.suffix.lower()]
