"""Results of stages on disk, found by a hash of everything that they depend on.

    LEDGER/results/ab/<sha256 of the source>/<key>.jsonl, <key>.npz   candidates of one source after one stage
    LEDGER/media/ab/<sha256 of the source>/<key>.mp4, <key>.json      encoded media, and their checksum
    LEDGER/globals/<key>.json                                         result keys of all sources after a global stage
    LEDGER/index.sqlite                                               hashes of files, by size, date and inode

A key is a SHA-256 over the source (bytes and facts) and, of every stage up to the one in question, name, version and
settings: other settings give other keys from that stage on, and no result is ever changed. A result is written aside,
flushed and renamed, `.npz` before `.jsonl`, and starts with a checksum. A damaged one counts as absent. All that is
known of a source lies in folders of its own, so that it can be removed. The index may be deleted at any time.
"""

import hashlib
import io
import json
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np

from likeness import files
from likeness.curation.stage import Candidate, Drop, GlobalStage, Source, Stage
from likeness.errors import LikenessError

FORMAT = 1
"""Raised when files of the ledger are laid out in another way: results of other formats are not read."""
LEDGER_NAME = "ledger"


class DamagedError(LikenessError):
    """A result is absent or does not have its checksum. It is made again."""

    def __init__(self, path: Path) -> None:
        super().__init__(f"{path} is absent or damaged. Run the recipe again: the result is made anew.")
        self.path = path


def digest(*parts: Any) -> str:
    """SHA-256 of JSON values, in hexadecimal digits."""
    return hashlib.sha256(encode_json([FORMAT, *parts]).encode()).hexdigest()


def encode_json(value: Any) -> str:
    """Equal values give equal text; NumPy's numbers become Python's, and what is not finite becomes null.

    Raises:
        TypeError: A value is none of JSON.
    """
    return json.dumps(files.nan_to_none(_plain(value)), sort_keys=True, ensure_ascii=False, separators=(",", ":"))


def source_key(source: Source) -> str:
    """The key that the first stage starts from. The path is not part of it: a moved file keeps its results."""
    return digest("source", source.sha256, source.kind, source.facts)


def stage_key(before: str, stage: Stage | GlobalStage) -> str:
    """The key of a stage's result, from the key of its input."""
    return digest("stage", before, stage.name, stage.version, stage.settings.model_dump(mode="json"))


def global_key(inputs: Mapping[str, str], stage: GlobalStage) -> str:
    """The key of a global stage's result, from the keys of all sources' inputs."""
    return digest("global", sorted(inputs.items()), stage.name, stage.version, stage.settings.model_dump(mode="json"))


def failed_key(before: str, reason: str) -> str:
    """The key of a source whose worker failed: what follows depends on that, and a later attempt has another key."""
    return digest("failed", before, reason)


class Ledger:
    """The results in one folder. Several processes may read and write at the same time; `locked` is for the driver."""

    def __init__(self, folder: str | Path) -> None:
        self.folder = Path(folder)

    @contextmanager
    def locked(self) -> Iterator[None]:
        """Hold the ledger's lock, so that one driver works on it.

        Raises:
            LockedError: Another process holds it.
        """
        busy = f"{self.folder} is in use by {{owner}}. Wait until it has ended, or use another output folder."
        with files.lock(self.folder / "lock", busy=busy):
            yield

    def has(self, source: str, key: str) -> bool:
        """Whether there is a result, without reading it."""
        return self._result(source, key).is_file()

    def write(self, source: str, key: str, candidates: Sequence[Candidate]) -> None:
        """Write a result; an existing one is replaced.

        Raises:
            FileWriteError: It cannot be written.
            TypeError: A fact is no JSON value, or an array holds objects.
        """
        path = self._result(source, key)
        arrays = _pack(candidates)
        lines = "".join(encode_json(_to_row(candidate)) + "\n" for candidate in candidates).encode()
        head = {
            "format": FORMAT,
            "key": key,
            "sha256": hash_bytes(lines),
            "arrays": hash_bytes(arrays) if arrays else None,
        }
        if arrays:
            files.write_bytes(path.with_suffix(".npz"), arrays)
        files.write_bytes(path, encode_json(head).encode() + b"\n" + lines)

    def read(self, source: str, key: str, *, arrays: bool = True) -> list[Candidate]:
        """Read a result, and check it.

        Args:
            source: SHA-256 of the source.
            key: The result's key.
            arrays: Whether to read the arrays, too.

        Raises:
            DamagedError: It is absent or damaged.
        """
        path = self._result(source, key)
        try:
            head_line, _, lines = path.read_bytes().partition(b"\n")
            head = json.loads(head_line)
            if (head["format"], head["key"], head["sha256"]) != (FORMAT, key, hash_bytes(lines)):
                raise DamagedError(path)
            candidates = [_from_row(json.loads(line)) for line in lines.decode().split("\n") if line]
            if arrays and head["arrays"]:
                packed = path.with_suffix(".npz").read_bytes()
                if hash_bytes(packed) != head["arrays"]:
                    raise DamagedError(path)
                _unpack(packed, candidates)
        except (OSError, ValueError, KeyError, TypeError) as error:
            raise DamagedError(path) from error
        return candidates

    def write_keys(self, key: str, keys: Mapping[str, str]) -> None:
        """Write the result of a global stage: the key of each source's candidates, by source."""
        body = encode_json(keys)
        head = encode_json({"format": FORMAT, "key": key, "sha256": hash_bytes(body.encode())})
        files.write_text(self._keys(key), f"{head}\n{body}\n")

    def read_keys(self, key: str) -> dict[str, str] | None:
        """The result of a global stage; None if it is absent or damaged."""
        try:
            head_line, body, *_ = self._keys(key).read_text(encoding="utf-8").split("\n")
            head = json.loads(head_line)
            return json.loads(body) if (head["format"], head["sha256"]) == (FORMAT, hash_bytes(body.encode())) else None
        except (OSError, ValueError, KeyError, TypeError):
            return None

    def media(self, source: str, key: str, suffix: str) -> Path:
        """Where an encoded file of a source is, or is to be written."""
        return self.folder / "media" / source[:2] / source / f"{key}{suffix}"

    def write_media_record(self, path: Path, facts: Mapping[str, Any]) -> None:
        """Record that a file of `media` is complete, with its checksum."""
        record = {"format": FORMAT, "sha256": hash_file(path), "bytes": path.stat().st_size, **facts}
        files.write_text(path.with_suffix(".json"), encode_json(record) + "\n")

    def media_record(self, path: Path) -> dict[str, Any] | None:
        """The record of a file of `media`; None if it, or the file, is absent or has another size."""
        try:
            record = files.read_json(path.with_suffix(".json"))
            is_whole = record["format"] == FORMAT and record["bytes"] == path.stat().st_size
        except (OSError, ValueError, KeyError, TypeError):
            return None
        return record if is_whole else None

    def forget(self, sources: Sequence[str]) -> int:
        """Remove all results and media of sources; returns the number of files removed."""
        count = 0
        for source in sources:
            for kind in ("results", "media"):
                folder = self.folder / kind / source[:2] / source
                count += sum(1 for path in folder.rglob("*") if path.is_file()) if folder.is_dir() else 0
                files.remove(folder)
        return count

    def _result(self, source: str, key: str) -> Path:
        return self.folder / "results" / source[:2] / source / f"{key}.jsonl"

    def _keys(self, key: str) -> Path:
        return self.folder / "globals" / f"{key}.json"


def normalize(candidates: Sequence[Candidate]) -> list[Candidate]:
    """The candidates as they would be read back, so that a stage gets the same after a kill as without one.

    Raises:
        TypeError: A fact is no JSON value, or an array holds objects.
    """
    result = []
    for candidate in candidates:
        for name, values in candidate.arrays.items():
            _check_array(name, values)
        copy = _from_row(json.loads(encode_json(_to_row(candidate))))
        copy.arrays = dict(candidate.arrays)
        result.append(copy)
    return result


def content_key(candidates: Sequence[Candidate]) -> str:
    """A key by content alone, for candidates that a global stage has changed."""
    rows = [_to_row(candidate) for candidate in candidates]
    arrays = [
        (name, str(values.dtype), values.shape, hash_bytes(np.ascontiguousarray(values).tobytes()))
        for candidate in candidates
        for name, values in sorted(candidate.arrays.items())
    ]
    return digest("content", rows, arrays)


def hash_bytes(data: bytes) -> str:
    """SHA-256 of bytes, in hexadecimal digits."""
    return hashlib.sha256(data).hexdigest()


def hash_file(path: Path) -> str:
    """SHA-256 of a file's bytes.

    Raises:
        OSError: It cannot be read.
    """
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _pack(candidates: Sequence[Candidate]) -> bytes:
    named = {}
    for one in candidates:
        for name, values in sorted(one.arrays.items()):
            _check_array(name, values)
            named[f"{one.id}/{name}"] = values
    if not named:
        return b""
    packed = io.BytesIO()
    np.savez(packed, allow_pickle=False, **named)
    return packed.getvalue()


def _unpack(packed: bytes, candidates: Sequence[Candidate]) -> None:
    by_id = {candidate.id: candidate for candidate in candidates}
    with np.load(io.BytesIO(packed), allow_pickle=False) as archive:
        for entry in archive.files:
            identifier, _, name = entry.partition("/")
            by_id[identifier].arrays[name] = archive[entry]


def _check_array(name: str, values: np.ndarray) -> None:
    if not isinstance(values, np.ndarray) or values.dtype.hasobject:
        raise TypeError(f"the array `{name}` is {type(values).__name__}; an array of numbers is needed")


def _to_row(candidate: Candidate) -> dict[str, Any]:
    return {
        "id": candidate.id,
        "source": candidate.source,
        "first_frame": int(candidate.first_frame),
        "num_frames": int(candidate.num_frames),
        "facts": candidate.facts,
        "dropped": None if candidate.dropped is None else asdict(candidate.dropped),
    }


def _from_row(row: Mapping[str, Any]) -> Candidate:
    dropped = None if row["dropped"] is None else Drop(**row["dropped"])
    return Candidate(**{**row, "dropped": dropped})


def _plain(value: Any) -> Any:
    if isinstance(value, np.generic):
        return value.item()
    if isinstance(value, Mapping):
        return {name: _plain(inner) for name, inner in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(inner) for inner in value]
    return value
