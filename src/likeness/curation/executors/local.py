"""Processes on this machine, each with one job at a time, so that it is known which source a dead worker had."""

import os
import signal
import time
from collections import deque
from collections.abc import Iterator
from contextlib import suppress
from multiprocessing import get_context
from multiprocessing.connection import Connection, wait
from multiprocessing.context import SpawnProcess

from likeness.curation.jobs import OUT_OF_MEMORY, Job, Outcome, Results, perform
from likeness.curation.settings import ExecutorSettings
from likeness.curation.stage import Needs
from likeness.errors import ResourceError

try:
    import resource
except ModuleNotFoundError:  # Windows
    resource = None

_MAX_FAILED_STARTS = 3
"""Workers in a row that die before they are ready, after which there is something wrong with the machine."""


class _Worker:
    def __init__(self, memory_bytes: int | None) -> None:
        context = get_context("spawn")
        self.pipe, other = context.Pipe()
        self.process: SpawnProcess = context.Process(target=_work, args=(other, memory_bytes), daemon=True)
        self.process.start()
        other.close()
        self.is_ready = False
        self.job: tuple[Job, int] | None = None
        self.until_s = 0.0

    def give(self, job: Job, attempt: int, limit_s: float) -> None:
        self.job, self.until_s = (job, attempt), time.monotonic() + limit_s
        with suppress(OSError):  # It has died; the closed pipe reports it.
            self.pipe.send(job)

    def end(self) -> None:
        self.process.kill()
        self.process.join()
        self.pipe.close()


def execute(jobs: Iterator[Job], settings: ExecutorSettings, needs: Needs) -> Results:
    """As `likeness.curation.executors.execute`."""
    cores = os.process_cpu_count() if hasattr(os, "process_cpu_count") else os.cpu_count()  # pyright: ignore
    count = settings.workers or max(1, int((cores or 1) / max(needs.cpus, 1)))
    memory_bytes = None if settings.memory_gb is None or needs.gpus else int(settings.memory_gb * 1e9)
    pool = _Pool(count, memory_bytes, settings)
    try:
        yield from pool.run(jobs)
    finally:
        pool.end()


class _Pool:
    def __init__(self, count: int, memory_bytes: int | None, settings: ExecutorSettings) -> None:
        self._count, self._memory_bytes, self._settings = count, memory_bytes, settings
        self._workers: list[_Worker] = []
        self._again: deque[tuple[Job, int]] = deque()
        self._failed_starts = 0

    def run(self, jobs: Iterator[Job]) -> Results:
        jobs = iter(jobs)
        is_more = True
        while True:
            while is_more or self._again:
                worker = self._free_worker()
                if worker is None:
                    break
                if self._again:
                    worker.give(*self._again.popleft(), self._settings.time_limit_s)
                elif (job := next(jobs, None)) is not None:
                    worker.give(job, 1, self._settings.time_limit_s)
                else:
                    is_more = False
            busy = [worker for worker in self._workers if worker.job is not None]
            if not busy:
                return
            soonest_s = min(worker.until_s for worker in busy) - time.monotonic()
            wait([worker.pipe for worker in busy], timeout=max(soonest_s, 0.0))
            for worker in busy:
                yield from self._look_at(worker)

    def end(self) -> None:
        for worker in self._workers:
            worker.end()
        self._workers.clear()

    def _free_worker(self) -> _Worker | None:
        free = next((worker for worker in self._workers if worker.job is None), None)
        if free is None and len(self._workers) < self._count:
            free = _Worker(self._memory_bytes)
            self._workers.append(free)
        return free

    def _look_at(self, worker: _Worker) -> Results:
        """The outcome of a worker's job, if there is one by now."""
        assert worker.job is not None, "only busy workers are looked at"
        job, attempt = worker.job
        try:
            while worker.pipe.poll():
                message = worker.pipe.recv()
                if message == "ready":
                    worker.is_ready, self._failed_starts = True, 0
                    # Importing the package is not part of the job.
                    worker.until_s = time.monotonic() + self._settings.time_limit_s
                    continue
                worker.job = None
                if message.failure == OUT_OF_MEMORY:
                    self._discard(worker)  # Its memory is in pieces; the next job gets a new worker.
                yield from self._take(job, attempt, message)
                return
        except (EOFError, OSError):
            worker.process.join(timeout=5.0)
            self._discard(worker)
            if not worker.is_ready:
                self._failed_starts += 1
                if self._failed_starts >= _MAX_FAILED_STARTS:
                    raise ResourceError(
                        f"{_MAX_FAILED_STARTS} workers died at their start ({_describe(worker.process.exitcode)}). "
                        "Raise `executor.memory_gb`, or lower `executor.workers`."
                    ) from None
                self._again.append((job, attempt))  # The job had not begun.
                return
            yield from self._take(job, attempt, Outcome(failure=f"its worker {_describe(worker.process.exitcode)}"))
            return
        if time.monotonic() >= worker.until_s:
            self._discard(worker)
            limit = f"it took longer than {self._settings.time_limit_s:g} s"
            yield from self._take(job, attempt, Outcome(failure=limit))

    def _discard(self, worker: _Worker) -> None:
        self._workers.remove(worker)
        worker.end()

    def _take(self, job: Job, attempt: int, outcome: Outcome) -> Results:
        if outcome.failure and not outcome.is_final and attempt < self._settings.attempts:
            self._again.append((job, attempt + 1))
        else:
            yield job, outcome


def _describe(exit_code: int | None) -> str:
    if exit_code is not None and exit_code < 0:
        with suppress(ValueError):
            return f"was ended by {signal.Signals(-exit_code).name}"
    return f"ended with code {exit_code}"


def _work(pipe: Connection, memory_bytes: int | None) -> None:
    """The main function of a worker: jobs from the pipe, until the driver closes it or is killed."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl+C is the driver's.
    os.environ.setdefault("OMP_NUM_THREADS", "1")
    if memory_bytes is not None:
        _limit_memory(memory_bytes)
    with suppress(EOFError, OSError):
        pipe.send("ready")
        while True:
            pipe.send(perform(pipe.recv()))


def _limit_memory(memory_bytes: int) -> None:
    """Limit the address space to what is in use now and `memory_bytes` more."""
    if resource is None:
        return
    with suppress(OSError, ValueError):
        with open("/proc/self/statm") as file:  # noqa: PTH123
            used = int(file.read().split()[0]) * resource.getpagesize()
        _, hard = resource.getrlimit(resource.RLIMIT_AS)
        limit = used + memory_bytes
        resource.setrlimit(resource.RLIMIT_AS, (limit if hard < 0 else min(limit, hard), hard))
