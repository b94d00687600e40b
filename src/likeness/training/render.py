"""Puppets into shards on disk, by worker processes. It knows nothing of torch, so that workers start quickly.

A shard is one safetensors file and one JSON file beside it; the JSON is written last, so a shard that has one is
complete, and a build that was stopped goes on where it was.
"""

import hashlib
import json
import multiprocessing
import os
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
from pydantic import Field
from safetensors.numpy import save_file

import likeness.puppets
from likeness.config import Settings

if TYPE_CHECKING:
    from likeness.puppets import Person

TRAIN_SEED = 10_000_000
"""Training people and clips are numbered from here; tests and benchmarks stay below, so they never meet."""
PEOPLE_SEED = 5_000_000


class PuppetSettings(Settings):
    """One set of renders."""

    kind: Literal["pictures", "clips", "faces", "duos"]
    """`faces` are pictures with their aligned head crop and dlib's embedding; `duos` are clips of two people."""
    count: int = Field(gt=0)
    """Samples in all."""
    people: int = Field(gt=0)
    """Sample i shows person i modulo this."""
    size_px: int = 64
    """Side of a frame; those of `duos` are twice as wide."""
    num_frames: int = 17
    """Frames of a clip."""
    seed: int = 0
    """Another seed gives other people and other scenes."""
    shard: int = 250
    """Samples in one shard."""


def build(
    settings: PuppetSettings, cache: Path, *, processes: int | None = None
) -> Iterator[tuple[int, int]]:
    """Render what is missing, reporting (shards done, shards in all) as it goes. The shards lie in `folder()`."""
    target = folder(settings, cache)
    target.mkdir(parents=True, exist_ok=True)
    (target / "settings.json").write_text(settings.model_dump_json(indent=1))
    total = -(-settings.count // settings.shard)
    missing = [index for index in range(total) if not (target / f"{index:05d}.json").exists()]
    done = total - len(missing)
    yield done, total
    if not missing:
        return
    jobs = [(settings, target, index) for index in missing]
    if processes == 0:
        for job in jobs:
            _render_shard(job)
            done += 1
            yield done, total
        return
    context = multiprocessing.get_context("spawn")
    with context.Pool(min(processes or os.cpu_count() or 1, len(jobs)), initializer=_be_nice) as pool:
        for _ in pool.imap_unordered(_render_shard, jobs):
            done += 1
            yield done, total


def folder(settings: PuppetSettings, cache: Path) -> Path:
    """Where the shards of these settings are: the name follows from the settings and from how puppets are drawn."""
    digest = hashlib.sha256(settings.model_dump_json().encode())
    for source in sorted(Path(likeness.puppets.__file__).parent.glob("*.py")):
        digest.update(source.read_bytes())
    return cache / f"{settings.kind}_{digest.hexdigest()[:12]}"


def _be_nice() -> None:
    os.nice(10)


def person_of(settings: PuppetSettings, who: int) -> "Person":
    """The person that a set numbers `who`."""
    from likeness.puppets import sample_person

    return sample_person(PEOPLE_SEED + 100_000 * settings.seed + who)


def _render_shard(job: tuple[PuppetSettings, Path, int]) -> None:
    settings, target, index = job
    first = index * settings.shard
    samples = [
        _sample(settings, number) for number in range(first, min(first + settings.shard, settings.count))
    ]
    arrays = {name: np.stack([arrays[name] for arrays, _ in samples]) for name in samples[0][0]}
    partial = target / f"{index:05d}.partial"
    save_file(arrays, partial)
    partial.rename(target / f"{index:05d}.safetensors")
    partial.write_text(json.dumps([facts for _, facts in samples]))
    partial.rename(target / f"{index:05d}.json")


def _sample(settings: PuppetSettings, number: int) -> tuple[dict[str, np.ndarray], dict[str, Any]]:
    from likeness.puppets import sample_clip, sample_picture

    if settings.kind == "duos":
        return _sample_duo(settings, number)
    who = number % settings.people
    person = person_of(settings, who)
    scene = TRAIN_SEED + 1_000_000 * settings.seed + number
    if settings.kind == "clips":
        clip = sample_clip(scene, person=person, num_frames=settings.num_frames, size_px=settings.size_px)
    else:
        clip = sample_picture(scene, person=person, size_px=settings.size_px, zoom=1.0)
    arrays = {
        "frames": np.ascontiguousarray(clip.frames),
        "mask": np.packbits(clip.face_mask, axis=-1),
        "landmarks": np.asarray(clip.landmarks, np.float32),
    }
    if settings.kind in ("pictures", "clips"):
        arrays["maps"] = clip.maps
    if settings.kind == "faces":
        from likeness.faces.geometry import crop_head

        picture, points = clip.frames[0], clip.landmarks[0]
        arrays["crop"] = crop_head(picture, points, settings.size_px)
        arrays["embedding"] = _engine().embed(picture, points).astype(np.float32)
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
    from likeness.puppets import sample_duo

    left, turn = number % settings.people, number // settings.people
    who = (left, (left + 1 + turn) % settings.people)
    first, second = (person_of(settings, person) for person in who)
    scene = TRAIN_SEED + 1_000_000 * settings.seed + number
    clip = sample_duo(scene, people=(first, second), num_frames=settings.num_frames, size_px=settings.size_px)
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
        from likeness.faces.dlib_engine import DlibEngine

        _ENGINE.append(DlibEngine())
    return _ENGINE[0]
