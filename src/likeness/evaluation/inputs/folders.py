"""Sort the files of a folder into videos or pictures and skipped files; every skipped file has a reason."""

import os
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path

from likeness.errors import ConfigError, MediaError

VIDEOS = (".mp4", ".mov", ".mkv", ".webm", ".gif")
"""Suffixes of supported formats. A file with another suffix counts as a video by its first bytes."""
PICTURES = (
    ".jpg", ".jpeg", ".jfif", ".png", ".webp", ".avif", ".heic", ".heif", ".gif", ".bmp", ".tif", ".tiff",
)  # fmt: skip
"""Suffixes of reference pictures. HEIC needs the extra `heic`; of an animation the first frame is read."""
_OTHER_VIDEOS = (".avi", ".m4v", ".mpg", ".mpeg", ".m2ts", ".ts", ".wmv", ".flv", ".ogv", ".3gp", ".y4m")
"""Also taken: files that cannot be decoded must count as failed videos."""
_SOUNDS = (".m4a", ".mp3", ".aac", ".wav", ".ogg", ".oga", ".flac", ".opus")
_ANIMATED_WEBP = 0x02
"""Bit of the flags in a WebP's VP8X chunk (RFC 9649, section 2.7)."""


@dataclass(frozen=True, kw_only=True, slots=True)
class SkippedFile:
    """A file in an input folder that is not evaluated."""

    path: str
    reason: str
    is_video: bool = False
    """Whether it seems to be a video, so that the results are incomplete."""


def files_in(folder: Path, suffixes: tuple[str, ...]) -> list[Path]:
    """Files with one of these suffixes that are not hidden, sorted by name.

    Raises:
        ConfigError: The folder cannot be listed.
    """
    return [
        path for path in entries(folder) if path.suffix.lower() in suffixes and not is_hidden(path) and path.is_file()
    ]


def entries(folder: Path) -> list[Path]:
    """Everything in a folder, sorted by name.

    Raises:
        ConfigError: The folder cannot be listed.
    """
    try:
        return sorted(folder.iterdir())
    except OSError as error:
        raise ConfigError(f"{folder} cannot be listed: {error.strerror}. Name a folder that you may read.") from error


def is_hidden(path: Path) -> bool:
    """Names that begin with a dot, such as the `._` files that macOS writes on foreign disks."""
    return path.name.startswith(".")


def find_videos(folder: Path) -> tuple[list[Path], list[SkippedFile]]:
    """Videos of a folder, sorted by name, and the skipped files.

    A file is a video by its suffix or by its first bytes. One that cannot be decoded is in the list, and fails later.

    Raises:
        ConfigError: The folder cannot be listed.
    """
    return _split(entries(folder), _why_no_video)


def find_skipped_pictures(folder: Path) -> list[SkippedFile]:
    """Files that `reference_matching.find_references` skips in a folder of pictures and its sub-folders.

    Raises:
        ConfigError: A folder cannot be listed.
    """
    inner = [path for path in entries(folder) if path.is_dir() and not is_hidden(path)]
    own = [path for path in entries(folder) if path not in inner]
    _, skipped = _split([*own, *(path for each in inner for path in entries(each))], _why_no_picture)
    return skipped


def links_elsewhere(folder: Path, videos: Iterable[Path]) -> list[Path]:
    """Videos that are links to files outside of the folder."""
    root = folder.resolve()
    return [path for path in videos if path.is_symlink() and not path.resolve().is_relative_to(root)]


def _split(
    paths: Iterable[Path], why_not: Callable[[Path], tuple[str, bool] | None]
) -> tuple[list[Path], list[SkippedFile]]:
    taken, skipped = [], []
    for path in paths:
        found = _why_never(path) or why_not(path)
        if found is None:
            taken.append(path)
        else:
            reason, is_video = found
            skipped.append(SkippedFile(path=show_path(path), reason=reason, is_video=is_video))
    return taken, skipped


def show_path(path: Path) -> str:
    """A path as text; bytes that are not UTF-8 are shown as escapes."""
    return os.fsencode(path).decode("utf-8", "backslashreplace")


def _why_never(path: Path) -> tuple[str, bool] | None:
    looks_like_video = path.suffix.lower() in (*VIDEOS, *_OTHER_VIDEOS)
    if path.name.startswith("._"):
        return "hidden file of macOS with file attributes", False
    if is_hidden(path):
        return "hidden file", False
    if path.is_dir():
        return "a folder; name it as a separate system to evaluate it", False
    if path.is_symlink() and not path.exists():
        return "a link to a file that does not exist", looks_like_video
    if not path.is_file():
        return "not a regular file", looks_like_video
    try:
        str(path).encode()
    except UnicodeEncodeError:
        return "its name is not UTF-8; rename it", looks_like_video
    return None


def _why_no_video(path: Path) -> tuple[str, bool] | None:
    suffix = path.suffix.lower()
    if suffix in VIDEOS or suffix in _OTHER_VIDEOS:
        return None
    if suffix in _SOUNDS:
        return "an audio file", False
    try:
        kind, name = _check_video_file(path)
    except MediaError:  # Empty, or not readable.
        return f"not a video ({suffix or 'no suffix'})", False
    if kind == "video" or _is_animated_webp(path):
        return None
    return (f"a picture ({name or suffix})" if kind == "picture" else f"not a video ({suffix})"), False


def _why_no_picture(path: Path) -> tuple[str, bool] | None:
    suffix = path.suffix.lower()
    if suffix in PICTURES:
        return None
    return f"not a supported picture ({suffix or 'no suffix'}; supported: {', '.join(PICTURES)})", False


def _check_video_file(path: Path) -> tuple[str, str]:
    from likeness.media.guard import check_media_file  # Imports PyAV and OpenCV.

    return check_media_file(path, expected="a video")


def _is_animated_webp(path: Path) -> bool:
    with path.open("rb") as file:
        head = file.read(21)
    return len(head) == 21 and head[8:16] == b"WEBPVP8X" and bool(head[20] & _ANIMATED_WEBP)
