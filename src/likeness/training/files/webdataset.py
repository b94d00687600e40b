"""Tar shards with a Parquet manifest: few large files instead of many small ones.

A shard is a plain tar file in the layout of webdataset: the files of a sample share a key (`00000012.mp4`,
`00000012.txt`, `00000012.reference0.png`), so other programs can stream it. `manifest.parquet` has the columns of every
manifest; its paths go into the shards (`00000.tar/00000012.mp4`), and members are read by offset. Shards without
a manifest are read by their keys, with the caption in `.txt` or in `.json`.
"""

import io
import json
import tarfile
from collections.abc import Sequence
from dataclasses import replace
from itertools import pairwise
from pathlib import Path
from typing import Any

from likeness import files
from likeness.errors import ConfigError
from likeness.training.files import tar
from likeness.training.files.manifest import read_caption, write_manifest
from likeness.training.files.sample import IMAGE_SUFFIXES, VIDEO_SUFFIXES, Problems, Sample, finish

MANIFEST_NAME = "manifest.parquet"
MAX_SHARD_BYTES = 1_000_000_000
"""A new shard is begun beyond this; one file may be larger."""


def write_shards(samples: Sequence[Sample], folder: Path, *, max_shard_bytes: int = MAX_SHARD_BYTES) -> list[Sample]:
    """Copy samples into shards. Equal samples give byte-identical shards; the folder appears when it is complete.

    Returns:
        The samples with paths into the shards.

    Raises:
        ConfigError: The folder exists and is not empty, or there are no samples.
        MediaError: A file cannot be read.
        FileWriteError: A shard cannot be written.
    """
    if not samples:
        raise ConfigError("There are no samples to write into shards; at least one is needed.")
    if folder.exists() and (not folder.is_dir() or any(folder.iterdir())):
        raise ConfigError(f"{folder} exists and is not empty. Name another folder.")
    with files.write_atomically(folder, replaces_folder=True) as draft:
        draft.mkdir()
        starts = [0]
        while starts[-1] < len(samples):
            shard = draft / _shard_name(len(starts) - 1)
            starts.append(_write_shard(shard, samples, starts[-1], max_shard_bytes))
        names = [
            _shard_name(number) for number, (start, stop) in enumerate(pairwise(starts)) for _ in range(start, stop)
        ]
        inside = [_in_shard(sample, row, draft / names[row]) for row, sample in enumerate(samples)]
        write_manifest(draft / MANIFEST_NAME, inside)
    return [_in_shard(sample, row, folder / names[row]) for row, sample in enumerate(samples)]


def is_shard_folder(folder: Path) -> bool:
    """Whether a folder has tar files and no media beside them."""
    suffixes = {entry.suffix.lower() for entry in folder.iterdir()}
    return tar.SHARD_SUFFIX in suffixes and not suffixes & {*IMAGE_SUFFIXES, *VIDEO_SUFFIXES}


def read_shards(folder: Path) -> list[Sample]:
    """Read shards without a manifest, by their keys.

    Raises:
        ConfigError: A sample has no caption, or several media; all problems are listed.
        MediaError: A shard cannot be read.
    """
    problems = Problems(subject=str(folder))
    found = []
    for shard in sorted(folder.glob(f"*{tar.SHARD_SUFFIX}")):
        keys: dict[str, dict[str, Path]] = {}
        for name in tar.members(shard):
            stem, _, extension = Path(name).name.partition(".")
            key = (Path(name).parent / stem).as_posix()
            keys.setdefault(key, {})[f".{extension}".lower()] = shard / name
        found += [
            (where, sample)
            for key, parts in keys.items()
            if (sample := _read_sample(parts, problems, where := f"{shard.name}/{key}"))
        ]
    if not found and not problems.entries:
        problems.add(folder.name, "the shards hold no photographs or videos", "Name another folder.")
    return finish(found, problems, root=folder)


def _shard_name(number: int) -> str:
    return f"{number:05d}{tar.SHARD_SUFFIX}"


def _write_shard(draft: Path, samples: Sequence[Sample], start: int, max_bytes: int) -> int:
    """Write samples from `start` on until the shard is full; returns the first that is not in it."""
    with tarfile.open(draft, "w", format=tarfile.USTAR_FORMAT) as archive:
        row = start
        while row < len(samples) and (row == start or archive.offset < max_bytes):
            sample = samples[row]
            for path, name in _member_names(sample, row):
                _add_member(archive, name, tar.read_bytes(path))
            _add_member(archive, f"{row:08d}.txt", sample.caption.encode())
            row += 1
    return row


def _member_names(sample: Sample, row: int) -> list[tuple[Path, str]]:
    """Files of a sample, and their names in a shard. The row makes names unique over all shards."""
    references = [
        (path, f"{row:08d}.reference{number}{path.suffix.lower()}") for number, path in enumerate(sample.references)
    ]
    return [(sample.media, f"{row:08d}{sample.media.suffix.lower()}"), *references]


def _in_shard(sample: Sample, row: int, shard: Path) -> Sample:
    (_, media), *references = _member_names(sample, row)
    return replace(sample, media=shard / media, references=tuple(shard / name for _, name in references))


def _add_member(archive: tarfile.TarFile, name: str, data: bytes) -> None:
    entry = tarfile.TarInfo(name)  # Date and owner stay zero, so that equal samples give equal bytes.
    entry.size = len(data)
    archive.addfile(entry, io.BytesIO(data))


def _read_sample(paths_by_extension: dict[str, Path], problems: Problems, where: str) -> Sample | None:
    media = [path for extension, path in paths_by_extension.items() if extension in (*IMAGE_SUFFIXES, *VIDEO_SUFFIXES)]
    if len(media) != 1:
        if media:
            problems.add(where, f"there are {len(media)} media of one key", "Give each its own key.")
        return None
    record = _read_record(paths_by_extension.get(".json"), problems, where)
    text = (
        tar.read_bytes(paths_by_extension[".txt"]).decode(errors="replace")
        if ".txt" in paths_by_extension
        else record.get("caption")
    )
    caption = read_caption(text, problems, where)
    if caption is None:
        return None
    person = str(record.get("person") or "")
    return Sample(media=media[0], caption=caption, person=person, class_word=record.get("class_word"))


def _read_record(path: Path | None, problems: Problems, where: str) -> dict[str, Any]:
    if path is None:
        return {}
    data = tar.read_bytes(path)
    try:
        record = json.loads(data)
    except (ValueError, RecursionError) as error:
        problems.add(where, f"its .json is not JSON ({error})", "Write the shard again.")
        return {}
    return record if isinstance(record, dict) else {}
