"""Measure videos in worker processes. A video that kills its process does not affect the other results."""

import os
import signal
import threading
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, ProcessPoolExecutor, as_completed
from concurrent.futures.process import BrokenProcessPool
from contextlib import contextmanager
from multiprocessing import active_children, get_context, parent_process
from multiprocessing.process import BaseProcess
from typing import TYPE_CHECKING

if TYPE_CHECKING:  # The command line reads the limit before it imports what takes seconds.
    from likeness.evaluation.features.cache import MeasuredVideo

Measure = Callable[[str], "MeasuredVideo"]
"""Measures the file at a path; must be picklable."""
MAX_WORKERS = max(64, 4 * (os.cpu_count() or 1))
"""More processes do not make an evaluation faster."""


def measure_in_processes(measure: Measure, paths: Sequence[str], workers: int) -> Iterator[tuple[str, "MeasuredVideo"]]:
    """Measure files and yield each result as soon as it is there.

    A killed process (decoder crash, out of memory) breaks the whole pool. The files that it may have been measuring are
    then measured one at a time, each in its own process; a file whose process dies again gets an error. The others
    continue in a new pool.
    """
    remaining = list(paths)
    while remaining:
        try:
            for path, measured in _in_pool(measure, tuple(remaining), min(workers, len(remaining))):
                remaining.remove(path)
                yield path, measured
        except BrokenProcessPool:
            for path in remaining[:workers]:  # Processes take files in order.
                remaining.remove(path)
                yield path, _measure_alone(measure, path)


def _measure_alone(measure: Measure, path: str) -> "MeasuredVideo":
    from likeness.evaluation.features.cache import MeasuredVideo

    try:
        ((_, measured),) = _in_pool(measure, [path], 1)
    except BrokenProcessPool:
        return MeasuredVideo(
            error=f"{path}: the process that measured it was killed, although it ran alone. The file may crash its "
            "decoder or need too much memory: convert it again, or shorten it."
        )
    return measured


def _in_pool(measure: Measure, paths: Sequence[str], workers: int) -> Iterator[tuple[str, "MeasuredVideo"]]:
    before = set(active_children())
    with ProcessPoolExecutor(workers, mp_context=get_context("spawn"), initializer=_initialize_worker) as pool:
        with _interrupts_blocked():
            futures: dict[Future[MeasuredVideo], str] = {pool.submit(measure, path): path for path in paths}
        own = set(active_children()) - before
        try:
            for future in as_completed(futures):
                yield futures[future], future.result()
        except BaseException:  # Ctrl-C, a full disk, or the caller stopped iterating.
            pool.shutdown(wait=False, cancel_futures=True)
            _terminate(own)
            raise


@contextmanager
def _interrupts_blocked() -> Iterator[None]:
    """Block SIGINT, so that processes started meanwhile inherit the block: the parent alone handles Ctrl-C."""
    if not hasattr(signal, "pthread_sigmask"):  # Windows
        yield
        return
    before = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


def _terminate(processes: set[BaseProcess]) -> None:
    for process in processes:
        process.terminate()


def _initialize_worker() -> None:
    """Use one thread in each worker, ignore SIGINT, and exit when the parent dies."""
    import cv2

    cv2.setNumThreads(1)
    os.environ["OMP_NUM_THREADS"] = "1"  # Before torch, which a worker imports only if a network is needed.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    threading.Thread(target=_exit_with_parent, daemon=True).start()


def _exit_with_parent() -> None:
    parent = parent_process()
    if parent is not None:
        parent.join()
        os._exit(1)
