"""Does the adapter compose with diffusers' features? Each one alone and in pairs, against the plain adapted run.

A feature is switched on before or after `attach`, as `docs/composition.md` says, and the same video is sampled with
and without it: the value is the largest difference between the two. Features that change the base itself (LoRA, 8
bits) are compared with a base whose weights were changed in the same way by hand. Caches that skip steps cannot
agree exactly: their value is the RMS of the difference relative to the video's own, beside the ratio to the same
cache's difference on the stock pipeline, and both with only four steps in all. The tests run the same features on a
pipeline of a few thousand random weights.
"""

import logging
import math
import warnings
from dataclasses import replace

from claims import Benchmark
from composing.calls import CALLS, detached, skipping, skipping_stock
from composing.features import BY_NAME, CACHES, FEATURES, PAIRS, deviation
from composing.processes import PROCESSES, over_processes
from composing.subject import NUM_STEPS, TOLERANCE, Subject, tiny_subject

SKIPPING_GOAL = 0.5
"""As a share of the video's own root mean square, where about every other step of the preset's is skipped."""
OVER_STOCK_GOAL = 1.25
"""An adapted pipeline loses as much by a cache as a stock one, give or take what one video differs from another."""


def measure_caches(benchmark: Benchmark, subject: Subject) -> None:
    """Claim that caches that skip lose no more with the identity than without."""
    hasty = replace(subject, skipping_steps=NUM_STEPS, skipping_threshold=math.inf)
    for name in CACHES:
        benchmark.claim(f"composition.{name}.detached", detached(subject, name), "<=", 0)
        (worn, share), stock = skipping(subject, name), skipping_stock(subject, name)
        benchmark.note(f"composition.{name}.share_of_attention", share)
        benchmark.claim(f"composition.{name}.skipping", worn, "<=", SKIPPING_GOAL)
        benchmark.claim(f"composition.{name}.skipping_over_stock", worn / stock, "<=", OVER_STOCK_GOAL)
        benchmark.note(f"composition.{name}.of_four_steps", skipping(hasty, name)[0])
        benchmark.note(f"composition.{name}.of_four_steps.stock", skipping_stock(hasty, name))


def main() -> None:
    benchmark = Benchmark("composition", seed=7)
    benchmark.parser.add_argument(
        "--caches-of",
        choices=("magic_mirror", "fantasy_id"),
        help="measure only the caches, with this method",
    )
    arguments = benchmark.arguments()
    logging.getLogger("diffusers").setLevel(logging.ERROR)
    warnings.simplefilter("ignore")
    if arguments.caches_of:
        measure_caches(benchmark, tiny_subject(arguments.seed, arguments.caches_of))
        benchmark.finish()
        return
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
    measure_caches(benchmark, subject)
    benchmark.finish()


if __name__ == "__main__":
    main()
