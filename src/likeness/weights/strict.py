"""Strict comparison of tensors with an architecture: one error lists all that are missing, extra, misshapen or altered.

It works on names and shapes in the safetensors header, so a checkpoint of twenty gigabytes is checked in
milliseconds, before memory is allocated. It needs no torch.
"""

import hashlib
import json
import struct
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from likeness.errors import WeightsError
from likeness.files import read_json
from likeness.weights.files import CHECKSUMS_FILE, file_problem, read_listing
from likeness.weights.hashes import cached_sha256

Shapes = Mapping[str, Sequence[int]]
"""Shape of each tensor, by name."""

_MAX_LISTED = 12
"""Names of each kind that an error lists; a wrong architecture would have thousands."""
_MAX_HEADER_BYTES = 100_000_000


def shapes_of(state: Mapping[str, Any]) -> dict[str, tuple[int, ...]]:
    """Shapes of a state dict, or of any objects with a `shape`."""
    return {name: tuple(tensor.shape) for name, tensor in state.items()}


def refuse_differences(
    expected: Shapes,
    found: Shapes,
    *,
    what: str,
    remedy: str,
    altered: Iterable[str] = (),
    optional: Iterable[str] = (),
) -> None:
    """Compare the tensors of an architecture with those of a file.

    Args:
        expected: Tensors of the architecture.
        found: Tensors of the file.
        what: Name of the file in the message.
        remedy: Last sentence of the message.
        altered: Names of tensors or files whose checksum differs.
        optional: Tensors that may be missing, such as the second name of a shared one.

    Raises:
        WeightsError: Anything differs; all differences are listed, long lists shortened.
    """
    expected_names, found_names = expected.keys(), found.keys()
    problems = {
        "missing": sorted(expected_names - found_names - set(optional)),
        "extra": sorted(found_names - expected_names),
        "misshapen": [
            f"{name} is {_shape(found[name])} instead of {_shape(expected[name])}"
            for name in sorted(expected_names & found_names)
            if tuple(expected[name]) != tuple(found[name])
        ],
        "altered": sorted(altered),
    }
    lines = [f"  {kind} ({len(names)}): {shorten_list(names)}" for kind, names in problems.items() if names]
    if lines:
        raise WeightsError("\n".join([f"{what} does not hold the expected tensors:", *lines, remedy]))


def read_shapes(folder: Path, stem: str = "diffusion_pytorch_model") -> dict[str, tuple[int, ...]]:
    """Names and shapes in `stem`.safetensors, or in the shards of its index.

    Raises:
        WeightsError: A file is missing or damaged, or index and shards disagree.
    """
    single, index = folder / f"{stem}.safetensors", folder / f"{stem}.safetensors.index.json"
    if single.is_file() or not index.is_file():
        if not single.is_file() and (others := _other_formats(folder)):
            raise WeightsError(
                f"{single} is missing; {folder} holds {shorten_list(others)} instead. Weights are read from "
                f"{single.name} or its shards only: fetch those files, or convert yours once with `save_pretrained` of "
                "diffusers or transformers."
            )
        return read_file_shapes(single)
    try:
        weight_map = dict(read_json(index)["weight_map"])
        shards = [folder / name for name in sorted(set(weight_map.values()))]
    except (OSError, KeyError, TypeError, ValueError) as error:
        raise WeightsError(f"{index} is damaged ({error!r}). Copy or pull it again.") from error
    shapes: dict[str, tuple[int, ...]] = {}
    for shard in shards:
        shapes |= read_file_shapes(shard)
    if unlisted := shapes.keys() ^ weight_map.keys():
        raise WeightsError(
            f"{index} and its shards disagree on {shorten_list(sorted(unlisted))}. Copy or pull them again."
        )
    return shapes


def _other_formats(folder: Path) -> list[str]:
    """Names of files with weights in pickles, or in a variant such as `fp16`."""
    suffixes = {".safetensors", ".bin", ".pt", ".pth", ".ckpt"}
    return sorted(path.name for path in folder.glob("*") if path.suffix in suffixes)


def read_file_shapes(path: Path) -> dict[str, tuple[int, ...]]:
    """Names and shapes in one safetensors file. Raises WeightsError if it is missing, truncated or damaged."""
    header, *_ = read_header(path)
    return {name: tuple(record["shape"]) for name, record in header.items()}


def tensor_checksums(path: Path) -> dict[str, str]:
    """SHA-256 of every tensor's bytes in a safetensors file."""
    header, start, _ = read_header(path)
    with path.open("rb") as file:
        return {name: _digest(file, start, record["data_offsets"]) for name, record in header.items()}


def find_altered(folder: Path) -> list[str]:
    """Tensors and files in `folder` that differ from the list of checksums in it, or in its parent.

    Tensors are named if the list has checksums of tensors, else files. Without a list nothing is reported.
    """
    listing_folder = next(
        (candidate for candidate in (folder, folder.parent) if (candidate / CHECKSUMS_FILE).is_file()), None
    )
    if listing_folder is None:
        return []
    record, files = read_listing(listing_folder, "Copy or pull the weights again.")
    altered = []
    for file in files:
        if file.path.is_relative_to(folder) and file.path.is_file() and file_problem(file, cached_sha256) is not None:
            tensor_hashes = record.get("tensors", {}).get(file.path.relative_to(listing_folder).as_posix())
            altered += _altered_tensors(file.path, tensor_hashes) or [file.path.name]
    return altered


def _altered_tensors(path: Path, expected: Mapping[str, str] | None) -> list[str]:
    if expected is None or path.suffix != ".safetensors":
        return []
    try:
        actual = tensor_checksums(path)
    except WeightsError:  # The header is altered, so only the file can be named.
        return []
    return [name for name in actual.keys() & expected.keys() if actual[name] != expected[name]]


def read_header(path: Path, *, remedy: str = "Copy or pull it again.") -> tuple[dict[str, Any], int, dict[str, str]]:
    """Tensor records, offset of the data and metadata of a safetensors file.

    Raises:
        WeightsError: The file is missing, truncated or damaged. The message names it and ends with `remedy`.
    """
    try:
        with path.open("rb") as file:
            (length,) = struct.unpack("<Q", file.read(8))
            if length > _MAX_HEADER_BYTES:
                raise ValueError(f"a header of {length} bytes")
            header = json.loads(file.read(length))
            size_bytes = file.seek(0, 2)
        metadata = dict(header.pop("__metadata__", None) or {})
        end = max((record["data_offsets"][1] for record in header.values()), default=0)
        for record in header.values():
            tuple(record["shape"])
    except FileNotFoundError as error:
        raise WeightsError(f"{path} is missing. {remedy}") from error
    except (
        OSError,
        struct.error,
        ValueError,
        LookupError,
        TypeError,
        AttributeError,
        RecursionError,
    ) as error:
        hint = " It holds the address of a file in Git LFS, not the file." if _is_lfs_pointer(path) else ""
        raise WeightsError(f"{path} is no safetensors file ({error}).{hint} {remedy}") from error
    if size_bytes != 8 + length + end:
        raise WeightsError(f"{path} holds {size_bytes} bytes, and its header speaks of {8 + length + end}. {remedy}")
    return header, 8 + length, metadata


def _is_lfs_pointer(path: Path) -> bool:
    """Whether a file is the text that Git LFS puts in place of a large file in a clone without LFS."""
    try:
        with path.open("rb") as file:
            return file.read(40).startswith(b"version https://git-lfs")
    except OSError:
        return False


def _digest(file: Any, start: int, offsets: Sequence[int]) -> str:
    file.seek(start + offsets[0])
    return hashlib.sha256(file.read(offsets[1] - offsets[0])).hexdigest()


def _shape(shape: Sequence[int]) -> str:
    return "x".join(map(str, shape)) or "scalar"


def shorten_list(names: Sequence[str]) -> str:
    """Join names for a message; only the first dozen are listed."""
    more = len(names) - _MAX_LISTED
    return ", ".join(names[:_MAX_LISTED]) + (f" and {more} more" if more > 0 else "")
