"""Puppets into shards on disk, by worker processes. It knows nothing of torch, so that workers start quickly.

A build that was stopped goes on where it was, and makes again what is damaged.
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

import likeness.puppets
from likeness import files
from likeness.config import Settings
from likeness.training.data import shards

if TYPE_CHECKING:
    from likeness.puppets import PuppetPerson

TRAIN_SEED = 10_000_000
"""Training people and clips are numbered from here; tests and benchmarks stay below, so they never meet."""
PEOPLE_SEED = 5_000_000


class PuppetSettings(Settings):
    """One set of renders."""

    kind: Literal["images", "clips", "faces", "two_person"]
    """`faces` are images with their aligned head crop and dlib's embedding; `two_person` are clips of two people."""
    count: int = Field(gt=0)
    """Samples in all."""
    people: int = Field(gt=0)
    """Sample i shows person i modulo this."""
    size_px: int = Field(default=64, ge=16, le=2048, multiple_of=8)
    """Side of a frame; those of `two_person` are twice as wide."""
    num_frames: int = Field(default=17, gt=0)
    """Frames of a clip."""
    seed: int = Field(default=0, ge=0, lt=2**31)
    """Another seed gives other people and other scenes."""
    shard: int = Field(default=250, gt=0)
    """Samples in one shard."""


def build(settings: PuppetSettings, cache: Path, *, processes: int | None = None) -> Iterator[tuple[int, int]]:
    """Render what is missing, reporting (shards done, shards in all) as it goes. The shards lie in `folder()`."""
    target = folder(settings, cache)
    total = -(-settings.count // settings.shard)
    if all(shards.is_complete(target, index, samples_in(settings, index)) for index in range(total)):
        yield total, total
        return
    with shards.building(target):
        # Others may have made some meanwhile.
        missing = [i for i in range(total) if not shards.is_complete(target, i, samples_in(settings, i))]
        files.write_text(target / "settings.json", settings.model_dump_json(indent=1))
        done = total - len(missing)
        yield done, total
        for _ in _render(settings, target, missing, processes):
            done += 1
            yield done, total


def _render(settings: PuppetSettings, target: Path, missing: list[int], processes: int | None) -> Iterator[None]:
    jobs = [(settings, target, index) for index in missing]
    if processes == 0 or not jobs:
        yield from map(_render_shard, jobs)
        return
    context = multiprocessing.get_context("spawn")
    count = min(processes or os.cpu_count() or 1, len(jobs))
    with _safe_path(), context.Pool(count, initializer=_begin_worker) as pool:
        yield from pool.imap_unordered(_render_shard, jobs)


def samples_in(settings: PuppetSettings, index: int) -> int:
    """Samples in shard `index`."""
    return min(settings.shard, settings.count - index * settings.shard)


def folder(settings: PuppetSettings, cache: Path) -> Path:
    """Where the shards of these settings are: the name follows from the settings and from how puppets are drawn."""
    return cache / f"{settings.kind}_{digest(settings)}"


def digest(settings: PuppetSettings) -> str:
    """What the samples follow from: the settings, and how puppets are drawn."""
    found = hashlib.sha256(settings.model_dump_json().encode())
    for source in sorted(Path(likeness.puppets.__file__).parent.rglob("*.py")):
        found.update(source.read_bytes())
    return found.hexdigest()[:12]


def _begin_worker() -> None:
    """Leave the machine to others, and Ctrl-C to the process that started this one."""
    os.nice(10)
    signal.signal(signal.SIGINT, signal.SIG_IGN)


@contextmanager
def _safe_path() -> Iterator[None]:
    """Python started meanwhile does not look for modules in the working directory, where anybody's may lie."""
    before = os.environ.get("PYTHONSAFEPATH")
    os.environ["PYTHONSAFEPATH"] = "1"
    try:
        yield
    finally:
        if before is None:
            del os.environ["PYTHONSAFEPATH"]
        else:
            os.environ["PYTHONSAFEPATH"] = before


def person_of(settings: PuppetSettings, who: int) -> "PuppetPerson":
    """The person that a set numbers `who`."""
    from likeness.puppets import sample_person

    return sample_person(PEOPLE_SEED + 100_000 * settings.seed + who)


def _render_shard(job: tuple[PuppetSettings, Path, int]) -> None:
    settings, target, index = job
    first = index * settings.shard
    numbers = range(first, first + samples_in(settings, index))
    samples = [_sample(settings, number) for number in numbers]
    arrays = {name: np.stack([arrays[name] for arrays, _ in samples]) for name in samples[0][0]}
    shards.write(target, index, arrays, [facts for _, facts in samples])


def _sample(settings: PuppetSettings, number: int) -> tuple[dict[str, np.ndarray], dict[str, Any]]:
    from likeness.puppets import sample_clip, sample_image

    if settings.kind == "two_person":
        return _sample_duo(settings, number)
    who = number % settings.people
    person = person_of(settings, who)
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
    facts = {
        "prompt": clip.prompt,
        "person": who,
        "group": clip.person.group,
        "action": clip.action,
        "clothing": clip.clothing,
        "setting": clip.setting,
    }
    return arrays, facts


def _sample_duo(settings: PuppetSettings, number: int) -> tuple[dict[str, np.ndarray], dict[str, Any]]:
    """Person i modulo `people` at the left, and another one, who changes from round to round, at the right."""
    from likeness.puppets import sample_two_person_clip

    left, turn = number % settings.people, number // settings.people
    who = (left, (left + 1 + turn) % settings.people)
    first, second = (person_of(settings, person) for person in who)
    scene = TRAIN_SEED + 1_000_000 * settings.seed + number
    clip = sample_two_person_clip(
        scene, people=(first, second), num_frames=settings.num_frames, size_px=settings.size_px
    )
    arrays = {
        "frames": np.ascontiguousarray(clip.frames),
        "mask": np.packbits(clip.face_masks.any(axis=1), axis=-1),
        "landmarks": np.asarray(clip.landmarks, np.float32),
    }
    facts = {
        "prompt": clip.prompt,
        "people": who,
        "groups": [first.group, second.group],
        "actions": clip.actions,
        "clothing": clip.clothing,
        "setting": clip.setting,
    }
    return arrays, facts


_ENGINE: list[Any] = []


def _engine() -> Any:
    if not _ENGINE:
        from likeness.faces.engines.dlib_engine import DlibEngine

        _ENGINE.append(DlibEngine())
    return _ENGINE[0]
