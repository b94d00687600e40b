"""Tasks of a Ray cluster. All its nodes must see the sources and the ledger under the same paths."""

import time
from collections import deque
from collections.abc import Iterator
from typing import Any

from likeness.curation.jobs import Job, Outcome, Results, perform
from likeness.curation.settings import ExecutorSettings
from likeness.curation.stage import Needs
from likeness.errors import ResourceError

_POLL_S = 1.0
"""How often the time limits are checked."""


def execute(jobs: Iterator[Job], settings: ExecutorSettings, needs: Needs) -> Results:
    """As `likeness.curation.executors.execute`. A cluster that this function starts ends with it.

    Raises:
        ResourceError: Ray is not installed, or the cluster cannot be reached or lacks what a stage needs.
    """
    ray = _import_ray()
    is_own = not ray.is_initialized()
    if is_own:
        try:
            ray.init(address=settings.address, log_to_driver=False, include_dashboard=False, configure_logging=False)
        except (ConnectionError, RuntimeError, ValueError) as error:
            raise ResourceError(
                f"The Ray cluster cannot be reached: {error}. Start it, or check `executor.address`."
            ) from error
    try:
        yield from _run(ray, iter(jobs), settings, needs)
    finally:
        if is_own:
            ray.shutdown()


def _import_ray() -> Any:
    try:
        import ray  # pyright: ignore[reportMissingImports]
    except ImportError as error:
        raise ResourceError(
            'Ray is not installed. Run `pip install "ray>=2.60"`, or use `executor = { kind = "local" }`.'
        ) from error
    return ray


def _run(ray: Any, jobs: Iterator[Job], settings: ExecutorSettings, needs: Needs) -> Results:
    resources = ray.cluster_resources()
    slots = int(resources.get("CPU", 1) / max(needs.cpus, 0.01))
    if needs.gpus:
        slots = min(slots, int(resources.get("GPU", 0) / needs.gpus))
    if slots < 1:
        raise ResourceError(
            f"A stage needs {needs.cpus:g} cores and {needs.gpus:g} GPUs, but the cluster has "
            f"{resources.get('CPU', 0):g} and {resources.get('GPU', 0):g}. Add nodes, or change the recipe."
        )
    count = min(slots, settings.workers or slots)
    # Retries are counted here, so that a source that kills its worker is recorded at last.
    options = {"num_cpus": needs.cpus, "num_gpus": needs.gpus, "max_retries": 0}
    task = ray.remote(**options)(perform)
    again: deque[tuple[Job, int]] = deque()
    flying: dict[Any, tuple[Job, int, float]] = {}
    is_more = True
    while True:
        while (is_more or again) and len(flying) < count:
            job, attempt = again.popleft() if again else (next(jobs, None), 1)
            if job is None:
                is_more = False
            else:
                flying[task.remote(job)] = (job, attempt, time.monotonic() + settings.time_limit_s)
        if not flying:
            return
        ready, _ = ray.wait(list(flying), num_returns=1, timeout=_POLL_S)
        late = [one for one, (_, _, until_s) in flying.items() if one not in ready and time.monotonic() >= until_s]
        for one in [*ready, *late]:
            job, attempt, _ = flying.pop(one)
            outcome = _result(ray, one) if one in ready else _cancel(ray, one, settings)
            if outcome.failure and not outcome.is_final and attempt < settings.attempts:
                again.append((job, attempt + 1))
            else:
                yield job, outcome


def _result(ray: Any, reference: Any) -> Outcome:
    try:
        return ray.get(reference)
    except ray.exceptions.RayError as error:  # The worker, or its node, is lost.
        return Outcome(failure=f"its worker was lost ({type(error).__name__})")


def _cancel(ray: Any, reference: Any, settings: ExecutorSettings) -> Outcome:
    ray.cancel(reference, force=True)
    return Outcome(failure=f"it took longer than {settings.time_limit_s:g} s")
