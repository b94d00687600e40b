"""Renders puppets (rendered synthetic people) into shards on disk in worker processes.

It imports no torch, so that workers start quickly.

A build that was stopped continues with the missing shards; damaged shards are rendered again.
"""

import hashlib
import multiprocessing
import os
import signal
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
from pydantic import Field

import likeness.faces
import likeness.puppets
from likeness import files
from likeness.config import Settings
from likeness.training.data import shards

if TYPE_CHECKING:
    from likeness.puppets import PuppetPerson

TRAIN_SEED = 10_000_000
"""First number of training people and clips. Tests and benchmarks use smaller numbers, so the sets are disjoint."""
PEOPLE_SEED = 5_000_000
"""First number of the people themselves; each `PuppetSettings.seed` has 100,000 of them."""


class PuppetSettings(Settings):
    """One rendered data set."""

    kind: Literal["images", "clips", "faces", "two_person"]
    """`faces` are images with their aligned head crop and dlib's embedding; `two_person` are clips of two people."""
    count: int = Field(gt=0)
    """Number of samples."""
    people: int = Field(gt=0)
    """Sample i shows person i modulo this."""
    size_px: int = Field(default=64, ge=16, le=2048, multiple_of=8)
    """Height of a frame and its width; frames of `two_person` are twice as wide."""
    num_frames: int = Field(default=17, gt=0)
    """Frames of a clip."""
    seed: int = Field(default=0, ge=0, lt=2**31)
    """Selects the people and scenes."""
    shard: int = Field(default=250, gt=0)
    """Samples in one shard."""


def render_missing(settings: PuppetSettings, cache: Path, *, processes: int | None = None) -> Iterator[tuple[int, int]]:
    """Render the missing shards of `folder()`; yields (shards done, shards in total)."""
    target = folder(settings, cache)
    total = -(-settings.count // settings.shard)
    if all(shards.is_complete(target, index, num_shard_samples(settings, index)) for index in range(total)):
        yield total, total
        return
    with shards.lock_folder(target):
        # Another process may have rendered some before this one got the lock.
        missing = [i for i in range(total) if not shards.is_complete(target, i, num_shard_samples(settings, i))]
        files.write_text(target / "settings.json", settings.model_dump_json(indent=1))
        done = total - len(missing)
        yield done, total
        for _ in _render(settings, target, missing, processes):
            done += 1
            yield done, total


def _render(settings: PuppetSettings, target: Path, missing: list[int], processes: int | None) -> Iterator[None]:
    jobs = [(settings, target, index) for index in missing]
    if processes == 0 or not jobs or (processes is None and len(jobs) == 1):
        yield from map(_render_shard, jobs)
        return
    context = multiprocessing.get_context("spawn")
    count = min(processes or os.cpu_count() or 1, len(jobs))
    with _no_imports_from_working_directory(), context.Pool(count, initializer=_init_worker) as pool:
        yield from pool.imap_unordered(_render_shard, jobs)


def num_shard_samples(settings: PuppetSettings, index: int) -> int:
    """Number of samples in shard `index`."""
    return min(settings.shard, settings.count - index * settings.shard)


def folder(settings: PuppetSettings, cache: Path) -> Path:
    """Folder of the shards of these settings, named by the settings and the version of the renderer."""
    return cache / f"{settings.kind}_{digest(settings)}"


def digest(settings: PuppetSettings) -> str:
    """A hash of the settings and the source of what makes the samples.

    It is `likeness.puppets`, and for `faces` also `likeness.faces`, which crops and embeds them.
    """
    settings_hash = hashlib.sha256(settings.model_dump_json().encode())
    packages = [likeness.puppets, likeness.faces] if settings.kind == "faces" else [likeness.puppets]
    for package in packages:
        for source in sorted(Path(package.__path__[0]).rglob("*.py")):
            settings_hash.update(source.read_bytes())
    return settings_hash.hexdigest()[:12]


def _init_worker() -> None:
    """Run at low priority, and leave Ctrl-C to the parent process."""
    os.nice(10)
    signal.signal(signal.SIGINT, signal.SIG_IGN)


@contextmanager
def _no_imports_from_working_directory() -> Iterator[None]:
    """Python processes started in the body do not import modules from the working directory."""
    before = os.environ.get("PYTHONSAFEPATH")
    os.environ["PYTHONSAFEPATH"] = "1"
    try:
        yield
    finally:
        if before is None:
            del os.environ["PYTHONSAFEPATH"]
        else:
            os.environ["PYTHONSAFEPATH"] = before


def dataset_person(settings: PuppetSettings, number: int) -> "PuppetPerson":
    """Person `number` of a data set."""
    from likeness.puppets import sample_person

    return sample_person(PEOPLE_SEED + 100_000 * settings.seed + number)


def _render_shard(job: tuple[PuppetSettings, Path, int]) -> None:
    settings, target, index = job
    first = index * settings.shard
    numbers = range(first, first + num_shard_samples(settings, index))
    samples = [_render_sample(settings, number) for number in numbers]
    arrays = {name: np.stack([arrays[name] for arrays, _ in samples]) for name in samples[0][0]}
    shards.write(target, index, arrays, [metadata for _, metadata in samples])


def _render_sample(settings: PuppetSettings, number: int) -> tuple[dict[str, np.ndarray], dict[str, Any]]:
    from likeness.puppets import sample_clip, sample_image

    if settings.kind == "two_person":
        return _render_two_person_sample(settings, number)
    person_number = number % settings.people
    person = dataset_person(settings, person_number)
    scene = TRAIN_SEED + 1_000_000 * settings.seed + number
    if settings.kind == "clips":
        clip = sample_clip(scene, person=person, num_frames=settings.num_frames, size_px=settings.size_px)
    else:
        clip = sample_image(scene, person=person, size_px=settings.size_px, zoom=1.0)
    arrays = {
        "frames": np.ascontiguousarray(clip.frames),
        "mask": np.packbits(clip.face_mask, axis=-1),
        "landmarks": np.asarray(clip.landmarks, np.float32),
    }
    if settings.kind in ("images", "clips"):
        arrays["maps"] = clip.maps
    if settings.kind == "faces":
        from likeness.faces.geometry.align import crop_head

        image, points = clip.frames[0], clip.landmarks[0]
        arrays["crop"] = crop_head(image, points, settings.size_px)
        arrays["embedding"] = _engine().embed(image, points).astype(np.float32)
    metadata = {
        "prompt": clip.prompt,
        "person": person_number,
        "group": clip.person.group,
        "action": clip.action,
        "clothing": clip.clothing,
        "setting": clip.setting,
    }
    return arrays, metadata


def _render_two_person_sample(settings: PuppetSettings, number: int) -> tuple[dict[str, np.ndarray], dict[str, Any]]:
    """Person i modulo `people` on the left; the person on the right changes with every round of people."""
    from likeness.puppets import sample_two_person_clip

    left, round_number = number % settings.people, number // settings.people
    pair = (left, (left + 1 + round_number) % settings.people)
    first, second = (dataset_person(settings, person) for person in pair)
    scene = TRAIN_SEED + 1_000_000 * settings.seed + number
    clip = sample_two_person_clip(
        scene, people=(first, second), num_frames=settings.num_frames, size_px=settings.size_px
    )
    arrays = {
        "frames": np.ascontiguousarray(clip.frames),
        "mask": np.packbits(clip.face_masks.any(axis=1), axis=-1),
        "landmarks": np.asarray(clip.landmarks, np.float32),
    }
    metadata = {
        "prompt": clip.prompt,
        "people": pair,
        "groups": [first.group, second.group],
        "actions": clip.actions,
        "clothing": clip.clothing,
        "setting": clip.setting,
    }
    return arrays, metadata


_ENGINE: list[Any] = []


def _engine() -> Any:
    if not _ENGINE:
        from likeness.faces.engines.dlib_engine import DlibEngine

        _ENGINE.append(DlibEngine())
    return _ENGINE[0]
