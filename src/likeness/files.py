"""Atomic writes of files and folders, reading JSON, and locks between processes.

A file is written to a uniquely named temporary folder beside its target, flushed to disk and then renamed: after a
kill, a full disk or a concurrent write, the target is the complete old or new file. A symbolic link is replaced, not
followed. The writer locks its temporary folder, so that the next write in the same place can remove the folders of
killed processes. A folder is replaced in two steps: a kill between them leaves none, and never a mixture.
"""

import contextlib
import errno
import json
import logging
import math
import os
import re
import secrets
import shutil
import tempfile
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import IO, Any

from safetensors import SafetensorError

from likeness.errors import FileWriteError, LockedError

try:
    import fcntl
except ModuleNotFoundError:  # Windows
    fcntl = None

_LOG = logging.getLogger(__name__)

TEMPORARY_PREFIX = ".likeness-write-"
"""Prefix of the temporary folders of this module."""
_FULL_DISK_ERRNOS = (errno.ENOSPC, errno.EDQUOT, errno.EROFS, errno.EFBIG, errno.EIO)
_UMASK = os.umask(0)
os.umask(_UMASK)  # The umask can only be read by setting it, which is not thread-safe, so it is done at import.
_ADVICE_BY_ERRNO = {
    errno.ENOSPC: "Free space on that disk, or choose another place.",
    errno.EDQUOT: "Free space below your quota, or choose another place.",
    errno.EROFS: "Choose a place that can be written to.",
    errno.EACCES: "Choose a place that you may write to.",
    errno.EPERM: "Choose a place that you may write to.",
    errno.ENAMETOOLONG: "Choose a shorter name.",
    errno.ENOTDIR: "A part of that path is a file: move it away, or choose another place.",
    errno.EEXIST: "There is a file where a folder is needed: move it away, or choose another place.",
    errno.EISDIR: "There is a folder where a file is needed: move it away, or choose another place.",
    errno.ENOTEMPTY: "There is a folder of that name already: move it away, or choose another place.",
}


@contextmanager
def write_atomically(path: str | Path, *, replaces_folder: bool = False) -> Iterator[Path]:
    """Yield a temporary path to write to, which is renamed to `path` at the end of the `with` block.

    The temporary path has the name of `path` in a temporary folder on the same disk, so writers may depend on its
    suffix and create other files beside it. If the block raises, `path` is unchanged.

    Args:
        path: A file, replaced if it exists, or a folder. Parent folders are created.
        replaces_folder: Replace an existing folder; otherwise it is an error.

    Raises:
        FileWriteError: `path` or a file in the block cannot be written; its `__cause__` is the OSError.

    Example:
        with write_atomically(target) as draft:
            draft.write_text(text)
    """
    path = Path(path)
    with translate_write_errors(path):
        path.parent.mkdir(parents=True, exist_ok=True)
        if path.is_dir() and not path.is_symlink() and not replaces_folder:
            raise IsADirectoryError(errno.EISDIR, os.strerror(errno.EISDIR), str(path))
        remove_stale_temporaries(path.parent)
        with _temporary_folder(path.parent) as folder:
            draft = folder / path.name
            yield draft
            _flush_all(draft)
            if path.is_dir() and not path.is_symlink():
                _replace_folder(path, draft, folder / f"{path.name}.old")
            else:
                draft.replace(path)
            if os.name == "posix":
                flush(path.parent)


def write_text(path: str | Path, text: str) -> None:
    """Write UTF-8 text atomically."""
    with write_atomically(path) as draft:
        draft.write_text(text, encoding="utf-8")


def write_bytes(path: str | Path, data: bytes) -> None:
    """Write bytes atomically."""
    with write_atomically(path) as draft:
        draft.write_bytes(data)


def read_json(path: str | Path) -> Any:
    """Read a JSON file in UTF-8, with or without a byte-order mark.

    Raises:
        OSError: The file cannot be read.
        ValueError: It is not UTF-8 or not JSON, or is nested too deeply.
    """
    try:
        return json.loads(Path(path).read_text(encoding="utf-8-sig"))
    except RecursionError as error:
        raise ValueError("lists or objects are nested too deeply") from error


def remove_stale_temporaries(folder: Path) -> list[Path]:
    """Remove temporary folders in `folder` that no running process has locked, and return them."""
    removed = []
    if fcntl is None:  # Without locks it is unknown which are in use.
        return removed
    try:
        found = [entry.path for entry in os.scandir(folder) if entry.name.startswith(TEMPORARY_PREFIX)]
    except OSError:  # The folder is writable but not readable.
        return removed
    for path in map(Path, found):
        with contextlib.suppress(OSError):  # Locked or already removed by another process.
            handle = os.open(path, os.O_RDONLY)
            try:
                fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
                shutil.rmtree(path)
                removed.append(path)
            finally:
                os.close(handle)
    return removed


def nan_to_none(value: Any) -> Any:
    """Replace floats that JSON cannot hold (NaN, infinities) by None, in dictionaries and sequences too."""
    if isinstance(value, Mapping):
        return {name: nan_to_none(inner) for name, inner in value.items()}
    if isinstance(value, list | tuple):
        return [nan_to_none(inner) for inner in value]
    if isinstance(value, float) and not math.isfinite(value):
        return None
    return value


def remove(path: Path) -> None:
    """Remove a file or folder recursively; errors are ignored.

    A folder is first renamed to a temporary one: after a kill its name has all of its files, or is gone.
    """
    if path.is_dir() and not path.is_symlink():
        with contextlib.suppress(OSError):
            path = path.rename(path.with_name(f"{TEMPORARY_PREFIX}{secrets.token_hex(8)}"))
        shutil.rmtree(path, ignore_errors=True)
    else:
        with contextlib.suppress(OSError):
            path.unlink()


def check_writable(folder: Path) -> None:
    """Create `folder` and a temporary file in it, to test that it is writable.

    Raises:
        FileWriteError: One of them cannot be created.
    """
    with translate_write_errors(folder):
        folder.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=folder) as file:
            file.write(b"0")


@contextmanager
def lock(path: str | Path, *, wait_s: float = 0.0, busy: str = "") -> Iterator[None]:
    """Hold an exclusive lock on the file `path`; the system releases it when the process ends.

    The file is kept. It contains the id of the process that has, or had, the lock.

    Args:
        path: The lock file; parent folders are created.
        wait_s: Seconds to wait for another process.
        busy: Message of the `LockedError`; "{owner}" is replaced by the process that holds the lock.

    Raises:
        LockedError: Another process holds the lock.
        FileWriteError: The file cannot be created.
    """
    path = Path(path)
    with translate_write_errors(path):
        path.parent.mkdir(parents=True, exist_ok=True)
        file = path.open("a+", encoding="utf-8")
    with file:
        _acquire(file, path, wait_s, busy or f"{path} is held by {{owner}}. Wait until it has ended.")
        yield


def flush(path: Path) -> None:
    """Flush a file, or the entries of a folder, to disk."""
    handle = os.open(path, os.O_RDONLY)
    try:
        with contextlib.suppress(*([] if path.is_file() else [OSError])):  # Not every system can flush folders.
            os.fsync(handle)
    finally:
        os.close(handle)


@contextmanager
def translate_write_errors(path: Path, *, only_full_disk: bool = False) -> Iterator[None]:
    """Turn an OSError while `path` is written into a FileWriteError with advice.

    `only_full_disk` limits this to errors of a full or read-only disk, for blocks that also read files.
    """
    try:
        yield
    except OSError as error:
        if only_full_disk and error.errno not in _FULL_DISK_ERRNOS:
            raise
        advice = _ADVICE_BY_ERRNO.get(error.errno or 0, "Choose another place.")
        raise FileWriteError(f"{path} cannot be written: {error.strerror or error}. {advice}") from error
    except SafetensorError as error:  # Its message contains the system's error number as text only.
        number = re.search(r"os error (\d+)", str(error))
        if number is None or (only_full_disk and int(number[1]) not in _FULL_DISK_ERRNOS):
            raise
        advice = _ADVICE_BY_ERRNO.get(int(number[1]), "Choose another place.")
        reason = os.strerror(int(number[1]))
        raise FileWriteError(f"{path} cannot be written: {reason}. {advice}") from error


def _replace_folder(path: Path, draft: Path, old: Path) -> None:
    """Move `draft` to `path`, whose folder is moved to `old`, and back if that fails.

    A kill between the two renames leaves no folder, but never a mixture.
    """
    path.rename(old)
    try:
        draft.replace(path)
    except BaseException:
        with contextlib.suppress(OSError):  # Another process has written `path` meanwhile.
            old.rename(path)
        raise


@contextmanager
def _temporary_folder(parent: Path) -> Iterator[Path]:
    folder, handle = _locked_folder(parent)
    try:
        yield folder
    finally:
        shutil.rmtree(folder, ignore_errors=True)
        if handle is not None:
            os.close(handle)


def _locked_folder(parent: Path) -> tuple[Path, int | None]:
    while True:
        folder = Path(tempfile.mkdtemp(prefix=TEMPORARY_PREFIX, dir=parent))
        if fcntl is None:
            return folder, None
        try:
            handle = os.open(folder, os.O_RDONLY)
        except FileNotFoundError:  # Another process removed it before it was locked.
            continue
        try:
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            os.close(handle)
            continue
        except OSError:  # The file system has no locks, so no other process can lock and remove it.
            pass
        if folder.is_dir():
            return folder, handle
        os.close(handle)


def _flush_all(draft: Path) -> None:
    """Flush all written files to disk, with permissions by the umask."""
    for file in [draft, *draft.rglob("*")] if draft.is_dir() else [draft]:
        if not file.is_symlink():
            # Some libraries create files that only their owner can read.
            file.chmod((0o777 if file.is_dir() else 0o666) & ~_UMASK)
            flush(file)


def _acquire(file: IO[str], path: Path, wait_s: float, busy: str) -> None:
    if fcntl is None:
        _LOG.warning("%s is not locked: this system has no flock. Start one process at a time.", path)
        return
    until_s = time.monotonic() + wait_s
    while True:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            break
        except BlockingIOError:
            if time.monotonic() >= until_s:
                file.seek(0)
                owner = file.read().strip()
                # Not `str.format`: the message names folders, which may contain braces.
                raise LockedError(busy.replace("{owner}", f"process {owner}" if owner else "another process")) from None
            time.sleep(0.1)
        except OSError as error:
            _LOG.warning("%s cannot be locked (%s). Start one process at a time.", path, error.strerror or error)
            return
    with contextlib.suppress(OSError):  # The lock also holds if the process id cannot be written.
        file.truncate(0)
        file.write(str(os.getpid()))
        file.flush()
