"""Encodes what is missing of a recipe's files; resumable, by any number of processes.

A kill loses the items that were not flushed yet; they are encoded again. What is complete is never touched.
"""

import dataclasses
import json
import logging
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from likeness import files
from likeness.errors import FaceError, MediaError
from likeness.faces.engines.base import FaceEngine
from likeness.training.engine import distributed
from likeness.training.engine.logging import TrainingLogger, format_time
from likeness.training.files.class_word import describe_undecided
from likeness.training.files.media_tensors import MediaFrames, read_media
from likeness.training.precompute import encode
from likeness.training.precompute.plan import DataPlan, PlannedSample, Records, text_key
from likeness.training.precompute.store import Store

_LOG = logging.getLogger(__name__)

FLUSH_S = 30.0
"""Seconds after which encoded items are written, which is the most that a kill costs."""
MAX_SHARD_ITEMS = 256
"""Most items of a shard."""
FILE_ERRORS = (FaceError, MediaError)
"""What is the fault of a file, and is recorded for it. Other errors, such as missing weights of the face engine, say
nothing about the file: they end the run, and nothing is recorded."""
SKIPPED = "skipped.jsonl"
"""File in the run's folder with the files and captions that are left out, and why."""


@dataclass(kw_only=True)
class Cache:
    """The folder of a cache: tensors and records."""

    folder: Path
    store: Store = field(init=False)
    records: Records = field(init=False)

    def __post_init__(self) -> None:
        self.store, self.records = Store(self.folder / "items"), Records(self.folder / "records")


@dataclass(frozen=True, kw_only=True)
class Encoders:
    """What encodes; parts are built when they are first needed, so that a complete cache loads no model."""

    latents: Callable[[], encode.LatentEncoder]
    text: Callable[[], encode.TextEncoder]
    engine: Callable[[], FaceEngine]
    tokenize: Callable[[Sequence[str]], list[Tensor]]
    """From prompts to the token ids that training reads: with one and two references, plain; and the empty prompt."""


def precompute(plan: DataPlan, cache: Cache, encoders: Encoders, logger: TrainingLogger) -> None:
    """Encode everything that is missing, this process's share of it; all processes return when all is done."""
    job = _PrecomputeJob(plan, cache, encoders, logger)
    for step in (job.encode_views, job.encode_targets, job.encode_text):
        step()
        job.writer.flush()
        distributed.barrier()
        cache.store.refresh()
    if distributed.rank() == 0:
        _write_skipped_list(plan, cache, job.samples, logger)
    distributed.barrier()


class _Writer:
    """Collects items and writes them in shards, each followed by the records that depend on it."""

    def __init__(self, cache: Cache) -> None:
        self.cache = cache
        self.items: dict[str, list[tuple[str, dict[str, Tensor]]]] = {}
        self.records: list[tuple[str, dict[str, Any]]] = []
        self.last_s = time.monotonic()

    def add(self, group: str, key: str, tensors: dict[str, Tensor]) -> None:
        self.items.setdefault(group, []).append((key, tensors))

    def add_record(self, key: str, record: dict[str, Any]) -> None:
        """A record, written after all items that were added before."""
        self.records.append((key, record))
        if time.monotonic() - self.last_s > FLUSH_S or max(map(len, self.items.values()), default=0) >= MAX_SHARD_ITEMS:
            self.flush()

    def flush(self) -> None:
        for group, items in self.items.items():
            names = items[0][1]
            tensors = {name: torch.stack([parts[name] for _, parts in items]) for name in names}
            self.cache.store.write(group, [key for key, _ in items], tensors)
        for key, record in self.records:
            self.cache.records.write(key, record)
        self.items, self.records, self.last_s = {}, [], time.monotonic()


def _local_items(missing: Sequence[tuple[str, Any]]) -> list[tuple[str, Any]]:
    """The items of this process: by key, so that processes that began at different times agree."""
    rank, processes = distributed.rank(), distributed.world_size()
    return [(key, value) for key, value in missing if int(key[:8], 16) % processes == rank]


def _progress(items: Sequence[Any], what: str, logger: TrainingLogger, known: int) -> Iterator[Any]:
    """The items, with a line on progress and the time left every few seconds."""
    begun_s = shown_s = time.monotonic()
    total = len(items)
    if total:
        logger.info(f"{what}: {known} known, {total} to do in this process")
    for done, item in enumerate(items):
        now_s = time.monotonic()
        if now_s - shown_s > 5 and done:
            left_s = (now_s - begun_s) / done * (total - done)
            logger.info(f"{what}: {done} of {total}, {done / (now_s - begun_s):.3g}/s, {format_time(left_s)} left")
            shown_s = now_s
        yield item
    if total:
        logger.info(f"{what}: {total} of {total} in {format_time(time.monotonic() - begun_s)}")


def _is_encoded(key: str, cache: Cache) -> bool:
    """Whether a key has a record, and all items that the record describes; shards may be damaged or removed later."""
    record = cache.records.read(key)
    if record is None or "error" in record:
        return record is not None
    group, items = (record["group"], [key]) if "group" in record else ("views", record["views"])
    return not cache.store.missing(group, items)


class _PrecomputeJob:
    """The steps of `precompute`."""

    def __init__(self, plan: DataPlan, cache: Cache, encoders: Encoders, logger: TrainingLogger) -> None:
        self.plan, self.settings, self.cache, self.encoders, self.logger = plan, plan.settings, cache, encoders, logger
        self.samples = [sample for part in plan.samples.values() for sample in part]
        self.writer = _Writer(cache)
        encoding = plan.encoding
        self.grid = plan.settings.grid(frame_step=encoding.frame_step, side_step_px=encoding.side_step_px)

    def encode_views(self) -> None:
        """Faces of references."""
        settings, writer = self.settings, self.writer
        keys = {
            k: path
            for planned in self.samples
            for k, path in zip(planned.references, planned.reference_media, strict=True)
        }
        missing = [(key, path) for key, path in keys.items() if not _is_encoded(key, self.cache)]
        for key, path in _progress(_local_items(missing), "reference faces", self.logger, len(keys) - len(missing)):
            try:
                faces = encode.find_views(
                    path,
                    self.encoders.engine(),
                    num_views=settings.num_views,
                    min_score=settings.min_face_score,
                    fps=settings.fps,
                )
            except FILE_ERRORS as error:
                writer.add_record(key, {"error": encode.describe_failure(error)})
                continue
            views = []
            for number, face in enumerate(faces):
                assert face.detail is not None
                assert face.whole_image is not None
                views.append(f"{key}.{number}")
                tensors = {
                    "crop": torch.tensor(face.crop),
                    "detail": torch.tensor(face.detail),
                    "whole_image": torch.tensor(face.whole_image),
                    "embedding": torch.tensor(np.asarray(face.embedding, np.float32)),
                    "landmarks": torch.tensor(np.asarray(face.landmarks, np.float32))[None],
                }
                writer.add("views", views[-1], tensors)
            writer.add_record(key, {"views": views, "poses": [dataclasses.astuple(face.pose) for face in faces]})

    def encode_targets(self) -> None:
        """Faces of targets and, where there is one, latents. Each file is decoded once."""
        keys = {(planned.targets, planned.latents): planned for planned in self.samples}
        missing = [(target_keys[0], planned) for target_keys, planned in keys.items() if not self._has_target(planned)]
        for _, planned in _progress(_local_items(missing), "targets", self.logger, len(keys) - len(missing)):
            try:
                media = read_media(planned.sample.media, self.grid, fps=self.settings.fps)
            except FILE_ERRORS as error:
                self.writer.add_record(planned.targets, {"error": encode.describe_failure(error)})
                continue
            if _is_encoded(planned.targets, self.cache):
                has_face = bool((self.cache.records.read(planned.targets) or {}).get("faces"))
            else:
                has_face = self._add_faces(planned, media)
            if has_face and not _is_encoded(planned.latents, self.cache):
                group = _group_name("latents", media.bucket)
                self.writer.add(group, planned.latents, {"latents": self.encoders.latents()(media)})
                bucket = [media.bucket.frames, media.bucket.height_px, media.bucket.width_px]
                self.writer.add_record(planned.latents, {"group": group, "bucket": bucket})

    def _has_target(self, planned: PlannedSample) -> bool:
        """Whether faces and, if there are any, latents of a target are known."""
        if not _is_encoded(planned.targets, self.cache):
            return False
        has_face = (self.cache.records.read(planned.targets) or {}).get("faces")
        return not has_face or _is_encoded(planned.latents, self.cache)

    def _add_faces(self, planned: PlannedSample, media: MediaFrames) -> bool:
        """Find the person's face in each latent frame; returns whether there is one."""
        mask, landmarks = encode.find_targets(
            media,
            self.encoders.engine(),
            min_score=self.settings.min_face_score,
            person=_embeddings(planned, self.cache),
        )
        group = _group_name("targets", media.bucket)
        count = int(torch.isfinite(landmarks).all(dim=(1, 2)).sum())
        self.writer.add(group, planned.targets, {"mask": mask, "landmarks": landmarks})
        self.writer.add_record(planned.targets, {"group": group, "faces": count})
        return count > 0

    def encode_text(self) -> None:
        """States of all prompts, and of the empty one."""
        ids: dict[str, Tensor] = {}
        for prompt in dict.fromkeys(["", *(planned.prompt for planned in self.samples)]):
            ids |= {text_key(self.plan.encoding, row.tolist()): row for row in self.encoders.tokenize([prompt])}
        missing = [key for key, _ in _local_items([(key, None) for key in self.cache.store.missing("text", ids)])]
        for key in _progress(missing, "prompts", self.logger, len(ids) - len(missing)):
            self.writer.add("text", key, {"states": self.encoders.text()(ids[key][None])[0]})
            if len(self.writer.items["text"]) >= MAX_SHARD_ITEMS // 4:
                self.writer.flush()


def _embeddings(planned: PlannedSample, cache: Cache) -> list[np.ndarray]:
    """Embeddings of the references of a sample, to recognize the person among several."""
    views = [view for key in planned.references for view in (cache.records.read(key) or {}).get("views", [])[:1]]
    return list(cache.store.read("views", views[:8], "embedding").numpy()) if views else []


def _group_name(kind: str, bucket: Any) -> str:
    return f"{kind}_{bucket.frames}x{bucket.height_px}x{bucket.width_px}"


def _write_skipped_list(plan: DataPlan, cache: Cache, samples: list[PlannedSample], logger: TrainingLogger) -> None:
    """Write the list of what is left out, and say how much it is."""
    skipped: dict[str, str] = {}
    for planned in samples:
        faces = cache.records.read(planned.targets) or {}
        if error := faces.get("error") or ("" if faces.get("faces") else "no face was found in its frames"):
            skipped[str(planned.sample.media)] = error
        for key, path in zip(planned.references, planned.reference_media, strict=True):
            if error := (cache.records.read(key) or {}).get("error"):
                skipped[str(path)] = error
    lines = [json.dumps({"file": name, "reason": reason}) for name, reason in skipped.items()]
    lines += [json.dumps({"caption": text}) for text in plan.undecided]
    target = logger.path.parent / SKIPPED
    files.write_text(target, "".join(f"{line}\n" for line in lines))
    if skipped:
        total = len({path for planned in samples for path in (planned.sample.media, *planned.reference_media)})
        name, reason = next(iter(skipped.items()))
        _LOG.warning(
            "files left out: %d of %d, listed with reasons in %s; the first: %s",
            len(skipped),
            total,
            target,
            reason if name in reason else f"{name}: {reason}",
        )
    if plan.undecided:
        _LOG.warning("%s", describe_undecided(plan.undecided, plan.num_captions, num_listed=8))
    logger.info(f"{cache.folder}: {cache.store.size_bytes() / 1e9:.3g} GB")
