"""Checks of files by presence, size and checksum, and the lists of checksums beside weights."""

import hashlib
import json
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from likeness.errors import WeightsError
from likeness.files import read_json, write_text
from likeness.weights.records import LicencePreset, WeightFile

CHECKSUMS_FILE = "checksums.json"
_READ_BYTES = 1 << 20


def sha256_of(path: Path, *, on_bytes: Callable[[int], None] | None = None) -> str:
    """SHA-256 of a file; `on_bytes` is called with the number of bytes of each block read."""
    return _digest(path, hashlib.sha256(), on_bytes)


def git_sha1_of(path: Path) -> str:
    """Git's blob hash of a file."""
    header = f"blob {path.stat().st_size}\0".encode()
    return _digest(path, hashlib.sha1(header, usedforsecurity=False), None)


def _digest(path: Path, digest: Any, on_bytes: Callable[[int], None] | None) -> str:
    with path.open("rb") as file:
        while block := file.read(_READ_BYTES):
            digest.update(block)
            if on_bytes is not None:
                on_bytes(len(block))
    return digest.hexdigest()


def size_problem(file: WeightFile) -> str | None:
    """A problem of presence or size, or None."""
    if not file.path.is_file():
        return f"{file.path} is missing"
    size_bytes = file.path.stat().st_size
    if file.size_bytes is not None and size_bytes != file.size_bytes:
        return f"{file.path} holds {size_bytes} bytes instead of {file.size_bytes}"
    return None


def file_problem(file: WeightFile, sha256: Callable[[Path], str] = sha256_of) -> str | None:
    """A problem of presence, size or checksum, or None; by default every byte is read."""
    problem = size_problem(file)
    if problem is None and file.sha256 is not None and sha256(file.path) != file.sha256:
        problem = f"{file.path} is altered (its SHA-256 differs)"
    if problem is None and file.git_sha1 is not None and git_sha1_of(file.path) != file.git_sha1:
        problem = f"{file.path} is altered (its git SHA-1 differs)"
    return problem


def write_checksums(folder: Path, *, licence: str = "Apache-2.0", preset: LicencePreset = "tiny") -> Path:
    """Write `checksums.json` for all files below `folder`, as `entry` reads it, for weights that were trained here.

    Each tensor of a safetensors file has its own checksum, so that strict loading can name an altered tensor.
    """
    from likeness.weights.strict import tensor_checksums  # `strict` imports this module

    paths = [
        file
        for file in sorted(folder.rglob("*"))
        if file.is_file() and file.name != CHECKSUMS_FILE and not file.name.startswith(".")
    ]
    names = {file: file.relative_to(folder).as_posix() for file in paths}
    record = {
        "licence": licence,
        "preset": preset,
        "files": {names[file]: {"sha256": sha256_of(file), "size_bytes": file.stat().st_size} for file in paths},
        "tensors": {names[file]: tensor_checksums(file) for file in paths if file.suffix == ".safetensors"},
    }
    return write_listing(folder, record)


def write_listing(folder: Path, record: Mapping[str, Any]) -> Path:
    """Write `record`, with at least licence, preset and files, as the folder's list of checksums."""
    path = folder / CHECKSUMS_FILE
    write_text(path, json.dumps(record, indent=2) + "\n")
    return path


def read_listing(folder: Path, remedy: str) -> tuple[dict[str, Any], tuple[WeightFile, ...]]:
    """Read the folder's list of checksums: the whole record, and its files with absolute paths.

    Raises:
        WeightsError: The list is missing or damaged; the message ends with `remedy`.
    """
    listing = folder / CHECKSUMS_FILE
    try:
        record = read_json(listing)
        files = tuple(
            WeightFile(path=folder / name, sha256=file["sha256"], size_bytes=file["size_bytes"])
            for name, file in record["files"].items()
        )
        return {"preset": record["preset"], "licence": record["licence"], **record}, files
    except FileNotFoundError as error:
        raise WeightsError(f"{listing} is missing; it lists the checksums of the weights. {remedy}") from error
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        raise WeightsError(
            f"{listing} is damaged ({error!r}); it lists the checksums of the weights. {remedy}"
        ) from error


def component_problems(folder: Path, stem: str) -> list[str]:
    """Missing files of weights that are either one file, or shards with an index."""
    if (folder / f"{stem}.safetensors").is_file():
        return []
    index = folder / f"{stem}.safetensors.index.json"
    if not index.is_file():
        return [f"{folder / stem}.safetensors is missing, and so is {index.name} of its shards"]
    try:
        shards = [index.parent / name for name in sorted(set(read_json(index)["weight_map"].values()))]
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        return [f"{index} is damaged ({error!r})"]
    return [f"{shard} is missing" for shard in shards if not shard.is_file()]
