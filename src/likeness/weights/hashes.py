"""A cache of SHA-256 sums of large files, keyed by path, size, modification time and inode.

It is stored in `$LIKENESS_HOME/sha256.json`. `likeness models check` ignores it and reads every byte.
"""

import contextlib
import json
from pathlib import Path

from likeness.errors import FileWriteError
from likeness.files import read_json, write_text
from likeness.weights.files import sha256_of

CACHE_FILE = "sha256.json"
MAX_UNCACHED_BYTES = 16 << 20
"""Files up to this size are hashed each time; that takes milliseconds."""


def cached_sha256(path: Path) -> str:
    """SHA-256 of a file; from the cache if a large file has not changed."""
    state = path.stat()
    if state.st_size <= MAX_UNCACHED_BYTES:
        return sha256_of(path)
    stamp = [state.st_size, state.st_mtime_ns, state.st_ino]
    key = str(path.resolve())
    cached = _read().get(key)
    if isinstance(cached, dict) and cached.get("stamp") == stamp and isinstance(cached.get("sha256"), str):
        return cached["sha256"]
    sha256 = sha256_of(path)
    store_sha256(path, sha256)
    return sha256


def store_sha256(path: Path, sha256: str) -> None:
    """Store the SHA-256 of a file in the cache; an unwritable cache is ignored."""
    state = path.stat()
    if state.st_size <= MAX_UNCACHED_BYTES:
        return
    entries = _read()
    stamp = [state.st_size, state.st_mtime_ns, state.st_ino]
    entries[str(path.resolve())] = {"sha256": sha256, "stamp": stamp}
    _write({key: value for key, value in entries.items() if Path(key).is_file()})


def cache_path() -> Path:
    """Path of the cache."""
    from likeness.weights import home  # `weights` imports this module

    return home() / CACHE_FILE


def _read() -> dict[str, object]:
    try:
        content = read_json(cache_path())
    except (OSError, ValueError):
        return {}
    return content if isinstance(content, dict) else {}


def _write(entries: dict[str, object]) -> None:
    with contextlib.suppress(FileWriteError):
        write_text(cache_path(), json.dumps(entries, indent=1))
