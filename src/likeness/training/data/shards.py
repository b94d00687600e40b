"""Shards: samples on disk, each shard one safetensors file and one JSON file of metadata. Imports no torch.

The JSON is written last, so a shard that has one is complete. Several runs can share a folder of shards: a process that
writes holds the lock of the folder, and files are written atomically.
"""

import json
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
from safetensors import SafetensorError, safe_open
from safetensors.numpy import save

from likeness import files
from likeness.errors import CheckpointError

_LOCK_TIMEOUT_S = 24 * 3600.0


def write(target: Path, index: int, arrays: dict[str, np.ndarray], metadata: list[dict[str, Any]]) -> None:
    """Write one shard of `target`.

    Raises:
        FileWriteError: It cannot be written.
    """
    files.write_bytes(target / f"{index:05d}.safetensors", save(arrays))
    files.write_text(target / f"{index:05d}.json", json.dumps(metadata))


def is_complete(target: Path, index: int, count: int) -> bool:
    """Whether shard `index` exists, can be read and has `count` samples. Values are not checked."""
    try:
        metadata = read_metadata(target / f"{index:05d}.json")
        with safe_open(target / f"{index:05d}.safetensors", "numpy") as file:  # Fails for a truncated file.
            rows = {file.get_slice(name).get_shape()[0] for name in file.keys()}  # noqa: SIM118
    except (OSError, CheckpointError, SafetensorError):
        return False
    return len(metadata) == count and rows == {count}


def read_metadata(path: Path) -> list[dict[str, Any]]:
    """The metadata of one shard.

    Raises:
        CheckpointError: The file is damaged.
    """
    try:
        metadata = files.read_json(path)
        if not isinstance(metadata, list):
            raise ValueError("a list was expected")
    except (OSError, ValueError) as error:
        raise damaged_shard(path, error) from error
    return metadata


def damaged_shard(path: Path, reason: object) -> CheckpointError:
    """The error for a shard that cannot be read."""
    return CheckpointError(f"{path} cannot be read ({reason}). Delete it; the same command makes it again.")


@contextmanager
def lock_folder(target: Path) -> Iterator[None]:
    """Hold the lock of a folder of shards, and remove temporary files of killed processes.

    Raises:
        LockedError: Another process has held it for a day.
    """
    busy = f"{target} has been locked by {{owner}} for a day. Wait until it has ended, or end it."
    with files.lock(target / ".lock", wait_s=_LOCK_TIMEOUT_S, busy=busy):
        files.remove_stale_temporaries(target)
        for rest in target.glob("*.partial"):  # from earlier versions
            files.remove(rest)
        yield
