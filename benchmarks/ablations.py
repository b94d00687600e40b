"""What each part of Magic Mirror adds: the paper's ablations (Figures 7 and 8) at tiny size.

Every variant trains from nothing for the same minutes over the same base: without CAN, without the face branch, without
image pre-training. Training resumes, so that a stopped benchmark goes on; `--minutes` is for each stage.
"""

import argparse
import json
import subprocess
import sys
from concurrent.futures import ProcessPoolExecutor
from multiprocessing import get_context
from pathlib import Path

import numpy as np
from claims import Benchmark
from identity import draw_sitter, make, write_prompt

from likeness.evaluation.identification import Identification, identify
from likeness.generation import GenerationRequest, Likeness
from likeness.generation.similarity import frame_embeddings

VARIANTS: dict[str, tuple[str, ...]] = {
    "full": (),
    "without_norm": ("method.has_norm=false",),
    "without_face": ("method.has_face=false",),
    "without_pictures": ('without=["pictures"]',),
}
STAGES = ("pictures", "clips")


def train(variant: str, arguments: argparse.Namespace) -> Path:
    """Run the recipe of the method with one part left out; return its adapter."""
    folder = arguments.folder / variant
    changes = [f"stages.{number}.minutes={arguments.minutes}" for number in range(len(STAGES))]
    changes += [*VARIANTS[variant], f"base={json.dumps(str(arguments.base))}", *(arguments.set or [])]
    words = [word for change in changes for word in ("--set", change)]
    command = [sys.executable, "-m", "likeness", "train", str(arguments.recipe), "-o", str(folder), *words]
    print(f"  training {variant}", flush=True)
    subprocess.run(command, check=True, stdout=subprocess.DEVNULL)
    return folder / "model"


def measure(adapter: Path, arguments: argparse.Namespace, pool: ProcessPoolExecutor) -> Identification:
    """The identity figures of one adapter on puppets that no step saw."""
    sitters = list(pool.map(draw_sitter, [arguments.seed + number for number in range(arguments.people)]))
    requests = [
        GenerationRequest(prompt=write_prompt(sitter.group, row), references=(sitter.face,), seed=row)
        for row, sitter in enumerate(sitters)
    ]
    likeness = Likeness.load(backbone=arguments.base, adapter=adapter)
    videos = make(likeness, requests, 1.0, arguments.batch)
    embeddings = list(pool.map(frame_embeddings, [video[::2] for video in videos]))
    persons = np.repeat(np.arange(len(videos)), len(embeddings[0]))
    return identify(
        np.concatenate(embeddings), persons, np.stack([sitter.face.embedding for sitter in sitters])
    )


def read_curve(variant: Path, figure: str) -> list[tuple[float, float]]:
    """(minutes since the start of the first stage, value), over both stages."""
    points, before_s = [], 0.0
    for stage in STAGES:
        log = variant / stage / "log.jsonl"
        if not log.exists():
            continue
        elapsed_s = 0.0
        for line in map(json.loads, log.read_text().splitlines()):
            elapsed_s = line.get("elapsed_s", elapsed_s)
            if figure in line:
                points.append(((before_s + elapsed_s) / 60, line[figure]))
        before_s += elapsed_s
    return points


def draw_curves(folder: Path, target: Path) -> None:
    """Training curves of all variants side by side, as the paper's Figure 8."""
    import matplotlib as mpl

    mpl.use("Agg")
    import matplotlib.pyplot as plt

    titles = {
        "noise": "error of v in training",
        "unseen_face_loss": "error of v on unseen faces",
        "identity": "identity term",
    }
    figure, axes = plt.subplots(1, len(titles), figsize=(5 * len(titles), 3.4), layout="constrained")
    for axis, (name, title) in zip(axes, titles.items(), strict=True):
        for variant in VARIANTS:
            points = read_curve(folder / variant, name)
            if points:
                axis.plot(*zip(*points, strict=True), label=variant.replace("_", " "), linewidth=1)
        axis.set(title=title, xlabel="minutes of training")
    axes[0].legend()
    figure.savefig(target, dpi=90)
    plt.close(figure)


def main() -> None:
    benchmark = Benchmark("ablations", seed=400_000_000)
    benchmark.parser.add_argument("--recipe", type=Path, default=Path("recipes/tiny/magic_mirror.toml"))
    benchmark.parser.add_argument("--base", type=Path, default=Path("src/likeness/checkpoints/tiny"))
    benchmark.parser.add_argument("--minutes", type=float, help="of each stage of each variant; by default 8")
    benchmark.parser.add_argument("--people", type=int, help="puppets; by default 20")
    benchmark.parser.add_argument("--batch", type=int, default=10)
    benchmark.parser.add_argument(
        "--set", action="append", metavar="A.B=1", help="change the recipe of all variants"
    )
    benchmark.parser.add_argument("--folder", type=Path, default=Path("runs/ablations"))
    arguments = benchmark.arguments()
    arguments.minutes = arguments.minutes or (0.3 if arguments.quick else 8)
    arguments.people = arguments.people or (4 if arguments.quick else 20)
    results = {}
    with ProcessPoolExecutor(2, mp_context=get_context("spawn")) as pool:
        for variant in VARIANTS:
            adapter = train(variant, arguments)
            results[variant] = found = measure(adapter, arguments, pool)
            losses = [value for _, value in read_curve(arguments.folder / variant, "unseen_face_loss")]
            benchmark.note(f"ablations.{variant}.unseen_face_loss", losses[-1] if losses else float("nan"))
            benchmark.note(f"ablations.{variant}.face_rate", found.face_rate)
            benchmark.note(f"ablations.{variant}.found_rank1", found.found_rank1_rate)
            benchmark.note(f"ablations.{variant}.distance_ratio", found.distance_ratio)
    draw_curves(arguments.folder, arguments.folder / "ablations.png")
    for variant in list(VARIANTS)[1:]:
        worse = results[variant].distance_ratio - results["full"].distance_ratio
        benchmark.claim(f"ablations.{variant}.distance_ratio_added", worse, ">", 0)
    benchmark.finish()


if __name__ == "__main__":
    main()
