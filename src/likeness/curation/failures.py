"""Sources whose worker failed after the last attempt. They count as dropped until they are tried again."""

import json
from collections.abc import Iterator
from pathlib import Path

from likeness import files


class Failures:
    """Reasons by the key of the result that could not be made, in a file of the ledger.

    Unlike results, failures depend on the machine (a lost worker, a limit of time), so they are kept apart.
    """

    def __init__(self, folder: Path) -> None:
        self._path = folder / "failures.json"
        try:
            found = files.read_json(self._path)
        except (OSError, ValueError):
            found = {}
        self._reasons: dict[str, str] = found if isinstance(found, dict) else {}

    def get(self, key: str) -> str | None:
        """The reason of a failure; None if there is none."""
        return self._reasons.get(key)

    def add(self, key: str, reason: str) -> None:
        """Record a failure."""
        self._reasons[key] = reason
        text = json.dumps(self._reasons, sort_keys=True, indent=0, ensure_ascii=False)
        files.write_text(self._path, text + "\n")

    def clear(self) -> int:
        """Forget all failures, so that their sources are tried again; returns their number."""
        count = len(self._reasons)
        self._reasons = {}
        files.remove(self._path)
        return count

    def __iter__(self) -> Iterator[tuple[str, str]]:
        return iter(sorted(self._reasons.items()))
