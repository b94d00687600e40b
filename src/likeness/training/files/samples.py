"""Reads the samples of a data set, whatever its form, and holds out people for validation.

Forms: a manifest (`manifest.py`), a folder of media beside captions, the data set files of other trainers
(`layouts.py`), and folders of tar shards (`webdataset.py`).
"""

import hashlib
from collections.abc import Sequence
from pathlib import Path

from likeness.errors import ConfigError
from likeness.training.files.layouts import CONFIG_SUFFIXES, read_config, read_folder
from likeness.training.files.manifest import MANIFEST_SUFFIXES, read_manifest
from likeness.training.files.sample import Sample
from likeness.training.files.webdataset import MANIFEST_NAME, is_shard_folder, read_shards

__all__ = ["Sample", "read_samples", "rows_by_person", "split_people"]


def read_samples(path: str | Path, *, media_root: Path | None = None) -> list[Sample]:
    """Read a data set.

    Args:
        path: A manifest (`.jsonl`, `.csv`, `.parquet`); a folder of media beside `.txt` captions, where subfolders are
            people; the data set file of musubi-tuner or diffusion-pipe (`.toml`) or of finetrainers (`.json`); or a
            folder of tar shards.
        media_root: For manifests: the folder that their paths start from.

    Raises:
        ConfigError: The data set cannot be used; all problems are listed.
    """
    path = Path(path)
    if path.is_dir():
        manifests = [path / name for name in (MANIFEST_NAME, "manifest.jsonl", "manifest.csv")]
        if found := next((manifest for manifest in manifests if manifest.is_file()), None):
            return read_manifest(found, media_root=media_root)
        return read_shards(path) if is_shard_folder(path) else read_folder(path)
    if not path.exists():
        raise ConfigError(f"{path} does not exist. Name a manifest, a folder, or the data set file of a trainer.")
    if path.suffix in MANIFEST_SUFFIXES:
        return read_manifest(path, media_root=media_root)
    if path.suffix in CONFIG_SUFFIXES:
        return read_config(path)
    known = ", ".join((*MANIFEST_SUFFIXES, *CONFIG_SUFFIXES))
    raise ConfigError(f"{path} is not a data set by its suffix. Use one of {known}, or a folder.")


def rows_by_person(samples: Sequence[Sample]) -> dict[str, list[int]]:
    """Rows of each person, in order of first appearance."""
    people: dict[str, list[int]] = {}
    for row, sample in enumerate(samples):
        people.setdefault(sample.person, []).append(row)
    return people


def split_people(samples: Sequence[Sample], num_validation: int, *, seed: int = 0) -> tuple[list[Sample], list[Sample]]:
    """Hold out people: samples to train on, and samples of `num_validation` other people.

    Who is held out depends on names and seed alone, so that more data of the same people change nothing.

    Raises:
        ConfigError: No person would be left to train on.
    """
    people = rows_by_person(samples)
    if num_validation >= len(people):
        raise ConfigError(
            f"`validation_people` is {num_validation}, but there are {len(people)} people. Use fewer, or add people."
        )
    order = sorted(people, key=lambda person: hashlib.sha256(f"{seed}:{person}".encode()).digest())
    held_out = set(order[:num_validation])
    training = [sample for sample in samples if sample.person not in held_out]
    return training, [sample for sample in samples if sample.person in held_out]
