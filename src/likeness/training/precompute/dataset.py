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
from likeness.training.data.datasets import EpochSampler, ShardedDataset
from likeness.training.data.pairs import TrainingData
from likeness.training.files.buckets import BatchOrder, Bucket
from likeness.training.precompute.plan import DataPlan, EncodingSettings, PlannedSample, Split, text_key
from likeness.training.precompute.run import Cache
from likeness.training.precompute.store import StoredRows

_LOG = logging.getLogger(__name__)

VALIDATION_ROWS = 64
"""Most samples of the validation set that are used."""


class EncodedDataset(ShardedDataset):
    """Targets or references that are read from a store.

    Attributes:
        buckets: The size of each target; empty for references.
        repeats: How often each target is drawn in an epoch.
    """

    is_in_memory = False

    def __init__(
        self,
        tensors: dict[str, Any],
        metadata: list[dict[str, Any]],
        *,
        buckets: Sequence[Bucket] = (),
        repeats: Sequence[int] = (),
        reference_rows: Sequence[Sequence[int]] = (),
    ) -> None:
        super().__init__(tensors, metadata)
        self.buckets, self.repeats, self.reference_rows = buckets, repeats, reference_rows

    def make_sampler(self, rows: Tensor, batch: int, seed: int) -> "BucketBatchSampler":
        """The batches of these rows, each of one bucket."""
        chosen = rows.tolist()
        return BucketBatchSampler(
            BatchOrder(
                [self.buckets[row] for row in chosen],
                batch_size=batch,
                seed=seed,
                repeats=[self.repeats[row] for row in chosen],
            )
        )


class BucketBatchSampler(EpochSampler):
    """Batches of one bucket each (`BatchOrder`)."""

    def __init__(self, order: BatchOrder) -> None:
        super().__init__(len(order), order.seed)
        self.batch_order = order

    def global_rows(self, step: int, size: int) -> Tensor:
        """Rows of a batch over all processes; `size` is that of the order, smaller at the end of a bucket."""
        assert size == self.batch_order.batch_size
        return torch.tensor(self.batch_order.batch(*self.batch_order.locate(step)).rows)


class TextStates:
    """Precomputed states of prompts by their token ids."""

    def __init__(self, cache: Cache, encoding: EncodingSettings) -> None:
        self.cache, self.encoding = cache, encoding

    def __call__(self, token_ids: Tensor) -> Tensor:
        """States (batch, tokens, width) of ids (batch, tokens)."""
        keys = [text_key(self.encoding, row) for row in token_ids.tolist()]
        return self.cache.store.read("text", keys, "states")


def open_data(plan: DataPlan, cache: Cache, choose_crops: Callable[[ShardedDataset], ShardedDataset]) -> TrainingData:
    """The encoded data of a plan.

    Args:
        plan: What the recipe needs, encoded by `precompute`.
        cache: Where it is.
        choose_crops: Chooses the crops that a method reads; it gets references with `crop` (224 px), `detail` (512 px)
            and `whole_image` (224 px).

    Raises:
        ConfigError: Nothing is left to train on.
    """
    references: dict[Split, ShardedDataset] = {}
    targets: dict[Split, dict[str, EncodedDataset]] = {}
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
        references={split: choose_crops(shards) for split, shards in references.items()},  # None of them is empty here.
        targets=dict(targets["train"]),
        validation_targets={name: _most_common(shards) for name, shards in targets["validation"].items()},
        text_states=TextStates(cache, plan.encoding),
        waited_s=lambda: cache.store.waited_s,
        face_engine=plan.encoding.engine,
    )


def _open_references(samples: list[PlannedSample], cache: Cache) -> tuple[ShardedDataset, dict[str, list[int]]]:
    """All views of a split's people, each once, and the rows of the views of each media file, by its view key."""
    metadata: list[dict[str, Any]] = []
    item_keys: list[tuple[str, str]] = []
    rows: dict[str, list[int]] = {}
    for planned in samples:
        for key, path in zip(planned.references, planned.reference_media, strict=True):
            if key in rows:
                continue
            record = cache.records.read(key) or {}
            rows[key] = list(range(len(item_keys), len(item_keys) + len(record.get("views", []))))
            item_keys += [("views", view) for view in record.get("views", [])]
            entry = {"person": planned.sample.person, "media": str(path)}
            metadata += [entry] * len(rows[key])
    names = ("crop", "detail", "whole_image", "embedding", "landmarks")
    return EncodedDataset({name: StoredRows(cache.store, item_keys, name) for name in names}, metadata), rows


def _open_targets(samples: list[PlannedSample], cache: Cache, rows: dict[str, list[int]]) -> dict[str, EncodedDataset]:
    """Targets with a face and a reference: pictures, clips and both."""
    metadata, buckets, repeats, reference_rows = [], [], [], []
    item_keys: list[tuple[tuple[str, str], tuple[str, str]]] = []
    for planned in samples:
        latents, faces = cache.records.read(planned.latents), cache.records.read(planned.targets)
        usable_rows = [row for key in planned.references for row in rows[key]]
        if not latents or not faces or not faces.get("faces") or not usable_rows:
            continue
        item_keys.append(((latents["group"], planned.latents), (faces["group"], planned.targets)))
        metadata.append({"prompt": planned.prompt, "person": planned.sample.person})
        buckets.append(Bucket(*latents["bucket"]))
        repeats.append(planned.sample.repeats)
        reference_rows.append(usable_rows)

    def choose(numbers: list[int]) -> EncodedDataset:
        tensors = {
            "latents": StoredRows(cache.store, [item_keys[n][0] for n in numbers], "latents"),
            "mask": StoredRows(cache.store, [item_keys[n][1] for n in numbers], "mask"),
            "landmarks": StoredRows(cache.store, [item_keys[n][1] for n in numbers], "landmarks"),
        }
        return EncodedDataset(
            tensors,
            [metadata[n] for n in numbers],
            buckets=[buckets[n] for n in numbers],
            repeats=[repeats[n] for n in numbers],
            reference_rows=[reference_rows[n] for n in numbers],
        )

    every = list(range(len(item_keys)))
    return {
        "images": choose([n for n in every if buckets[n].frames == 1]),
        "clips": choose([n for n in every if buckets[n].frames > 1]),
        "mixed": choose(every),
    }


def _most_common(shards: EncodedDataset) -> EncodedDataset:
    """The samples of the most frequent bucket, which can be read as one batch."""
    if not len(shards):
        return shards
    bucket = Counter(shards.buckets).most_common(1)[0][0]
    rows = [row for row, other in enumerate(shards.buckets) if other == bucket][:VALIDATION_ROWS]
    tensors = {
        name: StoredRows(values.store, [values.item_keys[row] for row in rows], name)
        for name, values in shards.tensors.items()
        if isinstance(values, StoredRows)
    }
    return EncodedDataset(
        tensors,
        [shards.metadata[row] for row in rows],
        buckets=[bucket] * len(rows),
        repeats=[shards.repeats[row] for row in rows],
        reference_rows=[shards.reference_rows[row] for row in rows],
    )
