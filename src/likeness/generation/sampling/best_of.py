"""The best of several seeds by identity similarity, with early rejection.

Candidates run one after the other. After half of its steps the predicted first frame of a candidate is decoded and
compared with the reference. A candidate with a lower similarity there than the best so far is rejected, which saves its
remaining steps and the decoding of its video. Equal similarities (or no face in either frame) reject nothing. The first
finished candidate that reaches `min_similarity` ends the search. Of equal results the first is returned; if none
reaches the threshold, the best one is returned with a warning.
"""

import logging
from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from typing import Any, Literal, Protocol

import numpy as np

from likeness.generation.inputs.multi_person import person_boxes
from likeness.generation.inputs.request import GenerationRequest
from likeness.generation.inputs.search import SeedSearch
from likeness.generation.inputs.settings import GenerationSettings
from likeness.generation.outputs.similarity import measure_clip
from likeness.generation.sampling.sample import Judge, Rejected, StepCallback
from likeness.records import Clip

logger = logging.getLogger(__name__)

PREVIEW_FRACTION = 0.5
"""Share of the steps after which a candidate is previewed; benchmarks/best_of.py compares shares."""


class GenerateFunction(Protocol):
    """Makes clips; `Likeness.generate_many` is one."""

    def __call__(
        self,
        requests: Sequence[GenerationRequest],
        settings: GenerationSettings,
        /,
        *,
        on_step: StepCallback | None = None,
        judge: Judge | None = None,
    ) -> list[Clip]: ...


@dataclass(kw_only=True, slots=True)
class Candidate:
    """One seed and its result."""

    seed: int
    preview: float | None = None
    """Similarity of its predicted first frame after half of the steps; None without a preview."""
    similarity: float | None = None
    """Similarity of the finished clip; None if it was rejected."""
    steps: int = 0
    """Denoising steps that were computed."""
    outcome: Literal["finished", "rejected"] = "finished"


def choose_best(
    generate: GenerateFunction,
    request: GenerationRequest,
    settings: GenerationSettings,
    search: SeedSearch,
    *,
    on_step: StepCallback | None = None,
) -> Clip:
    """Try seeds from `request.seed` upwards and return the clip with the highest similarity.

    Its record lists every candidate under `best_of`, and `seed` is the seed of the chosen one: the same seed without
    a search gives the same clip.

    Raises:
        ConfigError: The seeds would exceed torch's range.
    """
    search.check_seed(request.seed)
    candidates: list[Candidate] = []
    best: tuple[Candidate, Clip] | None = None
    all_steps = search.best_of * settings.steps
    for number in range(search.best_of):
        candidate = Candidate(seed=request.seed + number)
        candidates.append(candidate)
        min_preview = best[0].preview if best else None
        judge = (
            _build_judge(request, settings, candidate, min_preview)
            if search.best_of > 1 and search.rejects_early
            else None
        )
        report_progress = on_step and offset_progress(on_step, number * settings.steps, all_steps)
        candidate_request = replace(request, seed=candidate.seed)
        try:
            clip = generate(
                [candidate_request], settings, on_step=_count_steps(candidate, report_progress), judge=judge
            )[0]
        except Rejected:
            candidate.outcome = "rejected"
            continue
        assert clip.similarity is not None
        candidate.similarity = clip.similarity.score
        if best is None or candidate.similarity > (best[0].similarity or 0):
            best = (candidate, clip)
        if search.min_similarity is not None and candidate.similarity >= search.min_similarity:
            break
    assert best is not None
    if on_step is not None:
        on_step(all_steps, all_steps)
    record = record_search(candidates, search, settings)
    if record["passed"] is False:
        logger.warning(_no_match_warning(best[0], candidates, search))
    return replace(best[1], settings=best[1].settings | {"best_of": record})


def preview_step(steps: int) -> int | None:
    """The number of steps before the preview; None if there are too few steps for one."""
    step = max(2, round(steps * PREVIEW_FRACTION))
    return step if step < steps else None


def _build_judge(
    request: GenerationRequest, settings: GenerationSettings, candidate: Candidate, min_preview: float | None
) -> Judge | None:
    step = preview_step(settings.steps)
    if step is None:
        return None

    def keeps(frame: np.ndarray) -> bool:
        candidate.preview = measure_clip(frame[None], request.people, person_boxes(request))[0].score
        return min_preview is None or candidate.preview >= min_preview

    return Judge(step=step, keeps=keeps)


def offset_progress(on_step: StepCallback, before: int, total: int) -> StepCallback:
    """Report steps of one clip as steps of a longer job; the caller reports the last step of the job itself."""

    def report(done: int, _total: int) -> None:
        if before + done < total:
            on_step(before + done, total)

    return report


def _count_steps(candidate: Candidate, on_step: StepCallback | None) -> StepCallback:
    def report(done: int, total: int) -> None:
        candidate.steps = done
        if on_step is not None:
            on_step(done, total)

    return report


def record_search(candidates: list[Candidate], search: SeedSearch, settings: GenerationSettings) -> dict[str, Any]:
    """The entry `best_of` in the record of the chosen clip.

    Returns:
        `asked`: the maximum number of candidates. `min_similarity`: the threshold, or None. `passed`: whether the best
        candidate reaches it; None without a threshold. `looked_after_steps`: the step of the preview; None without
        previews. `steps`: denoising steps computed. `steps_of_all_in_full`: those of all candidates without rejection.
        `candidates`: the fields of each `Candidate`.
    """
    best = max(candidate.similarity or 0 for candidate in candidates)
    return {
        "asked": search.best_of,
        "min_similarity": search.min_similarity,
        "passed": None if search.min_similarity is None else best >= search.min_similarity,
        "looked_after_steps": preview_step(settings.steps) if search.rejects_early and search.best_of > 1 else None,
        "steps": sum(candidate.steps for candidate in candidates),
        "steps_of_all_in_full": search.best_of * settings.steps,
        "candidates": [asdict(candidate) for candidate in candidates],
    }


def _no_match_warning(best: Candidate, candidates: list[Candidate], search: SeedSearch) -> str:
    return (
        f"No candidate of {len(candidates)} reached similarity {search.min_similarity:.2f}: the best, "
        f"seed {best.seed}, has {best.similarity:.2f} and is given. "
        "Try more with `best_of`, other pictures or a lower threshold."
    )
