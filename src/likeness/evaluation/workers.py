"""Videos measured by processes: whatever one video does to its process, the others' figures stay."""

import os
import signal
import threading
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, ProcessPoolExecutor, as_completed
from concurrent.futures.process import BrokenProcessPool
from contextlib import contextmanager
from multiprocessing import active_children, get_context, parent_process
from multiprocessing.process import BaseProcess

from likeness.evaluation.features.cache import Measured

Measure = Callable[[str], Measured]
"""Measures the file at a path. It can be pickled."""


def measure_in_processes(measure: Measure, paths: Sequence[str], workers: int) -> Iterator[tuple[str, Measured]]:
    """Measure files, each as soon as a process is free.

    A process that is killed (by a decoder's fault, or for want of memory) takes the whole pool with it. Files that may have
    been in its hands are then measured one by one, each in a process of its own: the file whose process dies again has an
    error that says so. The rest goes on in a new pool.
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


def _measure_alone(measure: Measure, path: str) -> Measured:
    try:
        ((_, measured),) = _in_pool(measure, [path], 1)
    except BrokenProcessPool:
        return Measured(
            error=f"{path}: the process that measured it was killed, though it had the machine for itself. The file may make "
            "its decoder crash, or need more memory than there is: convert it anew, or cut it."
        )
    return measured


def _in_pool(measure: Measure, paths: Sequence[str], workers: int) -> Iterator[tuple[str, Measured]]:
    before = set(active_children())
    with ProcessPoolExecutor(workers, mp_context=get_context("spawn"), initializer=_begin) as pool:
        with _interrupts_held():
            futures: dict[Future[Measured], str] = {pool.submit(measure, path): path for path in paths}
        own = set(active_children()) - before
        try:
            for future in as_completed(futures):
                yield futures[future], future.result()
        except BaseException:  # Ctrl-C, a full disk, or whoever listens wants no more.
            pool.shutdown(wait=False, cancel_futures=True)
            _end(own)
            raise


@contextmanager
def _interrupts_held() -> Iterator[None]:
    """Ctrl-C waits. Processes that are started meanwhile never see it: the parent alone answers it, and ends them."""
    if not hasattr(signal, "pthread_sigmask"):  # Windows
        yield
        return
    before = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


def _end(processes: set[BaseProcess]) -> None:
    for process in processes:
        process.terminate()


def _begin() -> None:
    """Workers share the machine by processes; threads below them would only get in each other's way.

    A parent that is killed cannot end its workers, so each of them looks after it.
    """
    import cv2

    cv2.setNumThreads(1)
    os.environ["OMP_NUM_THREADS"] = "1"  # Before torch, which a worker imports only if a network is needed.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    threading.Thread(target=_leave_with_parent, daemon=True).start()


def _leave_with_parent() -> None:
    parent = parent_process()
    if parent is not None:
        parent.join()
        os._exit(1)
