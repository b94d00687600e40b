"""Shards as tensors, and the order in which they are read: a function of seed and step, so that a run can resume."""

from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor

from likeness.errors import CheckpointError, ConfigError
from likeness.training.data import render_puppets, shards
from likeness.training.engine import distributed
from likeness.training.engine.logging import Journal


class Shards:
    """A set of samples in memory: named tensors with one row a sample, and one record of facts a sample."""

    def __init__(self, tensors: dict[str, Tensor], facts: list[dict[str, Any]]) -> None:
        self.tensors = tensors
        self.facts = facts

    def __len__(self) -> int:
        return len(self.facts)

    def __getitem__(self, name: str) -> Tensor:
        return self.tensors[name]

    @classmethod
    def read(cls, folder: Path, names: tuple[str, ...] | None = None, *, count: int | None = None) -> "Shards":
        """Every complete shard of a folder; `names` picks tensors.

        Raises:
            ConfigError: There is none.
            CheckpointError: One is damaged, or there are not `count` samples.
        """
        facts: list[dict[str, Any]] = []
        parts: dict[str, list[Tensor]] = {}
        for path in sorted(folder.glob("[0-9]*.json")):
            facts.extend(shards.read_facts(path))
            for name, value in read_tensors(path.with_suffix(".safetensors")).items():
                if names is None or name in names:
                    parts.setdefault(name, []).append(value)
        if not facts:
            raise ConfigError(f"No shards in {folder}: at least one is needed. Delete the folder to build it again.")
        tensors = {name: torch.cat(pieces) for name, pieces in parts.items()}
        wanted = len(facts) if count is None else count
        if any(len(rows) != wanted for rows in (facts, *tensors.values())):
            raise CheckpointError(
                f"{folder} holds {len(facts)} samples, not {wanted} of everything. "
                "Delete the folder; the same command makes it again."
            )
        return cls(tensors, facts)

    def rows_of(self, key: str) -> dict[Any, list[int]]:
        """Rows by the value of a fact, say all rows of a person."""
        rows: dict[Any, list[int]] = {}
        for row, fact in enumerate(self.facts):
            rows.setdefault(fact[key], []).append(row)
        return rows


def puppets(
    settings: render_puppets.PuppetSettings, cache: Path, journal: Journal, names: tuple[str, ...] | None = None
) -> Shards:
    """Render what is missing of a set, then read it."""
    render_all(settings, cache, journal)
    return Shards.read(render_puppets.folder(settings, cache), names, count=settings.count)


def render_all(settings: render_puppets.PuppetSettings, cache: Path, journal: Journal) -> None:
    """Render what is missing of a set; processes wait for the one that does."""
    if distributed.rank() == 0:
        for done, total in render_puppets.build(settings, cache):
            journal.say(f"rendering {settings.kind}: {done} of {total} shards")
    distributed.wait()


def read_tensors(path: Path) -> dict[str, Tensor]:
    """The tensors of one shard.

    Raises:
        CheckpointError: The file is damaged.
    """
    try:
        return load_file(path)
    except (OSError, SafetensorError) as error:
        raise shards.damaged(path, error) from error


class Order:
    """This process's rows by step: every epoch a new permutation, nothing to save."""

    def __init__(self, count: int, seed: int) -> None:
        self.count = count
        self.seed = seed
        self.epochs: dict[int, np.ndarray] = {}

    def rows(self, step: int, size: int) -> Tensor:
        places = range(step * size + distributed.rank(), (step + 1) * size, distributed.world())
        return torch.tensor([self._row(*divmod(place, self.count)) for place in places])

    def _row(self, epoch: int, place: int) -> int:
        if epoch not in self.epochs:
            self.epochs = {old: rows for old, rows in self.epochs.items() if old >= epoch - 1}
            self.epochs[epoch] = np.random.default_rng((self.seed, epoch)).permutation(self.count)
        return int(self.epochs[epoch][place])


def to_float(frames: Tensor) -> Tensor:
    """Bytes (batch, frames, height, width, channels) to [-1, 1], (batch, frames, channels, height, width)."""
    return frames.movedim(-1, 2).float().div_(127.5).sub_(1.0)


def to_pixels(crops: Tensor) -> Tensor:
    """Crops as bytes (people, height, width, 3) to one reference each, (people, 1, 3, height, width) in [-1, 1]."""
    return crops.movedim(-1, 1).float()[:, None] / 127.5 - 1


def jitter_crops(crops: Tensor, rows: Tensor) -> Tensor:
    """Crops of these rows (any shape), framed a little differently each time: (*rows, 3, height, width) in [-1, 1]."""
    margin = crops.shape[1] // 16
    top, left = (int(x) for x in torch.randint(margin + 1, (2,)))
    size = crops.shape[1] - margin
    pixels = to_pixels(crops[rows.flatten()][:, top : top + size, left : left + size])[:, 0]
    return pixels.unflatten(0, tuple(rows.shape))


def jitter_landmarks(points: Tensor, shift: float = 0.05, scale: float = 0.05) -> Tensor:
    """Landmarks (batch, points, 2) of faces moved and grown by shares of their width, at random."""
    center = points.mean(dim=1, keepdim=True)
    reach = (points.amax(dim=1, keepdim=True) - points.amin(dim=1, keepdim=True)).amax(dim=2, keepdim=True)
    grown = 1 + scale * torch.randn(len(points), 1, 1)
    return center + (points - center) * grown + shift * reach * torch.randn(len(points), 1, 2)


def to_bytes(frames: Tensor) -> np.ndarray:
    """[-1, 1] with channels before height and width to bytes with channels last."""
    return ((frames.float().clamp(-1, 1) + 1) * 127.5).round().to(torch.uint8).movedim(-3, -1).numpy()


def unpack_mask(mask: Tensor) -> Tensor:
    """Packed bits (..., height, width / 8) to booleans (..., height, width)."""
    return torch.from_numpy(np.unpackbits(mask.numpy(), axis=-1)).bool()
