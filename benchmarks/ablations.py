"""The papers' ablations at tiny size: what each part of a method contributes.

Magic Mirror: Figures 7 and 8, without CAN, without the face branch, without image pre-training (clips only) and without
clips (images only). FantasyID: Table 3,
without the abstractor, the multi-view collection, vertices, layer-aware injection; the paper's direction of change
is printed beside each figure. Every variant is trained from scratch for the same number of minutes on the same
base. Training resumes after an interruption; `--minutes` is for each stage.
"""

import argparse
import json
import subprocess
import sys
import warnings
from collections.abc import Iterable
from concurrent.futures import ProcessPoolExecutor
from multiprocessing import get_context
from pathlib import Path

import numpy as np
from claims import Benchmark
from identity import Subject, draw_subject, make, write_prompt

from likeness.evaluation.features.flow import measure_flow
from likeness.evaluation.metrics.distributions import frechet_distance
from likeness.evaluation.metrics.identity import consecutive_cosines, cosines_to
from likeness.evaluation.puppet_checks.rank1 import Identification, identify
from likeness.faces import FRAME_DETECTION_PX, find_faces, prominence
from likeness.generation import GenerationRequest, Likeness
from likeness.generation.outputs.similarity import frame_embeddings
from likeness.puppets import sample_clip, sample_person

VARIANTS: dict[str, dict[str, tuple[str, ...]]] = {
    "magic_mirror": {
        "full": (),
        "without_norm": ("method.has_norm=false",),
        "without_face": ("method.has_face=false",),
        "without_pictures": ('without=["images"]',),
        "without_clips": ('without=["clips"]',),
    },
    "fantasy_id": {
        "full": (),
        "without_abstractor": ('method.abstractor="queries"',),
        "without_views": ("views=1",),
        "without_vertices": ("method.has_vertices=false",),
        "without_layer_model": ("method.is_layer_aware=false",),
    },
}
TABLE_3 = {
    "full": {"rs": 0.57, "ifs": 0.95, "fm": 0.61, "fd": 142.50},
    "without_abstractor": {"rs": 0.55, "ifs": 0.93, "fm": 0.49, "fd": 145.82},
    "without_views": {"rs": 0.54, "ifs": 0.98, "fm": 0.33, "fd": 130.77},
    "without_vertices": {"rs": 0.42, "ifs": 0.90, "fm": 0.36, "fd": 172.51},
    "without_layer_model": {"rs": 0.33, "ifs": 0.93, "fm": 0.22, "fd": 235.46},
}
"""FantasyID's paper. Its FID of faces needs Inception's weights, which do not ship; `likeness eval` measures it if
they are installed. Here `fd` is the Frechet distance of dlib's embeddings to rendered clips of the same people;
lower is better, and biased upwards if few faces are found. Only the direction of a change can be compared with the
paper's FID."""
PER_VIDEO = ("rs", "ifs", "fm")
STAGES = ("images", "clips")
FPS = 8.0


def place(variant: str, arguments: argparse.Namespace) -> Path:
    """Folder of a variant's run: beside other runs, because runs beside each other share their renders."""
    return arguments.folder / f"{arguments.method}_{variant}"


def train(variant: str, arguments: argparse.Namespace) -> Path:
    """Run the recipe of the method with one part left out; return its adapter."""
    folder = place(variant, arguments)
    changes = [f"stages.{number}.minutes={arguments.minutes}" for number in range(len(STAGES))]
    changes += [
        *VARIANTS[arguments.method][variant],
        f"base={json.dumps(str(arguments.base))}",
        *(arguments.set or []),
    ]
    words = [word for change in changes for word in ("--set", change)]
    command = [sys.executable, "-m", "likeness", "train", str(arguments.recipe), "-o", str(folder), *words]
    print(f"  training {variant}", flush=True)
    subprocess.run(command, check=True, stdout=subprocess.DEVNULL)
    return folder / "model"


def measure(
    adapter: Path,
    subjects: list[Subject],
    drawn: np.ndarray,
    arguments: argparse.Namespace,
    pool: ProcessPoolExecutor,
) -> tuple[Identification, dict[str, float]]:
    """Identity figures of one adapter on held-out puppets, and those of Table 3: RS, IFS, FM, and a Frechet distance.

    Shapes:
        drawn: (faces, embedding_width), embeddings of faces in drawn clips of the subjects
    """
    requests = [
        GenerationRequest(prompt=write_prompt(subject.group, row), people=((subject.face,),), seed=row)
        for row, subject in enumerate(subjects)
    ]
    likeness = Likeness.load(method=arguments.method, backbone=arguments.base, adapter=adapter)
    videos = make(likeness, requests, arguments.batch, identity_scale=1.0)
    gallery = np.stack([subject.face.embedding for subject in subjects])
    read = list(pool.map(read_faces, videos, gallery))
    persons = np.repeat(np.arange(len(videos)), len(videos[0]))
    means = {name: float(np.nanmean([figures[name] for _, figures in read])) for name in PER_VIDEO}
    embeddings = np.concatenate([found for found, _ in read])
    means["fd"] = frechet_distance(embeddings[np.isfinite(embeddings).all(axis=1)], drawn)
    return identify(embeddings, persons, gallery), means


def embed_drawn(seed: int) -> np.ndarray:
    """Embeddings of the faces found in a drawn clip of a person, as large and long as the generated ones."""
    frames = sample_clip(seed + 500, person=sample_person(seed), num_frames=17, size_px=64).frames
    embeddings = frame_embeddings(frames)
    return embeddings[np.isfinite(embeddings).all(axis=1)]


def read_faces(frames: np.ndarray, reference: np.ndarray) -> tuple[np.ndarray, dict[str, float]]:
    """Embeddings of a video's frames, its similarity to the reference and between frames, and its face motion."""
    found = [find_faces(frame, enlarge_to_px=FRAME_DETECTION_PX) for frame in frames]
    rows = [row for row, faces in enumerate(found) if faces]
    embeddings = np.full((len(frames), len(reference)), np.nan, dtype=np.float32)
    faces = [max(found[row], key=prominence) for row in rows]
    if not faces:
        return embeddings, dict.fromkeys(PER_VIDEO, float("nan"))
    embeddings[rows] = [face.embedding for face in faces]
    flow = measure_flow(frames, FPS, np.array(rows), np.array([face.box for face in faces]))["face_px"]
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", RuntimeWarning)  # A mean of nothing is no number, which is what is meant.
        return embeddings, {
            "rs": float(np.nanmean(cosines_to(embeddings, reference))),
            "ifs": float(np.nanmean(consecutive_cosines(embeddings))),
            "fm": float(np.nanmean(flow)),
        }


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


def draw_curves(arguments: argparse.Namespace, variants: Iterable[str], target: Path) -> None:
    """Training curves of all variants side by side, as the paper's Figure 8."""
    import matplotlib as mpl

    mpl.use("Agg")
    import matplotlib.pyplot as plt

    titles = {
        "denoising": "error of v in training",
        "validation_face_loss": "error of v on validation faces",
        "identity": "identity term",
    }
    figure, axes = plt.subplots(1, len(titles), figsize=(5 * len(titles), 3.4), layout="constrained")
    for axis, (name, title) in zip(axes, titles.items(), strict=True):
        for variant in variants:
            points = read_curve(place(variant, arguments), name)
            if points:
                axis.plot(*zip(*points, strict=True), label=variant.replace("_", " "), linewidth=1)
        axis.set(title=title, xlabel="minutes of training")
    axes[0].legend()
    figure.savefig(target, dpi=90)
    plt.close(figure)


def main() -> None:
    benchmark = Benchmark("ablations", seed=400_000_000)
    benchmark.parser.add_argument("--method", choices=VARIANTS, default="magic_mirror")
    benchmark.parser.add_argument("--recipe", type=Path, help="by default recipes/tiny/METHOD.toml")
    benchmark.parser.add_argument("--base", type=Path, default=Path("src/likeness/checkpoints/tiny"))
    benchmark.parser.add_argument("--minutes", type=float, help="of each stage of each variant; by default 8")
    benchmark.parser.add_argument("--people", type=int, help="puppets; by default 20")
    benchmark.parser.add_argument("--batch", type=int, default=10)
    benchmark.parser.add_argument("--set", action="append", metavar="A.B=1", help="change the recipe of all variants")
    benchmark.parser.add_argument("--folder", type=Path, default=Path("runs"), help="of runs and renders")
    arguments = benchmark.arguments()
    arguments.minutes = arguments.minutes or (0.3 if arguments.quick else 8)
    arguments.people = arguments.people or (4 if arguments.quick else 20)
    arguments.recipe = arguments.recipe or Path(f"recipes/tiny/{arguments.method}.toml")
    variants = VARIANTS[arguments.method]
    results, means = {}, {}
    with ProcessPoolExecutor(2, mp_context=get_context("spawn")) as pool:
        seeds = [arguments.seed + number for number in range(arguments.people)]
        subjects, drawn = (
            list(pool.map(draw_subject, seeds)),
            np.concatenate(list(pool.map(embed_drawn, seeds))),
        )
        for variant in variants:
            adapter = train(variant, arguments)
            results[variant], means[variant] = found, figures = measure(adapter, subjects, drawn, arguments, pool)
            losses = [value for _, value in read_curve(place(variant, arguments), "validation_face_loss")]
            benchmark.note(f"ablations.{variant}.validation_face_loss", losses[-1] if losses else float("nan"))
            benchmark.note(f"ablations.{variant}.face_rate", found.face_rate)
            benchmark.note(f"ablations.{variant}.found_rank1", found.found_rank1_rate)
            benchmark.note(f"ablations.{variant}.distance_ratio", found.distance_ratio)
            if arguments.method == "fantasy_id":
                for name, value in figures.items():
                    change = value - means["full"][name]
                    paper = TABLE_3[variant][name] - TABLE_3["full"][name]
                    text = f"{value:.4g}, {change:+.4f} (paper {TABLE_3[variant][name]:.4g}, {paper:+.2f})"
                    benchmark.note(f"ablations.{variant}.{name}", text)
    draw_curves(arguments, variants, Path(f"runs/benchmarks/ablations_{arguments.method}.png"))
    for variant in list(variants)[1:]:
        worse = results[variant].distance_ratio - results["full"].distance_ratio
        benchmark.claim(f"ablations.{variant}.distance_ratio_added", worse, ">", 0)
    benchmark.finish()


if __name__ == "__main__":
    main()
