"""Removes a person or a source from shards and ledger, and sees to it that no later run brings them back.

A person is in a recording as a whole: all sources in which they were found are removed, with everybody else's samples
of these sources. What is recorded are hashes, not names or paths.
"""

import json
import tarfile
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from likeness import files
from likeness.curation.ledger import LEDGER_NAME, DamagedError, Ledger, digest, encode_json, hash_bytes, hash_file
from likeness.curation.reading.hashes import HashIndex
from likeness.curation.stage import Source
from likeness.curation.verify import read_dropped
from likeness.curation.write import DATA_NAME, count_reasons, read_manifest
from likeness.curation.writing import shards
from likeness.errors import ConfigError
from likeness.training.files.manifest import write_manifest

FINAL_NAME, INDEX_NAME, PAGE_NAME = "final.json", "index.sqlite", "report.html"
"""Files of the ledger, and the page of `inspect`, that hold something of sources."""
_MIN_DIGITS = 12


class Forgotten:
    """Who and what may not be used again, in a file of the ledger."""

    def __init__(self, folder: Path) -> None:
        self._path = folder / "forgotten.json"
        self.sources: set[str] = set()
        self.people: set[str] = set()
        if self._path.exists():
            try:
                found = files.read_json(self._path)
                self.sources, self.people = set(found["sources"]), set(found["people"])
            except (OSError, ValueError, KeyError, TypeError) as error:
                # Never read as empty: what was to be forgotten would come back.
                raise ConfigError(f"{self._path} cannot be read ({error}). Restore it from a copy.") from error

    def has(self, source: Source) -> bool:
        """Whether a source may not be used: it was forgotten, or a list says that it shows a forgotten person."""
        person = source.facts.get("person")
        return source.sha256 in self.sources or (person is not None and _hash_name(person) in self.people)

    def add(self, sources: Iterable[str], person: str | None) -> None:
        """Record sources, and a person."""
        self.sources |= set(sources)
        self.people |= {_hash_name(person)} if person is not None else set()
        record = {"sources": sorted(self.sources), "people": sorted(self.people)}
        files.write_text(self._path, json.dumps(record, indent=1) + "\n")


@dataclass(frozen=True, kw_only=True, slots=True)
class Removed:
    """What was removed."""

    sources: int
    samples: int
    references: int
    """Reference pictures of samples that stay."""
    results: int
    """Files of the ledger."""


def forget(output: str | Path, *, person: str | None = None, source: str | None = None) -> Removed:
    """Remove a person or a source from a folder of curated data. A killed call is finished by calling again.

    Args:
        output: As for `curate`.
        person: Name of a person, as samples have it.
        source: SHA-256 of a source (or its first 12 digits or more), its name as records have it, or the path of a
            copy of the file.

    Raises:
        ConfigError: Neither or both are given, or nothing of that name was ever used.
        LockedError: Another process works on `output`.
    """
    if (person is None) == (source is None):
        raise ConfigError("Name either a person or a source.")
    output = Path(output)
    ledger, data = Ledger(output / LEDGER_NAME), output / DATA_NAME
    if not ledger.folder.is_dir():
        raise ConfigError(f"{output} has no ledger. Name the output folder of `likeness data run`.")
    with ledger.locked():
        forgotten = Forgotten(ledger.folder)
        final = _read_final(ledger.folder)
        records = _read_records(data)
        if person is not None:
            sources = _sources_of_person(person, ledger, final, records)
            is_known = _hash_name(person) in forgotten.people
        else:
            sources = _find_sources(str(source), final, records, forgotten)
            is_known = bool(sources & forgotten.sources)
        if not sources and not is_known:
            people = sorted({record["person"] for record in records.values() if record.get("person")})
            known = f" People: {', '.join(people[:20])}." if person is not None and people else ""
            raise ConfigError(f"Nothing in {output} is of `{person or source}`. Check the name.{known}")
        # First of all, so that a killed call cannot be followed by a run that brings them back.
        forgotten.add(sources, person)
        everything = forgotten.sources
        samples, references = _rewrite_data(data, records, everything)
        results = _clean_ledger(ledger, final, everything)
        files.remove(output / PAGE_NAME)
    return Removed(sources=len(sources), samples=samples, references=references, results=results)


def _hash_name(person: str) -> str:
    return digest("person", person.strip())


def _read_final(folder: Path) -> dict[str, dict[str, str]]:
    try:
        found = files.read_json(folder / FINAL_NAME)
    except (OSError, ValueError):
        return {}
    return found if isinstance(found, dict) else {}


def _read_records(data: Path) -> dict[str, dict[str, Any]]:
    """The `.json` of every sample in the shards, by id, with the name of its shard."""
    found = {}
    for shard in sorted(data.glob("*.tar")):
        with tarfile.open(shard, "r:") as archive:
            for entry in archive:
                if entry.name.endswith(".json") and (file := archive.extractfile(entry)) is not None:
                    record = json.loads(file.read())
                    found[record["id"]] = {**record, "shard": shard.name}
    return found


def _sources_of_person(
    person: str, ledger: Ledger, final: Mapping[str, Mapping[str, str]], records: Mapping[str, Mapping[str, Any]]
) -> set[str]:
    found = {record["origin"]["sha256"] for record in records.values() if record.get("person") == person}
    for sha, entry in final.items():
        try:
            candidates = ledger.read(sha, entry["key"], arrays=False)
        except DamagedError:  # It was removed by a call that was killed.
            continue
        if any(candidate.facts.get("person") == person for candidate in candidates):
            found.add(sha)
    return found


def _find_sources(
    text: str, final: Mapping[str, Mapping[str, str]], records: Mapping[str, Mapping[str, Any]], forgotten: Forgotten
) -> set[str]:
    known = {*final, *forgotten.sources, *(record["origin"]["sha256"] for record in records.values())}
    if (path := Path(text)).is_file():
        sha256 = hash_file(path)
        # A file that no run has seen is recorded, too: it may never be used.
        return {sha256}
    if len(text) >= _MIN_DIGITS and (found := {sha for sha in known if sha.startswith(text.lower())}):
        return found
    return {sha for sha, entry in final.items() if entry["name"] == text}


def _rewrite_data(data: Path, records: Mapping[str, Mapping[str, Any]], sources: set[str]) -> tuple[int, int]:
    """Write the shards that hold something of the sources anew, and link the others."""
    manifest = read_manifest(data)
    if manifest is None:
        return 0, 0
    gone = {one["id"]: one for one in records.values() if one["origin"]["sha256"] in sources}
    changed = {
        one["id"]: one
        for one in records.values()
        if one["id"] not in gone and any(entry["source"] in sources for entry in one["references"])
    }
    dropped = read_dropped(data)
    kept_rows = [row for row in dropped if row["source"] not in sources or row["reason"] == "forgotten"]
    touched = {one["shard"] for one in (*gone.values(), *changed.values())}
    if not touched and len(kept_rows) == len(dropped):
        return 0, 0
    with files.write_atomically(data, replaces_folder=True) as draft:
        draft.mkdir()
        written = []
        for entry in manifest["shards"]:
            record = shards.ShardRecord(**entry)
            if record.name not in touched and shards.link_shard(data / record.name, record, draft / record.name):
                written.append(record)
            elif (new := _copy_shard(data / record.name, draft / record.name, gone, changed, sources)) is not None:
                written.append(new)
        names = {id_: one["shard"] for id_, one in records.items() if id_ not in gone}
        rows = [
            shards.to_sample(_without_references(records[id_], sources), draft / names[id_])
            for id_ in sorted(names, key=lambda id_: (names[id_], id_))
        ]
        write_manifest(draft / shards.ROWS, rows)
        shards.write_lines(draft / shards.DROPPED, kept_rows)
        manifest |= {
            "key": "",  # The next run writes what is left, in full shards.
            "counts": manifest["counts"] | {"samples": len(rows), "dropped": len(kept_rows)},
            "dropped": count_reasons(kept_rows),
            "shards": [asdict(one) for one in written],
            "files": {name: shards.file_record(draft / name) for name in (shards.ROWS, shards.DROPPED)},
        }
        shards.write_manifest(draft / shards.MANIFEST, manifest)
    removed = sum(sum(entry["source"] in sources for entry in one["references"]) for one in changed.values())
    return len(gone), removed


def _copy_shard(
    path: Path, draft: Path, gone: Mapping[str, Any], changed: Mapping[str, Any], sources: set[str]
) -> shards.ShardRecord | None:
    """Copy a shard without some samples and references; None if nothing is left."""
    members: list[tuple[str, str]] = []
    samples = set()
    with tarfile.open(path, "r:") as before, tarfile.open(draft, "w", format=tarfile.USTAR_FORMAT) as after:
        for entry in before:
            id_ = entry.name.partition(".")[0]
            file = before.extractfile(entry)
            if id_ in gone or file is None:
                continue
            data = file.read()
            if id_ in changed:
                record = _without_references(changed[id_], sources)
                if entry.name not in record["files"] and not entry.name.endswith((".txt", ".json")):
                    continue
                if entry.name.endswith(".json"):
                    data = (
                        encode_json({name: value for name, value in record.items() if name != "shard"}) + "\n"
                    ).encode()
            shards.add_member(after, entry.name, data)
            members.append((entry.name, hash_bytes(data)))
            samples.add(id_)
    if not samples:
        draft.unlink()
        return None
    return shards.ShardRecord(
        name=draft.name,
        samples=len(samples),
        bytes=draft.stat().st_size,
        sha256=hash_file(draft),
        key=digest("shard", members),
    )


def _without_references(record: Mapping[str, Any], sources: set[str]) -> dict[str, Any]:
    """A record without references to sources that are removed; the others keep their file names."""
    references = [entry for entry in record["references"] if entry["source"] not in sources]
    gone = {entry["file"] for entry in record["references"]} - {entry["file"] for entry in references}
    return {**record, "references": references, "files": [name for name in record["files"] if name not in gone]}


def _clean_ledger(ledger: Ledger, final: Mapping[str, Any], sources: set[str]) -> int:
    """Remove everything that the ledger has of the sources."""
    count = ledger.forget(sorted(sources))
    index = ledger.folder / INDEX_NAME
    if index.exists():
        HashIndex(index).forget(sorted(sources))
    if set(final) & sources:
        rest = {sha: entry for sha, entry in final.items() if sha not in sources}
        files.write_text(ledger.folder / FINAL_NAME, json.dumps(rest, sort_keys=True, ensure_ascii=False) + "\n")
    for path in sorted((ledger.folder / "globals").glob("*.json")):
        if _names_any(path, sources):
            files.remove(path)
    return count


def _names_any(path: Path, sources: Sequence[str] | set[str]) -> bool:
    text = path.read_text(encoding="utf-8", errors="replace")
    return any(sha in text for sha in sources)
