"""Runs the stages of a recipe on all sources, from the results that are there.

The state between two segments is the key of each source's candidates. Keys follow from the sources and the recipe, so
that finished work is recognized without reading it; only the results of global stages are read for their keys.
"""

import logging
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import closing
from dataclasses import replace
from pathlib import Path
from typing import TypeVar, cast

import numpy as np

from likeness.curation.executors import execute
from likeness.curation.failures import Failures
from likeness.curation.jobs import Job, Outcome, segment_keys
from likeness.curation.ledger import DamagedError, Ledger, content_key, failed_key, global_key, normalize
from likeness.curation.reading.sources import FoundSource, ignore_progress
from likeness.curation.recipe import Segment, build_segments
from likeness.curation.settings import DataRecipe
from likeness.curation.stage import Candidate, Drop, GlobalStage, Needs, make_id
from likeness.errors import ResourceError

logger = logging.getLogger(__name__)
T = TypeVar("T")

OnProgress = Callable[[str, int, int], None]
"""Called with what is being done, the number of sources done, and of all."""


WORKER = "worker"
"""Stage of sources that were dropped because their worker failed."""
_MAX_REPAIRS = 20
_MAX_FAILED = 5
"""Failures in a row, from the first source on, after which the recipe or the machine is at fault."""


class Pipeline:
    """A recipe at work on the sources found."""

    def __init__(
        self,
        recipe: DataRecipe,
        ledger: Ledger,
        sources: Mapping[str, FoundSource],
        *,
        modules: Sequence[str] = (),
        on_progress: OnProgress = ignore_progress,
    ) -> None:
        self.recipe, self.ledger, self.sources, self.modules = recipe, ledger, dict(sorted(sources.items())), modules
        self.segments = build_segments(recipe, modules)
        self.failures = Failures(ledger.folder)
        self.on_progress = on_progress

    def known_keys(self) -> dict[str, str] | None:
        """The final key of each source without doing or checking anything; None if a global stage must run first."""
        keys = dict.fromkeys(self.sources, "")
        for segment in self.segments:
            if segment.is_global:
                found = self.ledger.read_keys(global_key(keys, cast(GlobalStage, segment.stages[0])))
                if found is None:
                    return None
                keys = found
            else:
                keys = {sha: self._settled(self._expected(segment, sha, keys)) for sha in self.sources}
        return keys

    def run(self) -> dict[str, str]:
        """Run what is missing, and return the final key of each source.

        Raises:
            LikenessError: A setting is wrong, or weights, a library or room on the disk are missing.
        """
        return self.repairing(self._run_once)

    def repairing(self, action: Callable[[], T]) -> T:
        """Do something that runs the stages and reads results; damaged ones are removed, and it is done anew."""
        for _ in range(_MAX_REPAIRS):
            try:
                return action()
            except _DamagedResultsError as error:
                paths = error.paths
            except DamagedError as error:
                paths = [error.path]
            for path in paths:
                logger.warning("%s is damaged; it is made again.", path)
                path.unlink(missing_ok=True)
        raise ResourceError(
            f"Results in {self.ledger.folder} are damaged again and again. Check the disk, or use another folder."
        )

    def do(self, jobs: Iterator[Job], label: str, total: int, on_failure: Callable[[Job, str], None]) -> None:
        """Do jobs, and report what fails.

        Raises:
            ResourceError: Nothing can be processed.
        """
        damaged: list[Path] = []
        failed = 0
        self.on_progress(label, 0, total)
        with closing(execute(jobs, self.recipe.executor, self._needs())) as outcomes:
            for done, (job, outcome) in enumerate(outcomes, start=1):
                if outcome.fatal:
                    raise ResourceError(outcome.fatal)
                if outcome.damaged:
                    damaged.append(Path(outcome.damaged))
                elif outcome.failure:
                    failed += 1
                    self._warn(job, outcome)
                    on_failure(job, outcome.failure)
                    if failed == done == _MAX_FAILED and total > _MAX_FAILED:
                        raise ResourceError(
                            f"The first {failed} sources all failed, the last one because {outcome.failure}. Correct "
                            "the cause, then run again with `--retry-failed`."
                        )
                self.on_progress(label, done, total)
        if damaged:
            raise _DamagedResultsError(damaged)

    def job(self, sha: str, **more: object) -> Job:
        """A job on one source."""
        found = self.sources[sha]
        base = Job(
            recipe=self.recipe,
            folder=self.ledger.folder,
            source=found.source,
            stamp=found.stamp,
            modules=tuple(self.modules),
        )
        return replace(base, **more)

    def _run_once(self) -> dict[str, str]:
        keys = dict.fromkeys(self.sources, "")
        for segment in self.segments:
            keys = self._run_global(segment, keys) if segment.is_global else self._run_local(segment, keys)
        return keys

    def _expected(self, segment: Segment, sha: str, keys: Mapping[str, str]) -> str:
        return segment_keys(segment, self.sources[sha].source, keys[sha])[-1]

    def _settled(self, key: str) -> str:
        """The key, or, if its source failed, that of the failure."""
        reason = self.failures.get(key)
        return key if reason is None else failed_key(key, reason)

    def _run_local(self, segment: Segment, keys: Mapping[str, str]) -> dict[str, str]:
        expected = {sha: self._expected(segment, sha, keys) for sha in self.sources}
        for sha, key in expected.items():
            reason = self.failures.get(key)
            if reason is not None and not self.ledger.has(sha, failed_key(key, reason)):
                self._write_failed(sha, keys[sha], key, reason)
        missing = [sha for sha, key in expected.items() if not self.ledger.has(sha, self._settled(key))]
        if missing:
            names = ", ".join(stage.name for stage in segment.stages) or "opening"

            def fail(job: Job, reason: str) -> None:
                sha = job.source.sha256
                self._write_failed(sha, keys[sha], expected[sha], reason)
                self.failures.add(expected[sha], reason)

            jobs = (self.job(sha, segment=segment.number, start=keys[sha]) for sha in missing)
            self.do(jobs, names, len(missing), fail)
        return {sha: self._settled(key) for sha, key in expected.items()}

    def _write_failed(self, sha: str, start: str, key: str, reason: str) -> None:
        """Write the candidates of a source that failed: dropped, with the reason."""
        source = self.sources[sha].source
        facts = {**source.facts, "kind": source.kind}
        before = [Candidate(id=make_id(sha, 0, 1), source=sha, facts=facts)]
        if start:
            before = self.ledger.read(sha, start)
        drop = Drop(stage=WORKER, reason=reason.partition(":")[0], value=reason.partition(": ")[2] or None)
        after = [one if one.dropped is not None else replace(one, dropped=drop) for one in before]
        self.ledger.write(sha, failed_key(key, reason), after)

    def _run_global(self, segment: Segment, keys: Mapping[str, str]) -> dict[str, str]:
        stage = cast(GlobalStage, segment.stages[0])
        key = global_key(keys, stage)
        known = self.ledger.read_keys(key)
        if known is not None and all(self.ledger.has(sha, one) for sha, one in known.items()):
            return known
        self.on_progress(stage.name, 0, len(keys))
        kept = [one for one in self.read_all(keys, arrays=stage.reads) if one.dropped is None]
        kept.sort(key=lambda one: one.id)
        before = {one.id: content_key([one]) for one in kept}
        after = normalize(stage(kept))
        if sorted(one.id for one in after) != sorted(before):
            raise ValueError(f"stage `{stage.name}` returned other candidates than it was given")
        changed = {one.id: one for one in after if content_key([one]) != before[one.id]}
        result = dict(keys)
        for sha in sorted({one.source for one in changed.values()}):
            result[sha] = self._write_changed(sha, keys[sha], changed)
        self.ledger.write_keys(key, result)
        self.on_progress(stage.name, len(keys), len(keys))
        return result

    def _write_changed(self, sha: str, key: str, changed: Mapping[str, Candidate]) -> str:
        """Write a source's candidates after a global stage, which saw only some of the arrays."""
        merged = []
        for one in self.ledger.read(sha, key):
            new = changed.get(one.id)
            merged.append(one if new is None else replace(new, arrays={**one.arrays, **new.arrays}))
        new_key = content_key(merged)
        self.ledger.write(sha, new_key, merged)
        return new_key

    def read_all(self, keys: Mapping[str, str], *, arrays: Sequence[str] = ()) -> list[Candidate]:
        """All candidates at some keys, with some of their arrays.

        Raises:
            DamagedError: Some are damaged.
        """
        found: list[Candidate] = []
        damaged = []
        for sha, key in sorted(keys.items()):
            try:
                candidates = self.ledger.read(sha, key, arrays=bool(arrays))
            except DamagedError as error:
                damaged.append(error.path)
                continue
            for one in candidates:
                one.arrays = _only(one.arrays, arrays)
            found += candidates
        if damaged:
            raise _DamagedResultsError(damaged)
        return found

    def _needs(self) -> Needs:
        """What the most demanding stage needs."""
        needs = [stage.needs for segment in self.segments for stage in segment.stages]
        return Needs(
            cpus=max((one.cpus for one in needs), default=1.0), gpus=max((one.gpus for one in needs), default=0.0)
        )

    def _warn(self, job: Job, outcome: Outcome) -> None:
        logger.warning("%s is left out: %s.", self.sources[job.source.sha256].name, outcome.failure)


def _only(arrays: Mapping[str, np.ndarray], names: Sequence[str]) -> dict[str, np.ndarray]:
    return {name: values for name, values in arrays.items() if name in names}


class _DamagedResultsError(Exception):
    def __init__(self, paths: Sequence[Path]) -> None:
        super().__init__(", ".join(map(str, paths)))
        self.paths = list(paths)
