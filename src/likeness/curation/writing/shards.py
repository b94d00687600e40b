"""Tar shards in the layout of webdataset, their Parquet manifest, and the record of both.

    00000.tar          ID.mp4 or ID.png, ID.txt, ID.json, ID.reference0.png, ...; sorted by id
    manifest.parquet   a row for each sample, as `likeness train` reads it
    dropped.jsonl      a row for everything that is not used, with the reason
    manifest.json      the recipe, the key of its results, and the SHA-256 of all files above

Members have no date and no owner, and nothing depends on when or where files were written: equal samples give equal
bytes.
"""

import io
import json
import os
import tarfile
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pyarrow
import pyarrow.parquet

from likeness.curation.ledger import digest, encode_json, hash_bytes, hash_file
from likeness.training.files.sample import Sample
from likeness.training.files.webdataset import MANIFEST_NAME

MANIFEST, ROWS, DROPPED = "manifest.json", MANIFEST_NAME, "dropped.jsonl"
FORMAT = "likeness-data-1"
_SUFFIXES = (".mp4", ".png")


@dataclass(frozen=True, kw_only=True, slots=True)
class ShardFile:
    """A member of a shard: where its bytes are, and what they must be."""

    name: str
    data: bytes | Path
    sha256: str


@dataclass(frozen=True, kw_only=True, slots=True)
class ShardSample:
    """A sample with all of its files, ready to be written."""

    id: str
    record: Mapping[str, Any]
    files: tuple[ShardFile, ...]


@dataclass(frozen=True, kw_only=True, slots=True)
class ShardRecord:
    """A shard as `manifest.json` lists it."""

    name: str
    samples: int
    bytes: int
    sha256: str
    key: str
    """Hash of the names and hashes of its members, by which it is recognized before it is written."""


class ChangedFileError(Exception):
    """A file of the ledger does not have its checksum."""

    def __init__(self, path: Path) -> None:
        super().__init__(str(path))
        self.path = path


def shard_name(number: int) -> str:
    """The name of a shard."""
    return f"{number:05d}.tar"


def shard_key(samples: Sequence[ShardSample]) -> str:
    """The key of a shard with these samples."""
    return digest("shard", [(file.name, file.sha256) for sample in samples for file in sample.files])


def write_shard(draft: Path, samples: Sequence[ShardSample], earlier: tuple[Path, ShardRecord] | None) -> ShardRecord:
    """Write a shard, or link the file of an earlier one with the same members.

    Args:
        draft: Where it is written; its name is the shard's.
        samples: Its samples, sorted by id.
        earlier: A shard that has the same key.

    Raises:
        ChangedFileError: A file does not have its checksum.
    """
    key = shard_key(samples)
    if earlier is not None and link_shard(*earlier, draft):
        return ShardRecord(
            name=draft.name, samples=len(samples), bytes=earlier[1].bytes, sha256=earlier[1].sha256, key=key
        )
    with tarfile.open(draft, "w", format=tarfile.USTAR_FORMAT) as archive:
        for sample in samples:
            for file in sample.files:
                data = file.data if isinstance(file.data, bytes) else file.data.read_bytes()
                if isinstance(file.data, Path) and hash_bytes(data) != file.sha256:
                    raise ChangedFileError(file.data)
                add_member(archive, file.name, data)
    return ShardRecord(
        name=draft.name, samples=len(samples), bytes=draft.stat().st_size, sha256=hash_file(draft), key=key
    )


def add_member(archive: tarfile.TarFile, name: str, data: bytes) -> None:
    """Add a file to a tar file, without date and owner."""
    entry = tarfile.TarInfo(name)
    entry.size = len(data)
    archive.addfile(entry, io.BytesIO(data))


def to_sample(record: Mapping[str, Any], shard: Path) -> Sample:
    """A sample of training, from the record of one that is in a shard."""
    (media,) = {f"{record['id']}{suffix}" for suffix in _SUFFIXES} & set(record["files"])
    return Sample(
        media=shard / media,
        caption=record["caption"],
        person=record.get("person") or "",
        references=tuple(shard / entry["file"] for entry in record["references"]),
        class_word=record.get("class_word"),
        source=record.get("source"),
        licence=record.get("licence"),
        consent=record.get("consent"),
    )


def read_rows(path: Path) -> list[dict[str, Any]]:
    """Read the Parquet manifest.

    Raises:
        OSError, pyarrow.ArrowException: It cannot be read.
    """
    return pyarrow.parquet.read_table(path).to_pylist()


def write_lines(path: Path, rows: Iterable[Mapping[str, Any]]) -> None:
    """Write JSON Lines."""
    path.write_text("".join(encode_json(row) + "\n" for row in rows), encoding="utf-8")


def file_record(path: Path) -> dict[str, Any]:
    """Size and SHA-256 of a file, for `manifest.json`."""
    return {"bytes": path.stat().st_size, "sha256": hash_file(path)}


def write_manifest(path: Path, manifest: Mapping[str, Any]) -> None:
    """Write `manifest.json`."""
    path.write_text(json.dumps(manifest, indent=2, sort_keys=True, ensure_ascii=False) + "\n", encoding="utf-8")


def link_shard(path: Path, record: ShardRecord, draft: Path) -> bool:
    """Make a hard link to a shard, if it is as its record says; it is never changed in place."""
    try:
        if path.stat().st_size != record.bytes or hash_file(path) != record.sha256:
            return False
        os.link(path, draft)
    except OSError:  # It is gone, or the file system has no links.
        return False
    return True
