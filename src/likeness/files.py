"""Files and folders that appear whole or not at all, and locks between processes.

What is written lies in a temporary folder beside its target, with a name of its own, is flushed to the disk and then
renamed: a kill, a full disk or a second writer leaves the old file or the new one, never half of one. A link is
replaced, not followed. The temporary folder is locked by its writer, so that what a killed process left can be told
from what another one writes right now; the next write to the same place removes it.
"""

import contextlib
import errno
import logging
import os
import re
import shutil
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO

from safetensors import SafetensorError

from likeness.errors import FileWriteError, LockedError

try:
    import fcntl
except ModuleNotFoundError:  # Windows
    fcntl = None

_LOG = logging.getLogger(__name__)

TEMPORARY_PREFIX = ".likeness-write-"
"""Temporary folders of this module begin so."""
_FULL = (errno.ENOSPC, errno.EDQUOT, errno.EROFS, errno.EFBIG, errno.EIO)
_UMASK = os.umask(0)
os.umask(_UMASK)  # It can be read by setting it alone, which threads must not do.
_ADVICE = {
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
    """Give a temporary path to write to; what is there at the end of the `with` block becomes `path`.

    The temporary path has the name of `path`, in a folder of its own on the same disk, so that writers may go by its
    ending and may leave files of their own beside it. Where the block raises, `path` stays as it was.

    Args:
        path: A file, replaced if it is there, or a folder. Folders above are made.
        replaces_folder: A folder that has the name is replaced; without it, it is an error.

    Raises:
        FileWriteError: `path`, or what the block writes, cannot be written; its `__cause__` is the OSError.

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
            _settle(draft)
            if path.is_dir() and not path.is_symlink():
                # A kill in between leaves no folder, never one of both.
                path.rename(folder / f"{path.name}.old")
            draft.replace(path)
            if os.name == "posix":
                flush(path.parent)


def write_text(path: str | Path, text: str) -> None:
    """Write UTF-8 text by `write_atomically`."""
    with write_atomically(path) as draft:
        draft.write_text(text, encoding="utf-8")


def write_bytes(path: str | Path, data: bytes) -> None:
    """Write bytes by `write_atomically`."""
    with write_atomically(path) as draft:
        draft.write_bytes(data)


def remove_stale_temporaries(folder: Path) -> list[Path]:
    """Remove temporary folders in `folder` that no living process writes to; return which."""
    removed = []
    if fcntl is None:  # Without locks nobody can tell which are in use.
        return removed
    try:
        found = [entry.path for entry in os.scandir(folder) if entry.name.startswith(TEMPORARY_PREFIX)]
    except OSError:  # A folder that may be written to and not listed.
        return removed
    for path in map(Path, found):
        with contextlib.suppress(OSError):  # Locked, or gone: both are somebody else's.
            handle = os.open(path, os.O_RDONLY)
            try:
                fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
                shutil.rmtree(path)
                removed.append(path)
            finally:
                os.close(handle)
    return removed


def remove(path: Path) -> None:
    """Remove a file or a folder with everything in it, if it can be."""
    if path.is_dir() and not path.is_symlink():
        shutil.rmtree(path, ignore_errors=True)
    else:
        with contextlib.suppress(OSError):
            path.unlink()


def check_writable(folder: Path) -> None:
    """Make `folder` and a file in it, which is gone again afterwards.

    Raises:
        FileWriteError: One of both cannot be made.
    """
    with translate_write_errors(folder):
        folder.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=folder) as file:
            file.write(b"0")


@contextmanager
def lock(path: str | Path, *, wait_s: float = 0.0, busy: str = "") -> Iterator[None]:
    """Hold the lock file `path` as the only process; the system frees it when the process dies, however it does.

    The file stays. It holds the number of the process that has, or had, the lock.

    Args:
        path: The lock file; folders above are made.
        wait_s: How long to wait for another process.
        busy: What to say then, and what to do; "{owner}" becomes the process that has it.

    Raises:
        LockedError: Another process has it.
        FileWriteError: The file cannot be made.
    """
    path = Path(path)
    with translate_write_errors(path):
        path.parent.mkdir(parents=True, exist_ok=True)
        file = path.open("a+", encoding="utf-8")
    with file:
        _acquire(file, path, wait_s, busy or f"{path} is held by {{owner}}. Wait until it has ended.")
        yield


def flush(path: Path) -> None:
    """Ask the system to bring a file or a folder's list of files to the disk."""
    handle = os.open(path, os.O_RDONLY)
    try:
        with contextlib.suppress(*([] if path.is_file() else [OSError])):  # Not every system flushes folders.
            os.fsync(handle)
    finally:
        os.close(handle)


@contextmanager
def translate_write_errors(path: Path, *, full_disk_alone: bool = False) -> Iterator[None]:
    """Errors of the system, while `path` is written, as FileWriteErrors that say what to do.

    `full_disk_alone` leaves others as they are, for blocks that read as well.
    """
    try:
        yield
    except OSError as error:
        if full_disk_alone and error.errno not in _FULL:
            raise
        advice = _ADVICE.get(error.errno or 0, "Choose another place.")
        raise FileWriteError(f"{path} cannot be written: {error.strerror or error}. {advice}") from error
    except SafetensorError as error:  # It tells the system's errors in words alone.
        number = re.search(r"os error (\d+)", str(error))
        if number is None or (full_disk_alone and int(number[1]) not in _FULL):
            raise
        advice = _ADVICE.get(int(number[1]), "Choose another place.")
        reason = os.strerror(int(number[1]))
        raise FileWriteError(f"{path} cannot be written: {reason}. {advice}") from error


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
        except FileNotFoundError:  # Somebody who removes what is not locked was here first.
            continue
        try:
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            os.close(handle)
            continue
        except OSError:  # A disk without locks: others cannot lock it either, so they leave it alone.
            pass
        if folder.is_dir():
            return folder, handle
        os.close(handle)


def _settle(draft: Path) -> None:
    """Bring what was written to the disk, readable by whom the user lets read files."""
    for file in [draft, *draft.rglob("*")] if draft.is_dir() else [draft]:
        if not file.is_symlink():
            # Some libraries make files that nobody but their owner may read.
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
                raise LockedError(busy.format(owner=f"process {owner}" if owner else "another process")) from None
            time.sleep(0.1)
        except OSError as error:
            _LOG.warning("%s cannot be locked (%s). Start one process at a time.", path, error.strerror or error)
            return
    with contextlib.suppress(OSError):  # On a full disk the lock holds all the same.
        file.truncate(0)
        file.write(str(os.getpid()))
        file.flush()
