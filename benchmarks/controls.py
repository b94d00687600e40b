"""The effect of strength, branch and steps of the reference on faces and similarity, for choosing defaults."""

from collections.abc import Sequence
from concurrent.futures import ProcessPoolExecutor
from multiprocessing import get_context
from pathlib import Path
from typing import Any

import numpy as np
from claims import Benchmark
from identity import draw_subject, make, write_prompt

from likeness.evaluation.puppet_checks.rank1 import Identification, identify
from likeness.generation import GenerationRequest, Likeness
from likeness.generation.outputs.similarity import frame_embeddings
from likeness.media import contact_sheet, write_image

SETTINGS: dict[str, dict[str, Any]] = {
    "by_default": {},
    "scale_1": {"identity_scale": 1.0},
    "scale_0.6": {"identity_scale": 0.6},
    "guidance_2": {"identity_scale": 1.0, "guidance": 2.0},
    "both_branches": {"identity_scale": 1.0, "identity_branch": "both"},
    "both_branches_scale_1.3": {"identity_scale": 1.3, "identity_branch": "both"},
    "until_70_percent": {"identity_scale": 1.0, "identity_end": 0.7},
}


def find(
    videos: Sequence[np.ndarray], requests: Sequence[GenerationRequest], pool: ProcessPoolExecutor
) -> Identification:
    """Identify each request's person among all of them, in every second frame of its video."""
    embeddings = list(pool.map(frame_embeddings, [video[::2] for video in videos]))
    persons = np.repeat(np.arange(len(videos)), len(embeddings[0]))
    gallery = np.stack([request.references[0].embedding for request in requests])
    return identify(np.concatenate(embeddings), persons, gallery)


def main() -> None:
    benchmark = Benchmark("controls", seed=410_000_000)
    benchmark.parser.add_argument("--checkpoint", type=Path, help="another folder of backbone and adapter")
    benchmark.parser.add_argument("--adapter", type=Path, help="another folder of the adapter alone")
    benchmark.parser.add_argument("--people", type=int, help="puppets; by default 16")
    benchmark.parser.add_argument("--batch", type=int, default=8)
    benchmark.parser.add_argument("--folder", type=Path, default=Path("runs/benchmarks"))
    arguments = benchmark.arguments()
    people = arguments.people or (4 if arguments.quick else 16)
    likeness = Likeness.load(backbone=arguments.checkpoint, adapter=arguments.adapter)
    results = {}
    with ProcessPoolExecutor(2, mp_context=get_context("spawn")) as pool:
        subjects = list(pool.map(draw_subject, [arguments.seed + number for number in range(people)]))
        requests = [
            GenerationRequest(prompt=write_prompt(one.group, row), people=((one.face,),), seed=row)
            for row, one in enumerate(subjects)
        ]
        for name, choices in SETTINGS.items():
            videos = make(likeness, requests, arguments.batch, **choices)
            found = results[name] = find(videos, requests, pool)
            for figure in ("face_rate", "rank1_rate", "found_rank1_rate", "distance_ratio"):
                benchmark.note(f"controls.{name}.{figure}", getattr(found, figure))
            rows = [[subject.picture, *video[::4]] for subject, video in zip(subjects[:10], videos[:10], strict=True)]
            write_image(arguments.folder / f"controls_{name}.png", contact_sheet(rows))
    default, full = results["by_default"], results["scale_1"]
    benchmark.claim("controls.default.face_rate_gained", default.face_rate - full.face_rate, ">=", 0)
    benchmark.claim("controls.default.rank1_gained", default.rank1_rate - full.rank1_rate, ">=", 0)
    benchmark.finish()


if __name__ == "__main__":
    main()
