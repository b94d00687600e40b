"""What early rejection saves of a search for the best seed, and what it costs in similarity.

Every candidate is finished and looked at half-way; the searches are then replayed in every order of starting, so that
few clips stand for many searches.
"""

from itertools import permutations

import numpy as np
from claims import Benchmark

from likeness.app.demo import choose_puppet
from likeness.generation import GenerationRequest, Likeness
from likeness.generation.outputs.similarity import measure_similarity
from likeness.generation.sampling.best_of import preview_step
from likeness.generation.sampling.sample import Judge

NUM_CANDIDATES = 4


def measure(likeness: Likeness, seed: int, steps: int) -> list[tuple[float, float]]:
    """Preview and finished similarity of the candidates for one puppet."""
    person = choose_puppet(seed)
    step = preview_step(steps)
    assert step is not None
    results = []
    for number in range(NUM_CANDIDATES):
        previews: list[float] = []

        def keep(frame: np.ndarray, previews: list[float] = previews) -> bool:
            previews.append(measure_similarity(frame[None], (person.face,)).score)
            return True

        request = GenerationRequest(prompt=person.prompts[0], people=((person.face,),), seed=seed + number)
        judge = Judge(step=step, keeps=keep)
        clip = likeness.generate_many([request], likeness.settings(steps=steps), judge=judge)[0]
        assert clip.similarity is not None
        results.append((previews[0], clip.similarity.score))
    return results


def replay(candidates: list[tuple[float, float]], steps: int) -> tuple[float, float]:
    """Return the share of steps that a search pays, and the similarity it loses against trying all."""
    step = preview_step(steps)
    assert step is not None
    paid, (bar, best) = steps, candidates[0]
    for preview, score in candidates[1:]:
        if preview < bar:
            paid += step
            continue
        paid += steps
        if score > best:
            bar, best = preview, score
    return paid / (steps * len(candidates)), max(score for _, score in candidates) - best


def main() -> int:
    benchmark = Benchmark("best_of", seed=7)
    benchmark.parser.add_argument("--people", type=int, default=8, help="puppets")
    arguments = benchmark.arguments()
    likeness = Likeness.load()
    steps = likeness.preset.steps
    people = [
        measure(likeness, arguments.seed + 10 * number, steps)
        for number in range(2 if arguments.quick else arguments.people)
    ]
    replayed = np.array([replay(list(order), steps) for one in people for order in permutations(one)])
    benchmark.claim("best_of.steps_saved", 1 - float(replayed[:, 0].mean()), ">=", 0.2)
    benchmark.claim("best_of.similarity_lost", float(replayed[:, 1].mean()), "<=", 0.02)
    previews, finished = np.array(people).reshape(-1, 2).T
    benchmark.note("best_of.candidates", len(previews))
    benchmark.note("best_of.previews_with_a_face", float((previews > 0).mean()))
    benchmark.note("best_of.finished_with_a_face", float((finished > 0).mean()))
    return benchmark.finish()


if __name__ == "__main__":
    raise SystemExit(main())
