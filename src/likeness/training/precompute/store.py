"""Encoded items on disk, found by a key of their content and settings; only ever appended to.

A group is a folder of shards, `GROUP/HASH.safetensors` with tensors of one row per item, and `GROUP/HASH.json` with the
keys and the checksum. The JSON is written last, so a shard without one does not exist. Any number of processes can
write at once: the name of a shard is a hash of its keys, and files are renamed into place.

Rows are read through a memory map that is closed again, so the resident memory of a reader does not grow with the set.
"""

import hashlib
import json
import time
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save
from torch import Tensor

from likeness import files
from likeness.errors import CheckpointError


class Store:
    """A folder of groups of encoded items."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self._locations: dict[str, dict[str, tuple[Path, int]]] = {}
        self.waited_s = 0.0
        """Seconds that `read` has taken in all."""

    def write(self, group: str, keys: Sequence[str], tensors: Mapping[str, Tensor]) -> None:
        """Write one shard.

        Args:
            group: Name of a folder; all items of a group have tensors of the same shapes.
            keys: One per item.
            tensors: (items, ...) each.

        Raises:
            FileWriteError: It cannot be written.
        """
        assert all(len(value) == len(keys) for value in tensors.values())
        name = hashlib.sha256("\n".join(keys).encode()).hexdigest()[:24]
        data = save({key: value.contiguous() for key, value in tensors.items()})
        path = self.folder / group / f"{name}.safetensors"
        files.write_bytes(path, data)
        record = {"keys": list(keys), "sha256": hashlib.sha256(data).hexdigest(), "bytes": len(data)}
        files.write_text(path.with_suffix(".json"), json.dumps(record))
        if group in self._locations:
            self._locations[group] |= {key: (path, row) for row, key in enumerate(keys)}

    def refresh(self) -> None:
        """Forget what was known, so that shards of other processes are found."""
        self._locations.clear()

    def missing(self, group: str, keys: Iterable[str]) -> list[str]:
        """The keys that no shard holds, each once, in their order."""
        locations = self._group_locations(group)
        return [key for key in dict.fromkeys(keys) if key not in locations]

    def read(self, group: str, keys: Sequence[str], name: str) -> Tensor:
        """One tensor of some items, (items, ...).

        Raises:
            CheckpointError: An item is missing, or a shard is damaged.
        """
        begun_s = time.perf_counter()
        locations = self._group_locations(group)
        by_shard: dict[Path, list[tuple[int, int]]] = {}
        for position, key in enumerate(keys):
            if key not in locations:
                raise CheckpointError(
                    f"{self.folder / group} has no item {key[:12]}. Run `likeness train precompute` for this recipe."
                )
            path, row = locations[key]
            by_shard.setdefault(path, []).append((position, row))
        rows: list[Tensor | None] = [None] * len(keys)
        for path, rows_in_shard in by_shard.items():
            try:
                with safe_open(path, "pt") as file:
                    values = file.get_slice(name)
                    for position, row in rows_in_shard:
                        rows[position] = values[row : row + 1].clone()
            except (OSError, SafetensorError) as error:
                raise damaged_shard(path, error) from error
        result = torch.cat([row for row in rows if row is not None])
        self.waited_s += time.perf_counter() - begun_s
        return result

    def shape(self, group: str, name: str) -> tuple[int, ...]:
        """The shape of one item of a group.

        Raises:
            CheckpointError: The group is empty, or a shard is damaged.
        """
        path = next((path for path, _ in self._group_locations(group).values()), None)
        if path is None:
            raise CheckpointError(f"{self.folder / group} is empty. Run `likeness train precompute` for this recipe.")
        try:
            with safe_open(path, "pt") as file:
                return tuple(file.get_slice(name).get_shape()[1:])
        except (OSError, SafetensorError) as error:
            raise damaged_shard(path, error) from error

    def verify(self) -> list[Path]:
        """Read every byte; removes damaged shards, whose items then count as missing, and returns their paths."""
        broken = []
        for record_path in sorted(self.folder.glob("*/*.json")):
            path, record = record_path.with_suffix(".safetensors"), _read_record(record_path)
            if record is not None and path.is_file() and _sha256(path) == record["sha256"]:
                continue
            broken.append(path)
            files.remove(record_path)
            files.remove(path)
        self.refresh()
        return broken

    def size_bytes(self) -> int:
        """Bytes on disk."""
        return sum(path.stat().st_size for path in self.folder.rglob("*") if path.is_file())

    def _group_locations(self, group: str) -> dict[str, tuple[Path, int]]:
        if group not in self._locations:
            locations = {}
            for record_path in sorted((self.folder / group).glob("*.json")):
                record, path = _read_record(record_path), record_path.with_suffix(".safetensors")
                # A shard of another size was damaged after it was written; its items are made again.
                if record is None or not path.is_file() or path.stat().st_size != record["bytes"]:
                    continue
                locations |= {key: (path, row) for row, key in enumerate(record["keys"])}
            self._locations[group] = locations
        return self._locations[group]


class StoredRows:
    """One tensor of a data set, read from a store when it is indexed.

    Args:
        store: Where items are.
        item_keys: Group and key of each row of the data set.
        name: Of the tensor.
    """

    def __init__(self, store: Store, item_keys: Sequence[tuple[str, str]], name: str) -> None:
        self.store, self.item_keys, self.name = store, item_keys, name

    def __len__(self) -> int:
        return len(self.item_keys)

    def __getitem__(self, rows: Any) -> Tensor:
        """Rows by a number, a slice or a tensor of numbers; those of one call have one shape."""
        if isinstance(rows, slice):
            rows = range(*rows.indices(len(self)))
        numbers = rows.flatten().tolist() if isinstance(rows, Tensor) else list(rows)
        groups = {self.item_keys[number][0] for number in numbers}
        if len(groups) != 1:
            raise CheckpointError(f"Rows of {len(groups)} shapes were read at once; one was expected.")
        values = self.store.read(groups.pop(), [self.item_keys[number][1] for number in numbers], self.name)
        return values.unflatten(0, tuple(rows.shape)) if isinstance(rows, Tensor) and rows.ndim != 1 else values

    @property
    def shape(self) -> tuple[int, ...]:
        """(rows, ...) with the shape of the first row."""
        return (len(self), *self.store.shape(self.item_keys[0][0], self.name))


def damaged_shard(path: Path, reason: object) -> CheckpointError:
    """The error for a shard that cannot be read."""
    return CheckpointError(
        f"{path} cannot be read ({reason}). `likeness train precompute RECIPE --verify` finds damaged files and makes "
        "them again."
    )


def _read_record(path: Path) -> dict[str, Any] | None:
    try:
        record = files.read_json(path)
        return record if {"keys", "sha256", "bytes"} <= record.keys() else None
    except (OSError, ValueError, AttributeError):
        return None


def _sha256(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
