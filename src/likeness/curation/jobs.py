"""What workers do: the stages of one source, or its encoded media. Both can be repeated at any time.

The same functions run in the driver's process, in processes of this machine and as tasks of Ray.
"""

from collections.abc import Generator, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import cast

from likeness.curation.ledger import DamagedError, Ledger, digest, normalize, source_key, stage_key
from likeness.curation.reading.hashes import stamp_of
from likeness.curation.recipe import Segment, build_segments
from likeness.curation.settings import DataRecipe
from likeness.curation.stage import Candidate, Drop, Source, SourceCheck, SourceView, Stage, make_id
from likeness.curation.stages.read import first_candidate, open_source
from likeness.curation.writing.media_files import MediaRequest, render_media
from likeness.errors import FaceError, LikenessError, MediaError

OUT_OF_MEMORY = "out of memory"
UNREADABLE = "the file cannot be read"
READ = "read"
_READ_VERSION = 1
"""Raised when the first candidates change."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Job:
    """One task of a worker."""

    recipe: DataRecipe
    folder: Path
    """Of the ledger."""
    source: Source
    stamp: tuple[int, int, int]
    """Of the file when it was hashed."""
    segment: int = 0
    start: str = ""
    """Key of the candidates that a later segment starts from, or of those that hold generated pictures."""
    requests: tuple[MediaRequest, ...] = ()
    """Media to encode; without them the stages of the segment are run."""
    modules: tuple[str, ...] = ()


@dataclass(frozen=True, kw_only=True, slots=True)
class Outcome:
    """What became of a job: one of the three is set."""

    key: str = ""
    """Of the result."""
    failure: str = ""
    """Why this source cannot be processed; the others go on."""
    fatal: str = ""
    """Why nothing can be processed: a setting is wrong, or weights or a library are missing."""
    damaged: str = ""
    """Path of an earlier result that is damaged, so that it has to be made again first."""
    is_final: bool = False
    """Whether trying again gives the same failure."""


Results = Generator[tuple[Job, Outcome], None, None]
"""Jobs with their outcomes, in any order."""


def perform(job: Job) -> Outcome:
    """Do a job. Never raises, except for signals and the like."""
    try:
        if stamp_of(job.source.path) != job.stamp:
            return Outcome(failure="the file was changed during the run", is_final=True)
        if job.requests:
            render_media(Ledger(job.folder), job.source, job.requests, job.start)
            return Outcome(key=job.source.sha256)
        return Outcome(key=process_source(job.recipe, job.folder, job.source, job.segment, job.start, job.modules))
    except DamagedError as error:
        return Outcome(damaged=str(error.path))
    except MediaError as error:
        return Outcome(failure=_without_folder(error, job.source), is_final=True)
    except LikenessError as error:
        return Outcome(fatal=str(error))
    except ImportError as error:
        return Outcome(fatal=f"A stage needs a library: {error}. Run `pip install 'likeness[curation]'`.")
    except MemoryError:
        return Outcome(failure=OUT_OF_MEMORY)
    except OSError as error:
        return Outcome(failure=f"the system refused a file: {error.strerror or error}")
    except Exception as error:  # A mistake in a stage must not end the run, but it is reported.
        return Outcome(failure=f"a stage failed: {type(error).__name__}: {error}", is_final=True)


def segment_keys(segment: Segment, source: Source, start: str = "") -> list[str]:
    """Keys of the results of a segment on single sources, in their order; the last is that of the whole segment."""
    keys = [start or digest(READ, source_key(source), _READ_VERSION)]
    for stage in segment.stages:
        keys.append(stage_key(keys[-1], stage))
    return keys


def process_source(
    recipe: DataRecipe, folder: Path, source: Source, segment: int = 0, start: str = "", modules: Sequence[str] = ()
) -> str:
    """Run the stages of a segment on a source, from the last result that is there.

    Args:
        recipe: The recipe.
        folder: Of the ledger.
        source: The source.
        segment: Number of the segment (`build_segments`).
        start: Key of the candidates that a later segment starts from.
        modules: Modules that register further stages.

    Returns:
        The key of the result.

    Raises:
        DamagedError: The candidates at `start` are damaged.
        LikenessError: A setting is wrong, or weights or a library are missing.
    """
    part, ledger = build_segments(recipe, modules)[segment], Ledger(folder)
    keys = segment_keys(part, source, start)
    done, candidates = _last_result(ledger, source.sha256, keys)
    if candidates is None and start:
        candidates, done = ledger.read(source.sha256, start), 0
    memory_bytes = int(recipe.executor.frame_memory_gb * 1e9)
    if not done and not start and (refused := _check_unopened(part, source)) is not None:
        # Also where the first candidate is known: what is written must not depend on what ran before.
        candidates, done = normalize([refused]), 1
        ledger.write(source.sha256, keys[1], candidates)
    with ExitStack() as stack:
        view: SourceView | None = None
        if candidates is None:
            try:
                view = stack.enter_context(open_source(source, memory_bytes=memory_bytes))
                candidates = [first_candidate(view)]
            except MediaError as error:
                candidates = [_unreadable(source, error)]
            candidates, done = normalize(candidates), 0
            ledger.write(source.sha256, keys[0], candidates)
        for stage, key in list(zip(part.stages, keys[1:], strict=True))[done:]:
            if view is None and any(candidate.dropped is None for candidate in candidates):
                view = stack.enter_context(open_source(source, memory_bytes=memory_bytes))
            candidates = _run_stage(cast(Stage, stage), candidates, view, source)
            ledger.write(source.sha256, key, candidates)
    return keys[-1]


def _check_unopened(segment: Segment, source: Source) -> Candidate | None:
    """The dropped candidate of a source that the first stage refuses without opening it; None if it is opened."""
    stage = segment.stages[0] if segment.stages else None
    if not isinstance(stage, SourceCheck):
        return None
    try:
        drop = stage.check_source(source)
    except MediaError:
        return None  # Opening it gives the reason.
    return None if drop is None else _dropped(source, drop)


def _last_result(ledger: Ledger, source: str, keys: Sequence[str]) -> tuple[int, list[Candidate] | None]:
    for number in range(len(keys) - 1, -1, -1):
        if ledger.has(source, keys[number]):
            try:
                return number, ledger.read(source, keys[number])
            except DamagedError:
                continue
    return 0, None


def _run_stage(
    stage: Stage, candidates: Sequence[Candidate], view: SourceView | None, source: Source
) -> list[Candidate]:
    """All candidates after a stage, which gets only those that are kept."""
    kept = [candidate for candidate in candidates if candidate.dropped is None]
    result: list[Candidate] = []
    if kept and view is not None:
        try:
            result = list(stage(kept, view))
        except (MediaError, FaceError) as error:
            result = [one.drop(stage.name, UNREADABLE, _without_folder(error, source)) for one in kept]
    everything = [candidate for candidate in candidates if candidate.dropped is not None] + result
    ids = [candidate.id for candidate in everything]
    if len(set(ids)) < len(ids) or any(candidate.source != source.sha256 for candidate in everything):
        raise ValueError(f"stage `{stage.name}` returned two candidates of one id, or one of another source")
    return normalize(sorted(everything, key=lambda one: (one.first_frame, one.num_frames, one.id)))


def _unreadable(source: Source, error: MediaError) -> Candidate:
    return _dropped(source, Drop(stage=READ, reason=UNREADABLE, value=_without_folder(error, source)))


def _dropped(source: Source, drop: Drop) -> Candidate:
    """The candidate of a source that is not opened."""
    facts = {**source.facts, "kind": source.kind}
    return Candidate(id=make_id(source.sha256, 0, 1), source=source.sha256, facts=facts, dropped=drop)


def _without_folder(error: Exception, source: Source) -> str:
    """The message of an error with the file's name alone: the same wherever its folder lies."""
    return str(error).replace(str(source.path), source.path.name)
