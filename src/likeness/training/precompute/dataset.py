"""Encoded files as the data of a trainer, read from disk row by row.

The interface is that of puppets (rendered synthetic people) in memory.
"""

import logging
from collections import Counter
from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor

from likeness.errors import ConfigError
from likeness.training.data.datasets import EpochSampler, Shards
from likeness.training.data.pairs import TrainingData
from likeness.training.files.buckets import BatchOrder, Bucket
from likeness.training.precompute.plan import DataPlan, EncodingSettings, PlannedSample, Split, text_key
from likeness.training.precompute.run import Cache
from likeness.training.precompute.store import StoredRows

_LOG = logging.getLogger(__name__)

VALIDATION_ROWS = 64
"""Most samples of the validation set that are used."""


class FileShards(Shards):
    """Targets or references that are read from a store.

    Attributes:
        buckets: The size of each target; empty for references.
        repeats: How often each target is drawn in an epoch.
    """

    is_in_memory = False

    def __init__(
        self,
        tensors: dict[str, Any],
        facts: list[dict[str, Any]],
        *,
        buckets: Sequence[Bucket] = (),
        repeats: Sequence[int] = (),
        reference_rows: Sequence[Sequence[int]] = (),
    ) -> None:
        super().__init__(tensors, facts)
        self.buckets, self.repeats, self.reference_rows = buckets, repeats, reference_rows

    def order(self, rows: Tensor, batch: int, seed: int) -> "BucketRows":
        """The batches of these rows, each of one bucket."""
        chosen = rows.tolist()
        return BucketRows(
            BatchOrder(
                [self.buckets[row] for row in chosen],
                batch_size=batch,
                seed=seed,
                repeats=[self.repeats[row] for row in chosen],
            )
        )


class BucketRows(EpochSampler):
    """Batches of one bucket each (`BatchOrder`)."""

    def __init__(self, order: BatchOrder) -> None:
        super().__init__(len(order), order.seed)
        self.batches = order

    def all_rows(self, step: int, size: int) -> Tensor:
        """Rows of a batch over all processes; `size` is that of the order, smaller at the end of a bucket."""
        assert size == self.batches.batch_size
        return torch.tensor(self.batches.batch(*self.batches.find(step)).rows)


class TextStates:
    """Precomputed states of prompts by their token ids."""

    def __init__(self, cache: Cache, encoding: EncodingSettings) -> None:
        self.cache, self.encoding = cache, encoding

    def __call__(self, token_ids: Tensor) -> Tensor:
        """States (batch, tokens, width) of ids (batch, tokens)."""
        keys = [text_key(self.encoding, row) for row in token_ids.tolist()]
        return self.cache.store.read("text", keys, "states")


def open_data(plan: DataPlan, cache: Cache, crop: Callable[[Shards], Shards]) -> TrainingData:
    """The encoded data of a plan.

    Args:
        plan: What the recipe needs, encoded by `precompute`.
        cache: Where it is.
        crop: Chooses the crops that a method reads; it gets references with `crop` (224 px), `detail` (512 px) and
            `whole_image` (224 px).

    Raises:
        ConfigError: Nothing is left to train on.
    """
    references: dict[Split, Shards] = {}
    targets: dict[Split, dict[str, FileShards]] = {}
    for split, samples in plan.samples.items():
        references[split], rows = _open_references(samples, cache)
        targets[split] = _open_targets(samples, cache, rows)
    if not targets["train"]["mixed"]:
        raise ConfigError(
            f"No sample of {plan.settings.path} is left to train on: none has a face in its frames and a reference. "
            "`skipped.jsonl` in the folder of the run lists the reasons."
        )
    if not targets["validation"]["mixed"]:
        _LOG.warning(
            "There are no validation people: set `data.validation_people` or `data.validation_path`. Sheets and the "
            "validation error show people of the training set."
        )
        targets["validation"], references["validation"] = targets["train"], references["train"]
    return TrainingData(
        references={split: crop(shards) for split, shards in references.items()},  # None of them is empty here.
        targets=dict(targets["train"]),
        validation_targets={name: _most_common(shards) for name, shards in targets["validation"].items()},
        text_states=TextStates(cache, plan.encoding),
        waited_s=lambda: cache.store.waited_s,
        face_engine=plan.encoding.engine,
    )


def _open_references(samples: list[PlannedSample], cache: Cache) -> tuple[Shards, dict[str, list[int]]]:
    """All views of a split's people, each once, and the rows of each media file's key."""
    facts: list[dict[str, Any]] = []
    places: list[tuple[str, str]] = []
    rows: dict[str, list[int]] = {}
    for one in samples:
        for key, path in zip(one.references, one.reference_media, strict=True):
            if key in rows:
                continue
            record = cache.records.read(key) or {}
            rows[key] = list(range(len(places), len(places) + len(record.get("views", []))))
            places += [("views", view) for view in record.get("views", [])]
            fact = {"person": one.sample.person, "media": str(path)}
            facts += [fact] * len(rows[key])
    names = ("crop", "detail", "whole_image", "embedding", "landmarks")
    return FileShards({name: StoredRows(cache.store, places, name) for name in names}, facts), rows


def _open_targets(samples: list[PlannedSample], cache: Cache, rows: dict[str, list[int]]) -> dict[str, FileShards]:
    """Targets with a face and a reference: pictures, clips and both."""
    facts, buckets, repeats, reference_rows = [], [], [], []
    places: list[tuple[tuple[str, str], tuple[str, str]]] = []
    for one in samples:
        latents, faces = cache.records.read(one.latents), cache.records.read(one.targets)
        own = [row for key in one.references for row in rows[key]]
        if not latents or not faces or not faces.get("faces") or not own:
            continue
        places.append(((latents["group"], one.latents), (faces["group"], one.targets)))
        facts.append({"prompt": one.prompt, "person": one.sample.person})
        buckets.append(Bucket(*latents["bucket"]))
        repeats.append(one.sample.repeats)
        reference_rows.append(own)

    def choose(numbers: list[int]) -> FileShards:
        tensors = {
            "latents": StoredRows(cache.store, [places[n][0] for n in numbers], "latents"),
            "mask": StoredRows(cache.store, [places[n][1] for n in numbers], "mask"),
            "landmarks": StoredRows(cache.store, [places[n][1] for n in numbers], "landmarks"),
        }
        return FileShards(
            tensors,
            [facts[n] for n in numbers],
            buckets=[buckets[n] for n in numbers],
            repeats=[repeats[n] for n in numbers],
            reference_rows=[reference_rows[n] for n in numbers],
        )

    every = list(range(len(places)))
    return {
        "images": choose([n for n in every if buckets[n].frames == 1]),
        "clips": choose([n for n in every if buckets[n].frames > 1]),
        "mixed": choose(every),
    }


def _most_common(shards: FileShards) -> FileShards:
    """The samples of the most frequent bucket, which can be read as one batch."""
    if not len(shards):
        return shards
    bucket = Counter(shards.buckets).most_common(1)[0][0]
    rows = [row for row, own in enumerate(shards.buckets) if own == bucket][:VALIDATION_ROWS]
    tensors = {
        name: StoredRows(values.store, [values.places[row] for row in rows], name)
        for name, values in shards.tensors.items()
        if isinstance(values, StoredRows)
    }
    return FileShards(
        tensors,
        [shards.facts[row] for row in rows],
        buckets=[bucket] * len(rows),
        repeats=[shards.repeats[row] for row in rows],
        reference_rows=[shards.reference_rows[row] for row in rows],
    )
