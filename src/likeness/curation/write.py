"""Writes the samples of a finished pipeline: media, then shards and manifests, in one step that happens or does not."""

import json
import logging
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from likeness import __version__, files
from likeness.curation.jobs import Job
from likeness.curation.ledger import digest, encode_json, hash_bytes
from likeness.curation.pipeline import Pipeline
from likeness.curation.reading.sources import LeftOut
from likeness.curation.stage import Candidate
from likeness.curation.writing import shards
from likeness.curation.writing.samples import (
    ChosenSample,
    choose_samples,
    requests_by_source,
    to_record,
    without_media,
)
from likeness.errors import ResourceError
from likeness.training.files.manifest import write_manifest

logger = logging.getLogger(__name__)

DATA_NAME = "data"
"""Folder of the shards in the output folder."""
_VERSION = 2
"""Raised when the same samples are written as other bytes."""
_RENDER = "render:"
_WRITING = "writing shards"
_MAX_REPAIRS = 20


@dataclass(frozen=True, kw_only=True, slots=True)
class Written:
    """What was written."""

    folder: Path
    manifest: dict[str, Any]
    is_new: bool
    """Whether anything had to be written."""


def write_key(pipeline: Pipeline, keys: Mapping[str, str], left_out: Sequence[LeftOut]) -> str:
    """The key of all that is written: equal keys mean equal files."""
    names = {sha: found.name for sha, found in pipeline.sources.items()}
    failed = [(name, reason) for name, reason in pipeline.failures if name.startswith(_RENDER)]
    settings = pipeline.recipe.write.model_dump(mode="json")
    rest = [asdict(one) for one in left_out]
    return digest("write", _VERSION, shards.FORMAT, sorted(keys.items()), settings, rest, names, failed)


def find_written(folder: Path, key: str) -> Written | None:
    """What an earlier run wrote under this key; None if there is none, or a file is missing or has another size."""
    manifest = read_manifest(folder)
    if manifest is None or manifest.get("key") != key:
        return None
    sizes = {one["name"]: one["bytes"] for one in manifest["shards"]}
    sizes |= {name: manifest["files"][name]["bytes"] for name in (shards.ROWS, shards.DROPPED)}
    try:
        is_whole = all((folder / name).stat().st_size == size for name, size in sizes.items())
    except OSError:
        return None
    return Written(folder=folder, manifest=manifest, is_new=False) if is_whole else None


def read_manifest(folder: Path) -> dict[str, Any] | None:
    """`manifest.json` of a data folder; None if there is none that can be read."""
    try:
        manifest = files.read_json(folder / shards.MANIFEST)
    except (OSError, ValueError):
        return None
    return manifest if isinstance(manifest, dict) and manifest.get("format") == shards.FORMAT else None


def write_data(pipeline: Pipeline, keys: Mapping[str, str], left_out: Sequence[LeftOut], folder: Path) -> Written:
    """Encode media that are missing, and write shards and manifests to `folder`, which is replaced.

    Raises:
        FileWriteError: The folder cannot be written.
        ResourceError: Nothing can be encoded.
    """
    write = pipeline.recipe.write
    chosen, dropped = choose_samples(pipeline.read_all(keys, arrays=write.arrays), write)
    for _ in range(_MAX_REPAIRS):
        samples, failed = without_media(chosen, _render(pipeline, chosen, keys))
        rows = list(_drop_rows(pipeline, [*dropped, *failed], left_out))
        try:
            ready = [_ready(pipeline, sample) for sample in samples]
            manifest = _write(pipeline, keys, ready, rows, left_out, folder)
        except shards.ChangedFileError as error:
            logger.warning("%s is damaged; it is made again.", error.path)
            error.path.unlink(missing_ok=True)
            continue
        return Written(folder=folder, manifest=manifest, is_new=True)
    raise ResourceError(
        f"Media in {pipeline.ledger.folder} are damaged again and again. Check the disk, or use another folder."
    )


def _render(pipeline: Pipeline, samples: Sequence[ChosenSample], keys: Mapping[str, str]) -> dict[str, str]:
    """Encode what is missing; returns the reasons of sources that cannot be encoded."""
    ledger = pipeline.ledger
    failed: dict[str, str] = {}
    missing: dict[str, Job] = {}
    for sha, requests in requests_by_source(samples).items():
        if (reason := pipeline.failures.get(_RENDER + sha)) is not None:
            failed[sha] = reason
        elif any(ledger.media_record(one.path(ledger, sha)) is None for one in requests):
            missing[sha] = pipeline.job(sha, requests=requests, start=keys[sha])

    def fail(job: Job, reason: str) -> None:
        failed[job.source.sha256] = reason
        pipeline.failures.add(_RENDER + job.source.sha256, reason)

    if missing:
        pipeline.do(iter(missing.values()), "encoding media", len(missing), fail)
    return failed


def _ready(pipeline: Pipeline, sample: ChosenSample) -> shards.ShardSample:
    """A sample with the contents of its small files, and the places of its media."""
    ledger, one = pipeline.ledger, sample.candidate
    members, records = [], []
    for extension, source, request in sample.files:
        path = request.path(ledger, source)
        record = ledger.media_record(path)
        if record is None:
            raise shards.ChangedFileError(path)
        records.append(record)
        members.append(shards.ShardFile(name=f"{one.id}{extension}", data=path, sha256=record["sha256"]))
    record = to_record(sample, records[0], pipeline.recipe.write)
    record["files"] = [member.name for member in members]
    texts = {".txt": record["caption"].encode(), ".json": (encode_json(record) + "\n").encode()}
    small = [
        shards.ShardFile(name=f"{one.id}{extension}", data=data, sha256=hash_bytes(data))
        for extension, data in texts.items()
    ]
    return shards.ShardSample(id=one.id, record=record, files=(members[0], *small, *members[1:]))


def _write(
    pipeline: Pipeline,
    keys: Mapping[str, str],
    samples: Sequence[shards.ShardSample],
    dropped: Sequence[Mapping[str, Any]],
    left_out: Sequence[LeftOut],
    folder: Path,
) -> dict[str, Any]:
    recipe = pipeline.recipe
    size = recipe.write.shard_samples
    groups = [samples[start : start + size] for start in range(0, len(samples), size)]
    earlier = _earlier_shards(folder)
    pipeline.on_progress(_WRITING, 0, len(groups))
    with files.write_atomically(folder, replaces_folder=True) as draft:
        draft.mkdir()
        written, rows = [], []
        for number, group in enumerate(groups):
            path = draft / shards.shard_name(number)
            written.append(shards.write_shard(path, group, earlier.get(shards.shard_key(group))))
            rows += [shards.to_sample(sample.record, path) for sample in group]
            pipeline.on_progress(_WRITING, number + 1, len(groups))
        write_manifest(draft / shards.ROWS, rows)
        shards.write_lines(draft / shards.DROPPED, dropped)
        manifest = {
            "format": shards.FORMAT,
            "likeness_version": __version__,
            "key": write_key(pipeline, keys, left_out),
            "recipe": json.loads(recipe.model_dump_json(exclude={"executor"})),
            "counts": {
                "sources": len(pipeline.sources) + len(left_out),
                "candidates": len(samples) + sum(1 for row in dropped if row["id"]),
                "samples": len(samples),
                "dropped": len(dropped),
                "people": len({row.person for row in rows if row.person}),
            },
            "stages": [entry.name for entry in recipe.stages],
            "dropped": count_reasons(dropped),
            "shards": [asdict(one) for one in written],
            "files": {name: shards.file_record(draft / name) for name in (shards.ROWS, shards.DROPPED)},
        }
        shards.write_manifest(draft / shards.MANIFEST, manifest)
    return manifest


def count_reasons(dropped: Sequence[Mapping[str, Any]]) -> dict[str, dict[str, int]]:
    """How many were dropped for each reason of each stage."""
    counts: dict[str, Counter[str]] = {}
    for row in dropped:
        counts.setdefault(row["stage"], Counter())[row["reason"]] += 1
    return {stage: dict(sorted(reasons.items())) for stage, reasons in counts.items()}


def _drop_rows(
    pipeline: Pipeline, dropped: Sequence[Candidate], left_out: Sequence[LeftOut]
) -> Iterator[dict[str, Any]]:
    """Rows of `dropped.jsonl`: files that are no sources by name, then candidates by id."""
    for one in sorted(left_out, key=lambda one: (one.name, one.sha256)):
        yield {
            "id": None,
            "source": one.sha256 or None,
            "name": one.name,
            "stage": "read",
            "reason": one.reason,
            "value": one.value,
        }
    for one in sorted(dropped, key=lambda one: one.id):
        assert one.dropped is not None, "only dropped candidates are listed"
        yield {
            "id": one.id,
            "source": one.source,
            "name": pipeline.sources[one.source].name,
            "first_frame": one.first_frame,
            "num_frames": one.num_frames,
            **asdict(one.dropped),
        }


def _earlier_shards(folder: Path) -> dict[str, tuple[Path, shards.ShardRecord]]:
    manifest = read_manifest(folder)
    records = [] if manifest is None else [shards.ShardRecord(**one) for one in manifest["shards"]]
    return {record.key: (folder / record.name, record) for record in records}
