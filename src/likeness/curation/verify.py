"""Compares a folder of shards with its manifest."""

import json
import tarfile
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pyarrow

from likeness.curation.ledger import hash_file
from likeness.curation.write import DATA_NAME, read_manifest
from likeness.curation.writing import shards
from likeness.errors import ConfigError


@dataclass(frozen=True, kw_only=True, slots=True)
class Verification:
    """What was found."""

    num_shards: int
    num_samples: int
    problems: tuple[str, ...]
    """Empty if every byte is as it was written."""


def verify(output: str | Path) -> Verification:
    """Check the hashes of all shards and manifests, and that shards and manifests hold the same samples, once each.

    Args:
        output: The output folder of `curate`, or its `data` folder.

    Raises:
        ConfigError: There are no shards with a manifest.
    """
    output = Path(output)
    folder = output if (output / shards.MANIFEST).is_file() else output / DATA_NAME
    manifest = read_manifest(folder)
    if manifest is None:
        raise ConfigError(f"{output} has no {shards.MANIFEST} that can be read. Run `likeness data run` first.")
    problems = [*_check_files(folder, manifest), *_check_samples(folder, manifest)]
    return Verification(
        num_shards=len(manifest["shards"]), num_samples=manifest["counts"]["samples"], problems=tuple(problems)
    )


def _check_files(folder: Path, manifest: Mapping[str, Any]) -> Iterator[str]:
    expected = {one["name"]: one for one in manifest["shards"]} | dict(manifest["files"])
    for name, record in sorted(expected.items()):
        path = folder / name
        if not path.is_file():
            yield f"{name} is missing"
        elif path.stat().st_size != record["bytes"]:
            yield f"{name} has {path.stat().st_size} bytes, not {record['bytes']}"
        elif hash_file(path) != record["sha256"]:
            yield f"{name} has other bytes than its SHA-256 says"
    for path in sorted(folder.iterdir()):
        if path.name not in expected and path.name != shards.MANIFEST:
            yield f"{path.name} is not in the manifest"


def _check_samples(folder: Path, manifest: Mapping[str, Any]) -> Iterator[str]:
    """Rows, members and counts; files that cannot be read are reported by `_check_files` already."""
    try:
        rows = shards.read_rows(folder / shards.ROWS)
    except (OSError, pyarrow.ArrowException) as error:
        yield f"{shards.ROWS} cannot be read: {error}"
        return
    members: dict[str, set[str]] = {}
    seen: dict[str, str] = {}
    for one in manifest["shards"]:
        names, problem = _read_names(folder / one["name"])
        members[one["name"]] = names
        if problem:
            yield problem
        ids = {name.partition(".")[0] for name in names}
        if not problem and len(ids) != one["samples"]:
            yield f"{one['name']} holds {len(ids)} samples, not {one['samples']}"
        for id_ in sorted(ids):
            if seen.setdefault(id_, one["name"]) != one["name"]:
                yield f"sample {id_} is in {seen[id_]} and in {one['name']}"
            if missing := [end for end in (".txt", ".json") if f"{id_}{end}" not in names]:
                yield f"sample {id_} in {one['name']} has no {' and no '.join(missing)}"
    for row in rows:
        for path in (row["media"], *row["references"]):
            shard, _, name = path.partition("/")
            if name not in members.get(shard, set()):
                yield f"{shards.ROWS} names {path}, which is not there"
    media = [row["media"].partition("/")[2].partition(".")[0] for row in rows]
    if len(set(media)) < len(media):
        yield f"{shards.ROWS} names {len(media) - len(set(media))} samples twice"
    if lost := sorted(set(seen) - set(media)):
        yield f"{len(lost)} samples in the shards have no row in {shards.ROWS}, such as {lost[0]}"
    if len(rows) != manifest["counts"]["samples"]:
        yield f"{shards.ROWS} has {len(rows)} rows, but {manifest['counts']['samples']} samples were written"


def _read_names(shard: Path) -> tuple[set[str], str]:
    """Names of the members of a shard, and what is wrong with it."""
    try:
        with tarfile.open(shard, "r:") as archive:
            names = archive.getnames()
    except (tarfile.TarError, OSError) as error:
        return set(), f"{shard.name} cannot be read as a tar file: {error}"
    problem = f"{shard.name} has members of equal names" if len(set(names)) < len(names) else ""
    return set(names), problem


def read_dropped(folder: Path) -> list[dict[str, Any]]:
    """The rows of `dropped.jsonl`.

    Raises:
        ConfigError: It cannot be read.
    """
    return list(iterate_dropped(folder))


def iterate_dropped(folder: Path) -> Iterator[dict[str, Any]]:
    """As `read_dropped`, one row after another; the file is opened when the first is asked for."""
    path = folder / shards.DROPPED
    try:
        with path.open(encoding="utf-8", newline="\n") as file:
            for line in file:
                yield json.loads(line)
    except (OSError, ValueError) as error:
        raise ConfigError(f"{path} cannot be read ({error}). Run `likeness data run` again.") from error
