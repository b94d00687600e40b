"""SHA-256 of large files, computed once: later a file of the same size, time and inode counts as the same.

What was computed is kept in `$LIKENESS_HOME/sha256.json`. `likeness models check` trusts nothing of it and reads every
byte.
"""

import json
import os
import tempfile
from pathlib import Path

from likeness.weights.files import sha256_of

INDEX_FILE = "sha256.json"
SMALL_BYTES = 16 << 20
"""Files up to here are read each time; that takes milliseconds."""


def known_sha256(path: Path) -> str:
    """SHA-256 of a file; of a large one that was not touched since, what was computed then."""
    state = path.stat()
    if state.st_size <= SMALL_BYTES:
        return sha256_of(path)
    stamp = [state.st_size, state.st_mtime_ns, state.st_ino]
    key = str(path.resolve())
    kept = _read().get(key)
    if isinstance(kept, dict) and kept.get("stamp") == stamp and isinstance(kept.get("sha256"), str):
        return kept["sha256"]
    sha256 = sha256_of(path)
    remember(path, sha256)
    return sha256


def remember(path: Path, sha256: str) -> None:
    """Keep the SHA-256 of a file that was just read. Where the folder cannot be written, it is computed again later."""
    state = path.stat()
    if state.st_size <= SMALL_BYTES:
        return
    entries = _read()
    stamp = [state.st_size, state.st_mtime_ns, state.st_ino]
    entries[str(path.resolve())] = {"sha256": sha256, "stamp": stamp}
    _write({key: value for key, value in entries.items() if Path(key).is_file()})


def home_index() -> Path:
    """Where the computed checksums are kept."""
    from likeness.weights import home  # it reads what `files` and this module write

    return home() / INDEX_FILE


def _read() -> dict[str, object]:
    try:
        content = json.loads(home_index().read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return {}
    return content if isinstance(content, dict) else {}


def _write(entries: dict[str, object]) -> None:
    path = home_index()
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        handle, name = tempfile.mkstemp(dir=path.parent, prefix=f".{INDEX_FILE}.")
        with os.fdopen(handle, "w", encoding="utf-8") as file:
            json.dump(entries, file, indent=1)
        Path(name).replace(path)
    except OSError:
        return
