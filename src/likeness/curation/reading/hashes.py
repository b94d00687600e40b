"""Hashes of files, remembered by path, size, date and inode, so that a second run does not read the files."""

import sqlite3
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing, contextmanager
from dataclasses import dataclass
from pathlib import Path

from likeness.curation.ledger import hash_file
from likeness.errors import MediaError
from likeness.media.guard import check_media_file
from likeness.training.files import tar

_THREADS = 4
"""Files that are read at the same time; hashing releases the interpreter."""
_BATCH = 256
"""Files after which the index is saved."""


@dataclass(frozen=True, kw_only=True, slots=True)
class FileFacts:
    """What is known of a file's content."""

    sha256: str
    kind: str
    """`picture`, `video`, `other`, or a reason why the file cannot be read."""
    stamp: tuple[int, int, int]
    """Size in bytes, date of the last change in ns, inode."""


class HashIndex:
    """The remembered hashes, in an SQLite file. A damaged file is begun anew."""

    def __init__(self, path: Path) -> None:
        self._path = path

    def look_up(self, paths: Sequence[Path]) -> Iterator[tuple[Path, FileFacts]]:
        """Hash files, or remember their hashes, in the order given."""
        with self._opened() as database:
            known = {
                path: FileFacts(sha256=sha256, kind=kind, stamp=(size, mtime_ns, inode))
                for path, size, mtime_ns, inode, sha256, kind in database.execute("SELECT * FROM hashes")
            }
            with ThreadPoolExecutor(_THREADS) as pool:
                for start in range(0, len(paths), _BATCH):
                    batch = paths[start : start + _BATCH]
                    found = list(pool.map(lambda path: _read(path, known.get(str(path))), batch))
                    new = [
                        (str(path), *facts.stamp, facts.sha256, facts.kind)
                        for path, facts in zip(batch, found, strict=True)
                        if facts.sha256 and known.get(str(path)) != facts
                    ]
                    if new:
                        database.executemany("INSERT OR REPLACE INTO hashes VALUES (?, ?, ?, ?, ?, ?)", new)
                        database.commit()
                    yield from zip(batch, found, strict=True)

    def forget(self, sources: Sequence[str]) -> None:
        """Remove what is known of files by the hash of their content."""
        with self._opened() as database:
            database.executemany("DELETE FROM hashes WHERE sha256 = ?", [(source,) for source in sources])
            database.commit()
            database.execute("VACUUM")

    @contextmanager
    def _opened(self) -> Iterator[sqlite3.Connection]:
        self._path.parent.mkdir(parents=True, exist_ok=True)
        try:
            database = self._connect()
        except sqlite3.DatabaseError:
            self._path.unlink()
            database = self._connect()
        with closing(database):
            yield database

    def _connect(self) -> sqlite3.Connection:
        database = sqlite3.connect(self._path)
        try:
            database.execute(
                "CREATE TABLE IF NOT EXISTS hashes "
                "(path TEXT PRIMARY KEY, size INTEGER, mtime_ns INTEGER, inode INTEGER, sha256 TEXT, kind TEXT)"
            )
            database.execute("SELECT COUNT(*) FROM hashes").fetchone()
        except sqlite3.DatabaseError:
            database.close()
            raise
        return database


def stamp_of(path: Path) -> tuple[int, int, int]:
    """Size, date and inode of a file; those of the tar file for its members.

    Raises:
        OSError: There is none.
    """
    member = None if path.exists() else tar.split_member(path)
    state = (path if member is None else member[0]).stat()
    return state.st_size, state.st_mtime_ns, state.st_ino % 2**63


def _read(path: Path, known: FileFacts | None) -> FileFacts:
    try:
        stamp = stamp_of(path)
        if known is not None and known.stamp == stamp:
            return known
        with tar.opened(path) as file:
            kind, _ = check_media_file(file, expected="a picture or a video")
            return FileFacts(sha256=hash_file(file), kind=kind, stamp=stamp)
    except MediaError as error:
        # Without the path, so that the reason is the same wherever the folder lies.
        return FileFacts(sha256="", kind=str(error).replace(str(path), path.name), stamp=(0, 0, 0))
    except OSError as error:
        return FileFacts(sha256="", kind=f"it cannot be read: {error.strerror}", stamp=(0, 0, 0))
