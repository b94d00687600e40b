"""Does every metric move the right way when one thing is changed in a video, and nothing else?

Puppet clips with known person, motion and expression are changed by degrees: the person is mixed with another, the
motion slowed to a standstill, the camera shaken, the image blurred, frames replaced by a still copy of the reference.
For each change the output shows the mean of each metric at each degree and the rank correlation of degree and mean. A
correlation is claimed where the sign is known beforehand (`EXPECTED`). The last part compares the true motion of the
landmarks with motion metrics over clips.

Only metrics that need no weights but dlib's are measured. The two people of a mix are of one group, so that hair and
age alone do not distinguish them.
"""

import warnings
from collections.abc import Iterable
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from functools import partial
from multiprocessing import get_context
from pathlib import Path

import cv2
import numpy as np
from claims import Benchmark
from scipy.stats import ConstantInputWarning, spearmanr

from likeness.errors import FaceError
from likeness.evaluation.features.base import Arrays, DecodedVideo
from likeness.evaluation.features.cache import MeasuredVideo, VideoInfo
from likeness.evaluation.features.registry import FEATURES, sort_by_dependency
from likeness.evaluation.metrics.inputs import ReferenceSet
from likeness.evaluation.metrics.landmark_motion import motion_between_frames
from likeness.evaluation.metrics.registry import METRICS
from likeness.evaluation.results.score import build_metric_inputs
from likeness.faces import read_face
from likeness.media import resize
from likeness.puppets import PuppetPerson, sample_clip, sample_image, sample_person
from likeness.records import Face

FPS = 8.0
DEGREES = (0.0, 0.25, 0.5, 0.75, 1.0)
ACTIONS = (
    "nod",
    "turn_left",
    "talk",
    "shake",
    "smile",
    "tilt",
    "come_closer",
    "laugh",
    "look_around",
    "turn_right",
)
MEASURED_FEATURES = {"faces", "flow"}
MEASURED = [
    name
    for name, metric in METRICS.items()
    if metric.compute_for_video is not None and set(metric.required_features) <= MEASURED_FEATURES
]
EXPECTED: dict[str, dict[str, int]] = {
    "another person": {
        "average_id_similarity": -1,
        "average_id_similarity_all": -1,
        "average_id_similarity_pairs": -1,
        "id_distance": 1,
        "match_rate": -1,
        "rank1_rate": -1,
    },
    "freeze": {
        "fm_inter": -1,
        "fm_inter_mean": -1,
        "face_flow": -1,
        "face_flow_relative": -1,
        "fast_flow_farneback": -1,
        "dynamic_degree_farneback": -1,
        "motion_score": -1,
        "interframe_similarity_dlib": 1,
    },
    "shake": {
        "fm_inter": 1,
        "fm_inter_mean": 1,
        "face_flow": 1,
        "face_flow_relative": 1,
        "fast_flow_farneback": 1,
        "dynamic_degree_farneback": 1,
    },
    "blur": {
        "average_id_similarity": -1,
        "average_id_similarity_all": -1,
        "id_distance": 1,
        "match_rate": -1,
    },
    "copy of the reference": {
        "average_id_similarity": 1,
        "average_id_similarity_all": 1,
        "copy_gap": 1,
        "fm_ref": -1,
    },
}
STILL = ("fm_inter", "fm_inter_mean", "face_flow", "face_flow_relative", "dynamic_degree_farneback")
"""Metrics that are 0 for a still copy. At degrees in between, the cut from clip to copy counts as motion."""
TRUTH = ("fm_inter_mean", "face_flow_relative", "fast_flow_farneback")


@dataclass(frozen=True, kw_only=True, slots=True)
class Sitter:
    """One puppet with two readable pictures."""

    person: PuppetPerson
    faces: tuple[Face, ...]
    picture: np.ndarray
    """The first of its references, which a copy shows."""


def draw_sitter(seed: int, group: str) -> Sitter:
    """Draw somebody of a group, with two pictures in which exactly one face is found."""
    for attempt in range(10):
        person, faces, pictures = sample_person(seed + 100_000 * attempt, group=group), [], []
        for take in range(12):
            picture = sample_image(seed + 1000 * take, person=person, size_px=256, max_yaw_deg=12).frames[0]
            try:
                faces.append(read_face(picture))
            except FaceError:
                continue
            pictures.append(picture)
            if len(faces) == 2:
                return Sitter(person=person, faces=tuple(faces), picture=pictures[0])
    raise AssertionError(f"no readable {group} near seed {seed}")


def mix(a: PuppetPerson, b: PuppetPerson, share: float) -> PuppetPerson:
    """Identity numbers on the way from one person to another."""
    numbers = (1 - share) * a.numbers + share * b.numbers
    return PuppetPerson(group=a.group, numbers=numbers.astype(np.float32))


def slow_down(frames: np.ndarray, degree: float) -> np.ndarray:
    """The same number of frames over a shorter and shorter part of the motion; at 1 the first frame stands still."""
    places = np.arange(len(frames)) * (1 - degree)
    return frames[np.round(places).astype(int)]


def shake(frames: np.ndarray, degree: float, seed: int) -> np.ndarray:
    """Move a picture that stands still by random offsets of up to a twentieth of its size; edges are repeated.

    Farneback's flow, with its window of 15 px, stops growing at offsets of about a tenth.
    """
    directions = np.random.default_rng([seed, 1]).uniform(-1, 1, (len(frames), 2))
    size = frames.shape[1]
    most = int(np.ceil(0.05 * size))
    moved = []
    for frame, direction in zip(frames, directions, strict=True):
        down, across = np.round(0.05 * size * degree * direction).astype(int)
        padded = np.pad(frame, ((most, most), (most, most), (0, 0)), mode="edge")
        moved.append(padded[most - down : most - down + size, most - across : most - across + size])
    return np.stack(moved)


def blur(frames: np.ndarray, degree: float) -> np.ndarray:
    """A Gaussian of up to a twenty-fifth of the picture's size."""
    if degree == 0:
        return frames
    return np.stack([cv2.GaussianBlur(frame, (0, 0), 0.04 * frames.shape[1] * degree) for frame in frames])


def copy(frames: np.ndarray, degree: float, picture: np.ndarray) -> np.ndarray:
    """Replace the last frames by a still reference picture; at 1 all of them."""
    count = round(degree * len(frames))
    still = resize(picture, frames.shape[2], frames.shape[1])
    return np.concatenate([frames[: len(frames) - count], np.repeat(still[None], count, axis=0)])


def find_all_faces(clips: Iterable[np.ndarray]) -> list[Arrays]:
    """The feature `faces` of each clip, found in one go: what clips share is looked at once."""
    clips = list(clips)
    faces = FEATURES["faces"].compute(DecodedVideo(frames=np.concatenate(clips), fps=FPS), {})
    ends = np.cumsum([len(clip) for clip in clips])
    parts = []
    for begin, end in zip(ends - [len(clip) for clip in clips], ends, strict=True):
        mine = (faces["frame"] >= begin) & (faces["frame"] < end)
        part = {name: values[mine] for name, values in faces.items()}
        parts.append(part | {"frame": part["frame"] - begin})
    return parts


def measure(frames: np.ndarray, faces: Arrays, sitter: Sitter, gallery: np.ndarray) -> dict[str, float]:
    """Every metric of one changed clip. The gallery's first row is the right person."""
    video, features = DecodedVideo(frames=frames, fps=FPS), {"faces": faces}
    for name in sort_by_dependency(MEASURED_FEATURES):
        if name not in features:
            features[name] = FEATURES[name].compute(video, features)
    info = VideoInfo(num_frames=len(frames), fps=FPS, width_px=frames.shape[2], height_px=frames.shape[1])
    references = ReferenceSet(
        embeddings=np.stack([face.embedding for face in sitter.faces]),
        landmarks=np.stack([face.landmarks for face in sitter.faces]),
        arrays={},
        sizes_px=np.full((len(sitter.faces), 2), sitter.picture.shape[0], dtype=np.float64),
    )
    inputs = build_metric_inputs(MeasuredVideo(info=info, features=features), references, gallery, 0, "prominent")
    scores = {}
    for name in MEASURED:
        compute_for_video = METRICS[name].compute_for_video
        assert compute_for_video is not None
        scores[name] = compute_for_video(inputs)
    return scores


def respond(number: int, *, seed: int, num_frames: int, size_px: int) -> tuple[dict, float, dict[str, float]]:
    """All changes at all degrees of one clip, its true motion, and its figures unchanged."""
    groups = ("man", "woman", "elderly man", "elderly woman", "boy", "girl")
    group, own_seed = groups[number % len(groups)], seed + 10 * number
    sitter, other = draw_sitter(own_seed, group), draw_sitter(own_seed + 1, group)
    others = [
        other,
        draw_sitter(own_seed + 2, group),
        draw_sitter(own_seed + 3, groups[(number + 1) % len(groups)]),
    ]
    gallery = np.stack(
        [np.mean([face.embedding for face in one.faces], axis=0) for one in (sitter, *others)],
        dtype=np.float64,
    )
    film = partial(sample_clip, own_seed, action=ACTIONS[number % len(ACTIONS)], num_frames=num_frames, size_px=size_px)
    clip = film(person=sitter.person)
    clips = {}
    for degree in DEGREES:
        clips["another person", degree] = film(person=mix(sitter.person, other.person, degree)).frames
        clips["freeze", degree] = slow_down(clip.frames, degree)
        clips["shake", degree] = shake(slow_down(clip.frames, 1.0), degree, own_seed)
        clips["blur", degree] = blur(clip.frames, degree)
        clips["copy of the reference", degree] = copy(clip.frames, degree, sitter.picture)
    faces = find_all_faces(clips.values())
    table = {
        key: measure(frames, found, sitter, gallery) for (key, frames), found in zip(clips.items(), faces, strict=True)
    }
    return table, float(np.mean(motion_between_frames(clip.landmarks))), table["freeze", 0.0]


def correlate(first: np.ndarray, second: np.ndarray) -> float:
    """Spearman's rank correlation; 0 where one side does not move."""
    kept = np.isfinite(first) & np.isfinite(second)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ConstantInputWarning)
        rank = spearmanr(first[kept], second[kept]).statistic if kept.sum() > 2 else np.nan
    return float(np.nan_to_num(rank))


def gamma(first: np.ndarray, second: np.ndarray) -> float:
    """Goodman and Kruskal's rank correlation: agreeing minus disagreeing pairs over both, ties left out.

    Rates that end at 0 or 1 stay there while a change goes on; Spearman's would call that half a failure. 0 where
    nothing moves at all.
    """
    signs = [
        np.sign(first[i] - first[j]) * np.sign(second[i] - second[j])
        for i in range(len(first))
        for j in range(i)
        if np.isfinite(second[i]) and np.isfinite(second[j])
    ]
    moving = [sign for sign in signs if sign]
    return float(np.mean(moving)) if moving else 0.0


def show(change: str, tables: list[dict], benchmark: Benchmark) -> dict[str, str]:
    """Print one change's table, claim what is expected, and return a Markdown cell for each metric."""
    cells_by_metric = {}
    for name in MEASURED:
        values = np.array([[table[change, degree][name] for degree in DEGREES] for table in tables])
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", RuntimeWarning)  # Nobody has the figure at this degree.
            means = np.nanmean(values, axis=0)
        rank, order = correlate(np.array(DEGREES), means), gamma(np.array(DEGREES), means)
        sign = EXPECTED[change].get(name)
        arrow = {None: "", 1: "rises", -1: "falls"}[sign]
        cells = " ".join(f"{mean:.3f}" for mean in means)
        shown = "→".join(f"{mean:.3f}" for mean in means[::2])
        cells_by_metric[name] = f"{shown} {f'**{order:+.2f}**' if sign is not None else f'{order:+.2f}'}"
        print(f"  {change:22} {name:30} {cells}  rank {rank:+.2f} gamma {order:+.2f} {arrow}", flush=True)
        if sign is not None:
            benchmark.claim(f"responses.{change.replace(' ', '_')}.{name}", sign * order, ">=", 0.9)
        if change == "copy of the reference" and name in STILL:
            benchmark.claim(f"responses.still_copy.{name}", means[-1] / means[0], "<=", 0.05)
    return cells_by_metric


def main() -> None:
    benchmark = Benchmark("responses", seed=72_000_000)
    benchmark.parser.add_argument("--clips", type=int, help="puppet clips; by default 200")
    benchmark.parser.add_argument("--frames", type=int, default=17)
    benchmark.parser.add_argument("--size-px", type=int, default=96)
    benchmark.parser.add_argument("--workers", type=int, default=2)
    benchmark.parser.add_argument(
        "--table", type=Path, help="write a table of degrees 0, 0.5, 1 and gamma here, in Markdown"
    )
    arguments = benchmark.arguments()
    count = arguments.clips or (4 if arguments.quick else 200)
    one = partial(respond, seed=arguments.seed, num_frames=arguments.frames, size_px=arguments.size_px)
    results = []
    with ProcessPoolExecutor(arguments.workers, mp_context=get_context("spawn")) as pool:
        for result in (pool.map if arguments.workers > 1 else map)(one, range(count)):
            results.append(result)
            print(f"  {len(results)} of {count} clips", flush=True)
    benchmark.note("responses.clips", count)
    columns = [show(change, [table for table, _, _ in results], benchmark) for change in EXPECTED]
    rows = [f"| metric | {' | '.join(EXPECTED)} |", f"|{'---|' * (len(EXPECTED) + 1)}"]
    rows += [f"| {name} | {' | '.join(column[name] for column in columns)} |" for name in MEASURED]
    truths = np.array([truth for _, truth, _ in results])
    for name in TRUTH:
        rank = correlate(truths, np.array([plain[name] for _, _, plain in results]))
        benchmark.note(f"responses.true_motion.{name}", rank)
        if name == "fm_inter_mean":
            benchmark.claim("responses.true_motion.fm_inter_mean", rank, ">=", 0.8)
    if arguments.table:
        arguments.table.parent.mkdir(parents=True, exist_ok=True)
        arguments.table.write_text("\n".join(rows) + "\n")
    benchmark.finish()


if __name__ == "__main__":
    main()
