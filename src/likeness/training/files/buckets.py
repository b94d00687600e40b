"""Sizes that batches have, which of them a sample gets, and the order of batches.

A video model takes frames of one size in a batch. `BucketGrid` lists the sizes of a recipe, and `find_bucket` chooses
the one that crops a sample least. `BatchOrder` is a pure function of (seed, epoch, position): nothing but those three
numbers is needed to resume, whatever the number of processes.
"""

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import lru_cache

import numpy as np

from likeness.errors import ConfigError, MediaError

MAX_ASPECT = 2.0
"""Buckets are at most this many times as wide as high, or as high as wide."""
NUM_ASPECTS = 9
"""Aspect ratios, evenly spaced in their logarithm: a sample between two of them loses at most 9 % of one side."""


@dataclass(frozen=True, order=True, slots=True)
class Bucket:
    """Size of the samples of a batch."""

    frames: int
    """1 for pictures."""
    height_px: int
    width_px: int

    @property
    def aspect(self) -> float:
        """Width divided by height."""
        return self.width_px / self.height_px


@dataclass(frozen=True, kw_only=True, slots=True)
class BucketGrid:
    """All buckets of a recipe: every aspect with every length."""

    sizes: tuple[tuple[int, int], ...]
    """(height, width) in pixels."""
    lengths: tuple[int, ...]
    """Frames, ascending; the first is 1."""

    def buckets(self) -> tuple[Bucket, ...]:
        """Every bucket, ascending."""
        return tuple(sorted(Bucket(frames, *size) for frames in self.lengths for size in self.sizes))


def make_grid(
    *,
    num_frames: int,
    resolution_px: int | None = None,
    size_px: tuple[int, int] | None = None,
    frame_step: int = 8,
    side_step_px: int = 16,
) -> BucketGrid:
    """The buckets of a base.

    Args:
        num_frames: Frames of the longest bucket; 1 for pictures alone.
        resolution_px: Side of the square that has as many pixels as a bucket should.
        size_px: The one (height, width) of all buckets, instead of `resolution_px`.
        frame_step: Lengths are 1 + a multiple of this. A VAE that shrinks time four times needs a multiple of 4;
            CogVideoX takes lengths of 8 n + 1.
        side_step_px: Sides are multiples of this: 8 pixels of a latent times 2 latents of a patch.

    Raises:
        ConfigError: A number does not suit the base, or not exactly one of `resolution_px` and `size_px` is given.
    """
    if (resolution_px is None) == (size_px is None):
        raise ConfigError(
            f"`resolution_px` is {resolution_px} and `size_px` {size_px}; exactly one is needed. "
            "Set `resolution_px`, or `height_px` and `width_px`."
        )
    if num_frames < 1 or (num_frames - 1) % frame_step:
        nearest = max(1, round((num_frames - 1) / frame_step) * frame_step + 1)
        raise ConfigError(f"`num_frames` is {num_frames}; this base takes {frame_step} n + 1. Use {nearest}.")
    if size_px is not None and any(side < side_step_px or side % side_step_px for side in size_px):
        better = tuple(max(side_step_px, round(side / side_step_px) * side_step_px) for side in size_px)
        raise ConfigError(
            f"The size is {size_px[0]} x {size_px[1]} px (height, width); this base takes multiples of {side_step_px}. "
            f"Use {better[0]} x {better[1]}."
        )
    sizes = [size_px] if size_px is not None else _sizes(resolution_px or 0, side_step_px)
    return BucketGrid(sizes=tuple(sizes), lengths=tuple(range(1, num_frames + 1, frame_step)))


def find_bucket(grid: BucketGrid, *, frames: int, height_px: int, width_px: int, is_video: bool) -> Bucket:
    """The bucket for media of a size: the nearest aspect, and the longest length that the frames fill.

    Args:
        grid: The buckets.
        frames: Frames at the base's rate.
        height_px: Height of the media.
        width_px: Width of the media.
        is_video: Videos never become pictures: a model would learn that nothing moves.

    Raises:
        MediaError: A video is shorter than the shortest bucket, or the grid holds pictures alone.
    """
    log_aspect = math.log(width_px / height_px)
    size = min(grid.sizes, key=lambda size: abs(math.log(size[1] / size[0]) - log_aspect))
    if not is_video:
        return Bucket(1, *size)
    lengths = [length for length in grid.lengths if 1 < length <= frames]
    if not lengths:
        if grid.lengths == (1,):
            raise MediaError("A video cannot be used with `num_frames` of 1. Use pictures, or raise `num_frames`.")
        raise MediaError(
            f"The video gives {frames} frames at the rate of training; at least {grid.lengths[1]} are needed. "
            "Use a longer one, or leave it out."
        )
    return Bucket(lengths[-1], *size)


@dataclass(frozen=True, kw_only=True, slots=True)
class Batch:
    """Rows of one bucket."""

    bucket: Bucket
    rows: tuple[int, ...]
    """Numbers of the samples; the last batches of a bucket in an epoch have fewer."""
    position: int
    """Number of the batch in its epoch."""

    def local_share(self, rank: int, num_ranks: int) -> tuple[tuple[int, ...], tuple[float, ...]]:
        """The rows of one process, and the weight of each in the loss.

        Every process gets equally many rows, so that none waits for another: where the batch cannot be divided, rows
        are repeated with weight 0. The sum of weighted losses over all processes, divided by `len(rows)`, is therefore
        the mean over the batch for any number of processes.
        """
        rows_per_rank = -(-len(self.rows) // num_ranks)
        padded = [(row, 1.0) for row in self.rows]
        padded += [
            (self.rows[index % len(self.rows)], 0.0) for index in range(rows_per_rank * num_ranks - len(self.rows))
        ]
        local = padded[rank * rows_per_rank : (rank + 1) * rows_per_rank]
        return tuple(row for row, _ in local), tuple(weight for _, weight in local)


class BatchOrder:
    """Batches of an epoch: each sample exactly `repeats` times, all rows of a batch in one bucket.

    What is left of a bucket forms one smaller batch: carrying rows over to the next epoch would make the order depend
    on the epochs before, and dropping them would lose samples.

    Args:
        buckets: The bucket of each sample.
        batch_size: Rows of a batch, over all processes.
        seed: Selects the order.
        repeats: How often each sample is drawn in an epoch; 0 leaves it out. Default: once.

    Raises:
        ConfigError: There are no samples, or a number is out of range.
    """

    def __init__(
        self, buckets: Sequence[Bucket], *, batch_size: int, seed: int, repeats: Sequence[int] | None = None
    ) -> None:
        repeats = [1] * len(buckets) if repeats is None else repeats
        if batch_size < 1:
            raise ConfigError(f"`batch_size` is {batch_size}; at least 1 is needed.")
        if seed < 0:
            raise ConfigError(f"`seed` is {seed}; it must not be negative.")
        if len(repeats) != len(buckets) or any(count < 0 for count in repeats):
            raise ConfigError(
                f"`repeats` has {len(repeats)} numbers for {len(buckets)} samples; one that is not negative is needed "
                "for each."
            )
        self.batch_size, self.seed = batch_size, seed
        rows: dict[Bucket, list[int]] = {}
        for row, (bucket, count) in enumerate(zip(buckets, repeats, strict=True)):
            rows.setdefault(bucket, []).extend([row] * count)
        self._rows = {bucket: np.array(rows[bucket]) for bucket in sorted(rows) if rows[bucket]}
        if not self._rows:
            raise ConfigError("The data set has no samples; at least one is needed.")
        self._epoch = lru_cache(maxsize=2)(self._make_epoch)

    def __len__(self) -> int:
        """Batches of an epoch; the same in every epoch."""
        return sum(-(-len(rows) // self.batch_size) for rows in self._rows.values())

    def batch(self, epoch: int, position: int) -> Batch:
        """One batch.

        Raises:
            IndexError: The epoch has no such position.
        """
        return self._epoch(epoch)[position]

    def iterate(self, epoch: int = 0, position: int = 0) -> Iterator[tuple[int, Batch]]:
        """Batches with their epoch, without end, from any point on."""
        while True:
            for batch in self._epoch(epoch)[position:]:
                yield epoch, batch
            epoch, position = epoch + 1, 0

    def locate(self, batches_done: int) -> tuple[int, int]:
        """(epoch, position) after so many batches since the start of training."""
        return divmod(batches_done, len(self))

    def _make_epoch(self, epoch: int) -> list[Batch]:
        parts: list[tuple[Bucket, tuple[int, ...]]] = []
        for number, (bucket, rows) in enumerate(self._rows.items()):
            shuffled = rows[_permutation(len(rows), self.seed, epoch, number + 1)]
            starts = range(0, len(rows), self.batch_size)
            parts += [(bucket, tuple(shuffled[start : start + self.batch_size].tolist())) for start in starts]
        order = _permutation(len(parts), self.seed, epoch, 0)
        return [
            Batch(bucket=parts[index][0], rows=parts[index][1], position=position)
            for position, index in enumerate(order.tolist())
        ]


def _permutation(count: int, *key: int) -> np.ndarray:
    """A permutation from raw random bits: numpy keeps those equal between its versions, but not `permutation`."""
    bits = np.random.PCG64(np.random.SeedSequence(key)).random_raw(count)
    return np.argsort(bits, kind="stable")


def _sizes(resolution_px: int, step_px: int) -> list[tuple[int, int]]:
    """(height, width) of about resolution_px^2 pixels, one for each aspect, from the highest to the widest."""
    if resolution_px < step_px:
        raise ConfigError(f"`resolution_px` is {resolution_px}; at least {step_px} are needed.")
    aspects = np.geomspace(1 / MAX_ASPECT, MAX_ASPECT, NUM_ASPECTS).tolist()
    sizes = [
        tuple(max(step_px, round(resolution_px * factor / step_px) * step_px) for factor in (aspect**-0.5, aspect**0.5))
        for aspect in aspects
    ]
    return list(dict.fromkeys((size[0], size[1]) for size in sizes))
