"""Reads members of tar files by their offset, as if the tar file was a folder: `00000.tar/0001.mp4`.

Nothing is unpacked into a folder that stays: a decoder gets a temporary copy of one member. Archives with compression
have no offsets and are refused.
"""

import tarfile
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from functools import lru_cache
from pathlib import Path

from likeness.errors import MediaError

SHARD_SUFFIX = ".tar"


def split_member(path: Path) -> tuple[Path, str] | None:
    """The tar file and the name of the member that a path names; None for other paths."""
    for parent in path.parents:
        if parent.suffix == SHARD_SUFFIX and parent.is_file():
            return parent, path.relative_to(parent).as_posix()
    return None


def is_media_file(path: Path) -> bool:
    """Whether `path` is a regular file, or a member of a tar file."""
    try:
        if path.is_file():
            return True
        member = split_member(path)
    except (OSError, ValueError):  # A name that is too long, or with a zero byte.
        return False
    return member is not None and member[1] in members(member[0])


def members(shard: Path) -> dict[str, tuple[int, int]]:
    """Offset and size in bytes of every regular file in a tar file, by name.

    Raises:
        MediaError: The file cannot be read as an uncompressed tar file.
    """
    state = shard.stat()
    return _members(shard, state.st_mtime_ns, state.st_size)


def read_bytes(path: Path) -> bytes:
    """The content of a file, or of a member of a tar file.

    Raises:
        MediaError: It is not there, or cannot be read.
    """
    member = split_member(path)
    try:
        if member is None:
            return path.read_bytes()
        offset, size = _member_extent(*member)
        with member[0].open("rb") as file:
            file.seek(offset)
            data = file.read(size)
    except OSError as error:
        raise MediaError(f"{path} cannot be read: {error.strerror}. Check the path.") from error
    if len(data) < size:
        raise MediaError(f"{path} is truncated: {len(data)} of {size} bytes are there. Copy the tar file again.")
    return data


@contextmanager
def opened(path: Path) -> Iterator[Path]:
    """Yield a file that decoders can open: `path` itself, or a temporary copy of a member of a tar file.

    Raises:
        MediaError: As `read_bytes`; errors of decoders name `path`, not the copy.
    """
    if split_member(path) is None:
        yield path
        return
    with tempfile.TemporaryDirectory(prefix="likeness-media-") as folder:
        copy = Path(folder) / f"media{path.suffix.lower()}"
        copy.write_bytes(read_bytes(path))
        try:
            yield copy
        except MediaError as error:
            raise MediaError(str(error).replace(str(copy), str(path))) from error


def _member_extent(shard: Path, name: str) -> tuple[int, int]:
    try:
        return members(shard)[name]
    except KeyError as error:
        raise MediaError(f"{shard} has no member `{name}`. Check the manifest, or write the shards again.") from error


@lru_cache(maxsize=256)
def _members(shard: Path, mtime_ns: int, size: int) -> dict[str, tuple[int, int]]:  # noqa: ARG001
    """Cached for one state of the file."""
    try:
        with tarfile.open(shard, "r:") as archive:
            found = {entry.name: (entry.offset_data, entry.size) for entry in archive if entry.isreg()}
    except (tarfile.TarError, OSError) as error:
        raise MediaError(
            f"{shard} cannot be read as an uncompressed tar file: {error}. Copy it again, or unpack a compressed one."
        ) from error
    ends = [offset + length for offset, length in found.values()]
    if ends and max(ends) > size:
        raise MediaError(f"{shard} is truncated. Copy it again.")
    return found
