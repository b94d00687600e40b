"""Where jobs run: in the driver's process, in processes of this machine, or on a Ray cluster.

Each executor takes an iterator of jobs and yields each job with its outcome, in any order, with a bounded number in
flight. A job whose worker dies or exceeds its time is tried again, and ends as a failure after the last attempt.
"""

from collections.abc import Iterator

from likeness.curation.jobs import Job, Results, perform
from likeness.curation.settings import ExecutorSettings
from likeness.curation.stage import Needs


def execute(jobs: Iterator[Job], settings: ExecutorSettings, needs: Needs) -> Results:
    """Do jobs where the settings say.

    Args:
        jobs: Taken one at a time, as workers become free.
        settings: Of the recipe.
        needs: What the most demanding stage needs.

    Raises:
        ResourceError: Ray is asked for and not installed, or no worker can be started.
    """
    if settings.kind == "ray":
        from likeness.curation.executors import ray

        return ray.execute(jobs, settings, needs)
    if settings.workers == 0:
        return ((job, perform(job)) for job in jobs)
    from likeness.curation.executors import local

    return local.execute(jobs, settings, needs)
