"""FantasyID on puppets that no training saw: does a video keep the person, and the proportions of their face?

Jaw width over face width, and nose length, are read in generated frames by the network of shapes and held against the
reference's exact head. The same reading of drawn videos of the same people is the most that can be reached. A second
reading, from landmarks and skin, is independent of that network, which also gives FantasyID the shape; it is coarse.
"""

from collections.abc import Iterable
from concurrent.futures import ProcessPoolExecutor
from multiprocessing import get_context

import numpy as np
from claims import Benchmark
from identity import Subject, add_options, measure_puppets

from likeness.errors import WeightsError
from likeness.faces import FRAME_DETECTION_PX, find_faces, prominence
from likeness.faces.geometry.proportions import measure_landmarks, measure_mask, skin_mask
from likeness.generation import Likeness
from likeness.identity.face_shape.learned import LearnedShape
from likeness.identity.face_shape.proportions import measure
from likeness.puppets import sample_clip, sample_person
from likeness.puppets.people.shape import build_head

PROPORTIONS: tuple[str, ...] = ("jaw_width", "nose_length")
GOAL = 0.6
Reading = dict[str, float]


def read_video(frames: np.ndarray) -> tuple[Reading, Reading]:
    """Proportions in a video: by the network from all its faces, and as the median over landmarks and skin."""
    faces, measured = [], []
    for frame in frames[::2]:
        found = find_faces(frame, enlarge_to_px=FRAME_DETECTION_PX)
        if found:
            face = max(found, key=prominence)
            faces.append(face)
            points = face.landmarks
            measured.append({**measure_mask(skin_mask(frame, points), points), **measure_landmarks(points)})
    if not faces:
        nothing: Reading = dict.fromkeys(PROPORTIONS, float("nan"))
        return nothing, nothing
    coarse = {name: median_of([each[name] for each in measured]) for name in PROPORTIONS}
    return measure(LearnedShape()(faces)), coarse


def median_of(values: list[float]) -> float:
    """The median of those that are numbers; NaN where none is."""
    known = [value for value in values if np.isfinite(value)]
    return float(np.median(known)) if known else float("nan")


def draw_video(seed: int) -> np.ndarray:
    """A drawn video of the person, as large as the generated ones."""
    return sample_clip(seed + 500, person=sample_person(seed), num_frames=17, size_px=64).frames


def exact(subject: Subject) -> Reading:
    return measure(build_head(sample_person(int(subject.name))).vertices)


def correlation(readings: Iterable[Reading], truths: Iterable[Reading], name: str) -> float:
    """Correlation over the videos in which there is something to read."""
    pairs = np.array([[one[name], other[name]] for one, other in zip(readings, truths, strict=True)])
    pairs = pairs[np.isfinite(pairs).all(axis=1)]
    return float(np.corrcoef(pairs.T)[0, 1]) if len(pairs) > 2 else float("nan")


def measure_structure(
    benchmark: Benchmark,
    subjects: list[Subject],
    made: dict[float, list[np.ndarray]],
    pool: ProcessPoolExecutor,
) -> None:
    once, twice = (
        [exact(subject) for subject in subjects],
        [exact(s) for s in subjects for _ in range(benchmark.arguments().takes)],
    )
    drawn = list(pool.map(draw_video, [int(subject.name) for subject in subjects]))
    sets = {"drawn": (drawn, once), "scale_0": (made[0.0], twice), "generated": (made[max(made)], twice)}
    claimed = {}
    for title, (videos, truths) in sets.items():
        readings = list(pool.map(read_video, videos))
        for name in PROPORTIONS:
            by_network, coarse = (correlation([pair[way] for pair in readings], truths, name) for way in (0, 1))
            claimed[name] = by_network
            benchmark.note(f"fantasy_id.{title}.{name}_r", by_network)
            benchmark.note(f"fantasy_id.{title}.{name}_r_by_landmarks_and_skin", coarse)
    for name, value in claimed.items():
        benchmark.claim(f"fantasy_id.{name}_r", value, ">=", GOAL)


def main() -> None:
    benchmark = Benchmark("fantasy_id", seed=400_000_000)
    add_options(benchmark)
    arguments = benchmark.arguments()
    arguments.people = arguments.people or (8 if arguments.quick else 40)
    try:
        likeness = Likeness.load(method="fantasy_id", backbone=arguments.checkpoint, adapter=arguments.adapter)
    except WeightsError as error:
        benchmark.note("fantasy_id.left_out", str(error))
        benchmark.finish()
        return
    with ProcessPoolExecutor(2, mp_context=get_context("spawn")) as pool:
        subjects, made = measure_puppets(benchmark, likeness, pool)
        measure_structure(benchmark, subjects, made, pool)
    benchmark.finish()


if __name__ == "__main__":
    main()
