"""Reads the files of coming batches in threads, so that the trainer finds them in the system's page cache.

What is read is dropped: a batch is assembled when it is needed, from the same files. So nothing that a run computes
depends on the threads, and a run can be resumed with any number of them.
"""

import contextlib
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor

from torch import Tensor

from likeness.errors import LikenessError
from likeness.training.data.datasets import ShardedDataset


class Prefetcher:
    """Reads what the next steps need.

    Args:
        targets: With `latents`, `mask` and `reference_rows`.
        references: With `crop` and `embedding`.
        rows: From a step to the rows of this process.
        read_text: From rows to the states of their prompts.
        workers: Threads, and steps that are read ahead; 0 does nothing.
    """

    def __init__(
        self,
        targets: ShardedDataset,
        references: ShardedDataset,
        rows: Callable[[int], Tensor],
        read_text: Callable[[Tensor], object],
        workers: int,
    ) -> None:
        self.targets, self.references, self.rows, self.read_text = targets, references, rows, read_text
        self.workers, self.requested = workers, -1
        self.pool = ThreadPoolExecutor(workers, thread_name_prefix="read-ahead") if workers else None

    def request(self, step: int) -> None:
        """Start to read the steps behind `step`."""
        if self.pool is None:
            return
        for coming in range(max(step, self.requested) + 1, step + self.workers + 1):
            self.pool.submit(self._read, coming)
            self.requested = coming

    def _read(self, step: int) -> None:
        with contextlib.suppress(LikenessError, OSError):  # The trainer reads the same and reports the error.
            rows = self.rows(step)
            for name in ("latents", "mask"):
                self.targets[name][rows]
            own = [row for target in rows.tolist() for row in self.targets.reference_rows[target]]
            for name in ("crop", "embedding"):
                self.references[name][own]
            self.read_text(rows)
