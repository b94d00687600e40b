"""Data sets as tensors, and the order in which rows are read: a function of seed and step, so that a run can resume."""

import copy
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Self

import numpy as np
import torch
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor

from likeness.errors import CheckpointError, ConfigError
from likeness.training.data import render_puppets, shards
from likeness.training.engine import distributed
from likeness.training.engine.logging import TrainingLogger

MAX_STATISTICS_ROWS = 4096
"""Samples of data on disk that statistics, such as a mean, are computed of."""


class ShardedDataset:
    """A data set in memory: named tensors with one row a sample, and the metadata (prompt, person) of each."""

    reference_rows: Sequence[Sequence[int]] = ()
    """For data from files, rows of the references that each target may be shown with."""
    is_in_memory = True

    def __init__(self, tensors: dict[str, Tensor], metadata: list[dict[str, Any]]) -> None:
        self.tensors = tensors
        self.metadata = metadata

    def __len__(self) -> int:
        return len(self.metadata)

    def __getitem__(self, name: str) -> Tensor:
        return self.tensors[name]

    def with_tensor(self, name: str, values: Tensor) -> Self:
        """The same samples with one more tensor, (samples, ...)."""
        changed = copy.copy(self)
        changed.tensors = {**self.tensors, name: values}
        return changed

    def statistics_sample(self, name: str) -> Tensor:
        """The samples that a tensor's statistics are computed of: all of data in memory, else the first of them.

        Shapes:
            returns: (samples, ...), at most `MAX_STATISTICS_ROWS` of data on disk
        """
        return self.tensors[name] if self.is_in_memory else self.tensors[name][:MAX_STATISTICS_ROWS]

    def make_sampler(self, rows: Tensor, batch: int, seed: int) -> "EpochSampler":
        """The order in which batches of these rows are read."""
        del batch
        return EpochSampler(len(rows), seed)

    @classmethod
    def read(cls, folder: Path, names: tuple[str, ...] | None = None, *, count: int | None = None) -> "ShardedDataset":
        """Read every complete shard of a folder; `names` selects tensors.

        Raises:
            ConfigError: The folder has no shards.
            CheckpointError: A shard is damaged, or there are not `count` samples.
        """
        metadata: list[dict[str, Any]] = []
        parts: dict[str, list[Tensor]] = {}
        for path in sorted(folder.glob("[0-9]*.json")):
            metadata.extend(shards.read_metadata(path))
            for name, value in read_tensors(path.with_suffix(".safetensors")).items():
                if names is None or name in names:
                    parts.setdefault(name, []).append(value)
        if not metadata:
            raise ConfigError(f"No shards in {folder}: at least one is needed. Delete the folder to build it again.")
        tensors = {name: torch.cat(pieces) for name, pieces in parts.items()}
        expected = len(metadata) if count is None else count
        if any(len(rows) != expected for rows in (metadata, *tensors.values())):
            raise CheckpointError(
                f"{folder} holds {len(metadata)} samples; expected {expected} of every tensor. "
                "Delete the folder; the same command makes it again."
            )
        return cls(tensors, metadata)

    def group_rows(self, key: str) -> dict[Any, list[int]]:
        """Rows grouped by the value of a metadata field, for example all rows of each person."""
        rows: dict[Any, list[int]] = {}
        for row, entry in enumerate(self.metadata):
            rows.setdefault(entry[key], []).append(row)
        return rows


def load_puppets(
    settings: render_puppets.PuppetSettings, cache: Path, logger: TrainingLogger, names: tuple[str, ...] | None = None
) -> ShardedDataset:
    """Render the missing shards of a data set, then read it."""
    ensure_rendered(settings, cache, logger)
    return ShardedDataset.read(render_puppets.folder(settings, cache), names, count=settings.count)


def ensure_rendered(settings: render_puppets.PuppetSettings, cache: Path, logger: TrainingLogger) -> None:
    """Render the missing shards of a data set in process 0; the other processes wait."""
    if distributed.rank() == 0:
        for done, total in render_puppets.render_missing(settings, cache):
            logger.info(f"rendering {settings.kind}: {done} of {total} shards")
    distributed.barrier()


def read_tensors(path: Path) -> dict[str, Tensor]:
    """The tensors of one shard.

    Raises:
        CheckpointError: The file is damaged.
    """
    try:
        return load_file(path)
    except (OSError, SafetensorError) as error:
        raise shards.damaged_shard(path, error) from error


class EpochSampler:
    """The rows of each step: a new permutation every epoch, computed from seed and step."""

    def __init__(self, count: int, seed: int) -> None:
        self.count = count
        self.seed = seed
        self.epochs: dict[int, np.ndarray] = {}

    def local_rows(self, step: int, size: int) -> Tensor:
        """Rows of this process's share of a batch."""
        return self.global_rows(step, size)[distributed.rank() :: distributed.world_size()]

    def global_rows(self, step: int, size: int) -> Tensor:
        """Rows of a batch of `size` samples over all processes."""
        return torch.tensor([self._row(*divmod(index, self.count)) for index in range(step * size, (step + 1) * size)])

    def _row(self, epoch: int, index: int) -> int:
        if epoch not in self.epochs:
            self.epochs = {old: rows for old, rows in self.epochs.items() if old >= epoch - 1}
            self.epochs[epoch] = np.random.default_rng((self.seed, epoch)).permutation(self.count)
        return int(self.epochs[epoch][index])


def to_float(frames: Tensor) -> Tensor:
    """uint8 (batch, frames, height, width, channels) to [-1, 1], (batch, frames, channels, height, width)."""
    return frames.movedim(-1, 2).float().div_(127.5).sub_(1.0)


def crops_to_references(crops: Tensor) -> Tensor:
    """Crops as uint8 (people, height, width, 3) to one reference each, (people, 1, 3, height, width) in [-1, 1]."""
    return crops.movedim(-1, 1).float()[:, None] / 127.5 - 1


def jitter_crops(crops: Tensor, rows: Tensor) -> Tensor:
    """Crops of these rows (of any shape) with a random shift: (*rows, 3, height, width) in [-1, 1]."""
    margin = crops.shape[1] // 16
    top, left = (int(x) for x in torch.randint(margin + 1, (2,)))
    size = crops.shape[1] - margin
    pixels = crops_to_references(crops[rows.flatten()][:, top : top + size, left : left + size])[:, 0]
    return pixels.unflatten(0, tuple(rows.shape))


def to_uint8(frames: Tensor) -> np.ndarray:
    """[-1, 1] with channels before height and width to uint8 with channels last."""
    return ((frames.float().clamp(-1, 1) + 1) * 127.5).round().to(torch.uint8).movedim(-3, -1).cpu().numpy()


def unpack_mask(mask: Tensor) -> Tensor:
    """Packed bits (..., height, width / 8) to booleans (..., height, width)."""
    return torch.from_numpy(np.unpackbits(mask.numpy(), axis=-1)).bool()
