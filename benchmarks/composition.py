"""Does the adapter compose with what diffusers offers? Each feature alone and in pairs, against the plain adapted run.

A feature is switched on before or after `attach`, as `docs/composition.md` says, and the same video is sampled with and
without it: the value is the largest difference between the two. Features that change the base itself (LoRA, 8 bits)
are compared with a base whose weights were changed in the same way by hand. Caches that really skip cannot agree: their
value is the root mean square of the difference, as a share of the video's own. The tests run the same features on a
pipeline of a few thousand random weights.
"""

import logging
import warnings

from claims import Benchmark
from composing.calls import CALLS, detached, skipping
from composing.features import BY_NAME, CACHES, FEATURES, PAIRS, deviation
from composing.processes import PROCESSES, over_processes
from composing.subject import TOLERANCE, tiny_subject

SKIPPING_GOAL = 0.5
"""As a share of the video's own root mean square. Every other step is skipped."""


def main() -> None:
    benchmark = Benchmark("composition", seed=7)
    arguments = benchmark.arguments()
    logging.getLogger("diffusers").setLevel(logging.ERROR)
    warnings.simplefilter("ignore")
    subject = tiny_subject(arguments.seed)
    for feature in FEATURES:
        benchmark.claim(f"composition.{feature.name}", deviation(subject, feature), "<=", feature.goal)
    for name, measure in CALLS.items():
        benchmark.claim(f"composition.{name}", measure(subject), "<=", TOLERANCE)
    for name, switch in PROCESSES.items():
        benchmark.claim(f"composition.{name}", over_processes(subject, switch), "<=", TOLERANCE)
    for pair in PAIRS[:3] if arguments.quick else PAIRS:
        value = deviation(subject, *(BY_NAME[name] for name in pair))
        benchmark.claim(f"composition.{'+'.join(pair)}", value, "<=", TOLERANCE)
    for name in CACHES:
        benchmark.claim(f"composition.{name}.detached", detached(subject, name), "<=", 0)
        benchmark.claim(f"composition.{name}.skipping", skipping(subject, name), "<=", SKIPPING_GOAL)
    benchmark.finish()


if __name__ == "__main__":
    main()
