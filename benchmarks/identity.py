"""Does a video keep the person of the reference: puppets that no training saw, and real photographs?"""

import argparse
import os
from collections.abc import Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from multiprocessing import get_context
from pathlib import Path
from typing import Any

import numpy as np
from claims import Benchmark

from likeness.errors import FaceError
from likeness.evaluation.puppet_checks.color import cheek_color, skin_difference
from likeness.evaluation.puppet_checks.rank1 import identify
from likeness.faces import FRAME_DETECTION_PX, compare, find_faces, prominence, read_face
from likeness.generation import GenerationRequest, Likeness
from likeness.generation.loading.presets import METHODS
from likeness.generation.outputs.similarity import frame_embeddings
from likeness.media import contact_sheet, read_image, read_video, write_image
from likeness.puppets import CLOTHING_COLORS, sample_image, sample_person
from likeness.records import Face

SCENES = (
    "smiles at the camera in a park",
    "nods in a kitchen",
    "talks to the camera on a street",
    "looks into the camera in a library",
    "tilts {his} head on a beach",
    "raises {his} eyebrows in a studio",
)
POSSESSIVES = {"man": "his", "elderly man": "his", "boy": "his", "baby": "its"}
WOMEN = ("amy", "bernadette", "penny")
MAX_PHOTOGRAPHS = 8
FILMED = {"d11": "girl", "d12": "man", "d18": "man", "d19": "man"}
"""Videos whose first frame is a portrait, and their class words."""
REAL = Path(os.environ.get("LIKENESS_REAL") or "../shared/real")


@dataclass(frozen=True, kw_only=True, slots=True)
class Subject:
    """Somebody who is to appear in videos."""

    name: str
    group: str
    picture: np.ndarray
    face: Face


def write_prompt(group: str, number: int) -> str:
    """A prompt that describes no appearance beyond the class word."""
    color = list(CLOTHING_COLORS)[number % len(CLOTHING_COLORS)]
    scene = SCENES[number % len(SCENES)].format(his=POSSESSIVES.get(group, "her"))
    return f"{article(group)} {group} img in {article(color)} {color} sweater {scene}"


def article(word: str) -> str:
    return "an" if word[0] in "aeiou" else "a"


def draw_subject(seed: int) -> Subject:
    """Draw a person, in the first picture in which exactly one face is found."""
    person = sample_person(seed)
    for take in range(20):
        picture = sample_image(seed + 1000 * take, person=person, size_px=256).frames[0]
        try:
            return Subject(name=str(seed), group=person.group, picture=picture, face=read_face(picture))
        except FaceError:
            continue
    raise AssertionError(f"person {seed} has no readable picture")


def photographed_subjects() -> list[Subject]:
    """The astronaut, first frames of videos, and whom a color photograph of a group shows.

    The portraits of the folder are gray and show no skin color; they only name the people of the group.
    """
    from skimage.data import astronaut

    woman = np.asarray(astronaut())
    subjects = [Subject(name="astronaut", group="woman", picture=woman, face=read_face(woman))]
    if not REAL.is_dir():
        return subjects
    for name, class_word in FILMED.items():
        frame = read_video(REAL / "videos" / f"{name}.mp4")[0][0]
        subjects.append(Subject(name=name, group=class_word, picture=frame, face=read_face(frame)))
    group = read_image(REAL / "group.jpg")
    portraits = {folder.name: read_face(sorted(folder.iterdir())[0]) for folder in sorted((REAL / "faces").iterdir())}
    for face in find_faces(group):
        name = min(portraits, key=lambda known: compare(face, portraits[known]).distance)
        if compare(face, portraits[name]).is_same and len(subjects) < MAX_PHOTOGRAPHS:
            subjects.append(Subject(name=name, group="woman" if name in WOMEN else "man", picture=group, face=face))
    return subjects


def chosen_scale(likeness: Likeness, asked: float | None) -> float:
    """The weight of the reference: as asked, or the one that users get."""
    return likeness.settings(identity_scale=asked).identity_scale


def make(
    likeness: Likeness,
    requests: Sequence[GenerationRequest],
    batch: int,
    **choices: Any,
) -> list[np.ndarray]:
    """The frames of each request's video; `choices` are changes of the preset's settings."""
    settings = likeness.settings(**choices)
    chosen = ", ".join(f"{name} {value}" for name, value in choices.items() if value is not None) or "by default"
    videos: list[np.ndarray] = []
    for start in range(0, len(requests), batch):
        part = requests[start : start + batch]
        videos += [clip.frames for clip in likeness.generate_many(part, settings, is_measured=False)]
        print(f"  {chosen}: {len(videos)} of {len(requests)} clips made", flush=True)
    return videos


def make_as_asked(
    likeness: Likeness, requests: Sequence[GenerationRequest], arguments: argparse.Namespace, scale: float
) -> list[np.ndarray]:
    """`make` with the choices of `add_options`, at one strength of the reference."""
    return make(
        likeness,
        requests,
        arguments.batch,
        identity_scale=scale,
        identity_branch=arguments.branch,
        steps=arguments.steps,
    )


def video_cheek(frames: np.ndarray) -> np.ndarray | None:
    """Median cheek color over the frames with a face."""
    colors = []
    for frame in frames[::2]:
        faces = find_faces(frame, enlarge_to_px=FRAME_DETECTION_PX)
        if faces:
            colors.append(cheek_color(frame, max(faces, key=prominence).landmarks))
    return np.median(colors, axis=0) if colors else None


def measure_puppets(
    benchmark: Benchmark, likeness: Likeness, pool: ProcessPoolExecutor
) -> tuple[list[Subject], dict[float, list[np.ndarray]]]:
    """Claim under the benchmark's name that puppets are kept; the subjects, and their videos (two each) by scale."""
    arguments, about = benchmark.arguments(), benchmark.name
    subjects = list(pool.map(draw_subject, [arguments.seed + number for number in range(arguments.people)]))
    gallery = np.stack([subject.face.embedding for subject in subjects])
    requests = [
        GenerationRequest(
            prompt=write_prompt(subject.group, 2 * row + take), people=((subject.face,),), seed=2 * row + take
        )
        for row, subject in enumerate(subjects)
        for take in range(arguments.takes)
    ]
    results, made = {}, {}
    strength = chosen_scale(likeness, arguments.scale)
    for scale in (strength, 0.0):
        videos = made[scale] = make_as_asked(likeness, requests, arguments, scale)
        embeddings = list(pool.map(frame_embeddings, [video[:: arguments.frame_step] for video in videos]))
        persons = np.repeat(np.arange(len(videos)) // arguments.takes, len(embeddings[0]))
        results[scale] = identify(np.concatenate(embeddings), persons, gallery)
        if scale:
            write_sheet(arguments.folder / f"{about}_puppets.png", subjects, videos[:: arguments.takes])
    kept, dropped = results[strength], results[0.0]
    benchmark.note(f"{about}.scale", strength)
    benchmark.note(f"{about}.right_distance", kept.right_distance)
    benchmark.note(f"{about}.other_distance", kept.other_distance)
    benchmark.note(f"{about}.found_rank1", kept.found_rank1_rate)
    benchmark.note(f"{about}.scale_0.face_rate", dropped.face_rate)
    benchmark.note(f"{about}.scale_0.found_rank1", dropped.found_rank1_rate)
    benchmark.note(f"{about}.scale_0.distance_ratio", dropped.distance_ratio)
    # Rank-1 is over all frames: one in which no face is found has not kept the person.
    benchmark.claim(f"{about}.face_rate", kept.face_rate, ">=", 0.80)
    benchmark.claim(f"{about}.rank1", kept.rank1_rate, ">=", 0.60)
    benchmark.claim(f"{about}.distance_ratio", kept.distance_ratio, "<=", 0.85)
    benchmark.claim(f"{about}.scale_0.rank1", dropped.rank1_rate, "<", 0.08)
    return subjects, made


def measure_photographs(benchmark: Benchmark, likeness: Likeness, pool: ProcessPoolExecutor) -> None:
    arguments = benchmark.arguments()
    subjects = photographed_subjects()
    requests = [
        GenerationRequest(
            prompt=f"a {subject.group} img in a blue sweater smiles at the camera in a studio",
            people=((subject.face,),),
            seed=number,
        )
        for number, subject in enumerate(subjects)
    ]
    strength = chosen_scale(likeness, arguments.scale)
    videos = make_as_asked(likeness, requests, arguments, strength)
    write_sheet(arguments.folder / "identity_photographs.png", subjects, videos)
    differences = []
    for subject, color in zip(subjects, pool.map(video_cheek, videos), strict=True):
        if color is not None:
            differences.append(skin_difference(cheek_color(subject.picture, subject.face.landmarks), color))
            benchmark.note(f"identity.skin.{subject.name}", differences[-1])
    benchmark.note("identity.photographs", len(subjects))
    benchmark.claim("identity.skin_delta_e", float(np.median(differences or [np.nan])), "<=", 12)


def write_sheet(path: Path, subjects: list[Subject], videos: list[np.ndarray]) -> None:
    """Reference, then frames, at most twelve people. It shows real people; do not publish it."""
    rows = [[subject.face.crop, *video[[0, 4, 8, 12, 16]]] for subject, video in zip(subjects, videos, strict=True)]
    write_image(path, contact_sheet(rows[:12], [f"{subject.group} {subject.name}" for subject in subjects[:12]]))


def add_options(benchmark: Benchmark) -> None:
    """What can be asked of a benchmark of a method's identity."""
    benchmark.parser.add_argument("--checkpoint", type=Path, help="another folder of backbone and adapter")
    benchmark.parser.add_argument("--adapter", type=Path, help="another folder of the adapter alone")
    benchmark.parser.add_argument("--people", type=int, help="puppets; by default 40")
    benchmark.parser.add_argument("--takes", type=int, choices=(1, 2), default=2, help="videos of each puppet")
    benchmark.parser.add_argument("--scale", type=float, help="of the reference; by default what users get")
    benchmark.parser.add_argument("--branch", choices=("conditional", "both"), default="conditional")
    benchmark.parser.add_argument("--steps", type=int, help="of sampling; by default what users get")
    benchmark.parser.add_argument("--batch", type=int, default=10)
    benchmark.parser.add_argument("--frame-step", type=int, default=2, help="measure every Nth frame")
    benchmark.parser.add_argument("--folder", type=Path, default=Path("runs/benchmarks"))


def main() -> None:
    benchmark = Benchmark("identity", seed=400_000_000)
    add_options(benchmark)
    benchmark.parser.add_argument("--method", choices=METHODS, default="magic_mirror")
    arguments = benchmark.arguments()
    arguments.people = arguments.people or (8 if arguments.quick else 40)
    likeness = Likeness.load(method=arguments.method, backbone=arguments.checkpoint, adapter=arguments.adapter)
    with ProcessPoolExecutor(2, mp_context=get_context("spawn")) as pool:
        measure_photographs(benchmark, likeness, pool)
        measure_puppets(benchmark, likeness, pool)
    benchmark.finish()


if __name__ == "__main__":
    main()
