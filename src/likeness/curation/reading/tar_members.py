"""Members of uncompressed tar files, as if a tar file was a folder: `00000.tar/0001.mp4`."""

import tarfile
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from functools import lru_cache
from pathlib import Path

from likeness.errors import MediaError

SHARD_SUFFIX = ".tar"


def members(shard: Path) -> dict[str, tuple[int, int]]:
    """Offset and size in bytes of every regular file, by name, without names that leave the archive.

    Raises:
        MediaError: The file cannot be read as an uncompressed tar file.
    """
    try:
        state = shard.stat()
    except OSError as error:
        raise MediaError(f"{shard} cannot be read: {error.strerror}. Check the path.") from error
    return _members(shard, state.st_mtime_ns, state.st_size)


def split_member(path: Path) -> tuple[Path, str] | None:
    """The tar file and the name of the member that a path names; None for other paths."""
    for parent in path.parents:
        if parent.suffix == SHARD_SUFFIX and parent.is_file():
            return parent, path.relative_to(parent).as_posix()
    return None


def read_member(shard: Path, name: str) -> bytes:
    """The content of a member.

    Raises:
        MediaError: It is not there, or cannot be read.
    """
    found = members(shard).get(name)
    if found is None:
        raise MediaError(f"{shard} has no member `{name}`. Copy the tar file again.")
    try:
        with shard.open("rb") as file:
            file.seek(found[0])
            return file.read(found[1])
    except OSError as error:
        raise MediaError(f"{shard} cannot be read: {error.strerror}. Check the path.") from error


@contextmanager
def opened(path: Path) -> Iterator[Path]:
    """Yield a file that decoders can open: `path` itself, or a temporary copy of a member of a tar file.

    Raises:
        MediaError: As `read_member`.
    """
    found = None if path.is_file() else split_member(path)
    if found is None:
        yield path
        return
    with tempfile.TemporaryDirectory(prefix="likeness-member-") as folder:
        copy = Path(folder) / path.name
        copy.write_bytes(read_member(*found))
        yield copy


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
    if any(offset + length > size for offset, length in found.values()):
        raise MediaError(f"{shard} is truncated. Copy it again.")
    return {name: place for name, place in found.items() if ".." not in Path(name).parts and not name.startswith("/")}
