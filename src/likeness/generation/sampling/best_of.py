"""The best of several seeds, with a threshold of similarity, and without paying for all of them in full.

Candidates run one after the other. Half-way through its steps each shows its expected first frame, which is decoded
and compared with the reference. A candidate whose frame is less like the reference than the same frame of the best so
far is rejected there: its remaining steps and the decoding of its video are saved. The first one that is finished and
reaches `min_similarity` ends the search. Where two look equal half-way (or no face is found in either), nothing is
rejected. Equal results leave the first; if none reaches the threshold, the best one is given, with a warning.
"""

import logging
from collections.abc import Callable
from dataclasses import asdict, dataclass, replace
from typing import TYPE_CHECKING, Any, Literal

import numpy as np

from likeness.generation.inputs.multi_person import measure
from likeness.generation.inputs.settings import GenerationSettings
from likeness.generation.sampling.sample import GenerationRequest, Judge, Rejected, StepCallback
from likeness.generation.sampling.search import Search
from likeness.records import Clip

if TYPE_CHECKING:
    from likeness.generation.likeness import Likeness

logger = logging.getLogger(__name__)

LOOK_AT = 0.5
"""Share of the steps after which a candidate is looked at; benchmarks/best_of.py compares shares."""


@dataclass(kw_only=True, slots=True)
class Candidate:
    """One seed, and how it fared."""

    seed: int
    preview: float | None = None
    """Similarity of its expected first frame half-way; None where it was not looked at."""
    similarity: float | None = None
    """Similarity of the finished clip; None where it was rejected before."""
    steps: int = 0
    """Denoising steps that were paid for."""
    outcome: Literal["finished", "rejected"] = "finished"


def choose_best(
    likeness: "Likeness",
    request: GenerationRequest,
    settings: GenerationSettings,
    search: Search,
    *,
    on_step: StepCallback | None = None,
) -> Clip:
    """Try seeds from `request.seed` upwards and return the clip most like its reference.

    Its record holds every candidate under `best_of`, and `seed` is the one that made it: the same seed without
    a search makes the same clip.

    Raises:
        ConfigError: The seeds would leave the range of torch.
    """
    search.check_seed(request.seed)
    candidates: list[Candidate] = []
    best: tuple[Candidate, Clip] | None = None
    for number in range(search.best_of):
        candidate = Candidate(seed=request.seed + number)
        candidates.append(candidate)
        bar = best[0].preview if best else None
        judge = _judge(request, settings, candidate, bar) if search.best_of > 1 and search.rejects_early else None
        count = _counter(candidate, number * settings.steps, search.best_of * settings.steps, on_step)
        attempt = replace(request, seed=candidate.seed)
        try:
            clip = likeness.generate_many([attempt], settings, on_step=count, judge=judge)[0]
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
        on_step(search.best_of * settings.steps, search.best_of * settings.steps)
    record = record_search(candidates, search, settings)
    if record["passed"] is False:
        logger.warning(_none_passed(best[0], candidates, search))
    return replace(best[1], settings=best[1].settings | {"best_of": record})


def look_step(steps: int) -> int | None:
    """After how many steps a candidate is looked at; None where there are too few for it to be worth it."""
    step = max(2, round(steps * LOOK_AT))
    return step if step < steps else None


def _judge(
    request: GenerationRequest, settings: GenerationSettings, candidate: Candidate, bar: float | None
) -> Judge | None:
    step = look_step(settings.steps)
    if step is None:
        return None

    def keeps(frame: np.ndarray) -> bool:
        candidate.preview = measure(frame[None], request)[0].score
        return bar is None or candidate.preview >= bar

    return Judge(step=step, keeps=keeps)


def _counter(candidate: Candidate, before: int, total: int, on_step: StepCallback | None) -> Callable[[int, int], None]:
    def count(done: int, _total: int) -> None:
        candidate.steps = done
        # The last step of all is told when the search is over: until then there may be more to do.
        if on_step is not None and before + done < total:
            on_step(before + done, total)

    return count


def record_search(candidates: list[Candidate], search: Search, settings: GenerationSettings) -> dict[str, Any]:
    """What the record of the chosen clip says of the search, under `best_of`."""
    best = max(candidate.similarity or 0 for candidate in candidates)
    return {
        "asked": search.best_of,
        "min_similarity": search.min_similarity,
        "passed": None if search.min_similarity is None else best >= search.min_similarity,
        "looked_after_steps": look_step(settings.steps) if search.rejects_early and search.best_of > 1 else None,
        "steps": sum(candidate.steps for candidate in candidates),
        "steps_of_all_in_full": search.best_of * settings.steps,
        "candidates": [asdict(candidate) for candidate in candidates],
    }


def _none_passed(best: Candidate, candidates: list[Candidate], search: Search) -> str:
    return (
        f"No candidate of {len(candidates)} reached similarity {search.min_similarity:.2f}: the best, seed {best.seed}, "
        f"has {best.similarity:.2f} and is given. Try more with `best_of`, other pictures, or a lower threshold."
    )
