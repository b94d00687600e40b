"""Do two people in one video keep their identities? Pairs of held-out puppets, each bound to a class word.

The upper bound is the same people, each alone in a video of their own, joined side by side and measured the same way.
"""

from collections.abc import Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from multiprocessing import get_context
from pathlib import Path

import numpy as np
from claims import Benchmark
from identity import Subject, article, draw_subject, make

from likeness.generation import GenerationRequest, Likeness
from likeness.generation.outputs.similarity import faces_by_box
from likeness.media import contact_sheet, write_image

SCENES = (
    ("smiles at the camera", "nods", "in a park"),
    ("talks to the camera", "looks at the camera", "in a kitchen"),
    ("looks at the camera", "smiles", "on a street"),
    ("nods", "talks", "in a library"),
    ("tilts the head", "smiles at the camera", "on a beach"),
    ("smiles", "looks into the camera", "in a studio"),
)
HALVES = ((0.0, 0.0, 0.5, 1.0), (0.5, 0.0, 1.0, 1.0))


@dataclass(frozen=True, slots=True)
class Found:
    """What was found in one frame.

    Attributes:
        distances: for each half of the picture the distances of its face to the left and to the right person's
            reference; None where no face is there.
    """

    distances: tuple[tuple[float, float] | None, tuple[float, float] | None]

    @property
    def is_own(self) -> list[bool]:
        """For every face found, from left to right: whether it is nearest its own reference."""
        return [pair[side] < pair[1 - side] for side, pair in enumerate(self.distances) if pair is not None]


def write_prompt(groups: Sequence[str], number: int) -> str:
    """A prompt that describes no appearance beyond the class words. Every other one names the second person first."""
    first, second, where = SCENES[number % len(SCENES)]
    order = (0, 1) if number % 2 == 0 else (1, 0)
    named = [f"{article(groups[who])} {groups[who]} img{who + 1}" for who in order]
    return f"{named[0]} {first} and {named[1]} {second} {where}"


def write_alone(group: str, number: int, place: int) -> str:
    """What the person named at `place` does in that sentence, in a sentence of its own."""
    *actions, where = SCENES[number % len(SCENES)]
    return f"{article(group)} {group} img {actions[place]} {where}"


def look(frames: np.ndarray, left: np.ndarray, right: np.ndarray) -> list[Found]:
    """Measure every frame with dlib, which knows nothing of regions beyond where a face is."""
    found = []
    for frame in frames:
        pairs = [
            None if face is None else tuple(float(np.linalg.norm(face.embedding - x)) for x in (left, right))
            for face in faces_by_box(frame, HALVES)
        ]
        found.append(Found((pairs[0], pairs[1])))  # pyright: ignore[reportArgumentType]
    return found


def summarize(found: Sequence[Found]) -> dict[str, float]:
    """Shares of frames and faces; NaN where nothing was found."""
    two = [frame.is_own for frame in found if len(frame.is_own) == 2]
    every = [is_own for frame in found for is_own in frame.is_own]
    pairs = [(pair, side) for frame in found for side, pair in enumerate(frame.distances) if pair is not None]
    return {
        "faces_found": len(every) / (2 * len(found)),
        "two_found": len(two) / len(found),
        "both_own": float(np.mean([all(pair) for pair in two])) if two else float("nan"),
        "found_own": float(np.mean(every)) if every else float("nan"),
        "own_distance": float(np.mean([pair[side] for pair, side in pairs])) if pairs else float("nan"),
        "other_distance": float(np.mean([pair[1 - side] for pair, side in pairs])) if pairs else float("nan"),
    }


def write_sheet(path: Path, pairs: Sequence[tuple[Subject, Subject]], videos: Sequence[np.ndarray]) -> None:
    """Both references, then frames cut in two, at most eight pairs; the left half belongs to the first named."""
    rows, side = [], videos[0].shape[1]
    for pair, video in zip(pairs, videos, strict=True):
        halves = [half for frame in video[[0, 8, 16]] for half in (frame[:, :side], frame[:, side:])]
        rows.append([pair[0].face.crop, pair[1].face.crop, *halves])
    captions = [f"{one.group}, {other.group}" for one, other in pairs]
    write_image(path, contact_sheet(rows[:8], captions[:8]))


def main() -> None:
    benchmark = Benchmark("two_people", seed=410_000_000)
    benchmark.parser.add_argument("--checkpoint", type=Path, help="another folder of backbone and adapter")
    benchmark.parser.add_argument("--adapter", type=Path, help="another folder of the adapter alone")
    benchmark.parser.add_argument("--pairs", type=int, help="pairs of puppets; by default 20")
    benchmark.parser.add_argument("--batch", type=int, default=5)
    benchmark.parser.add_argument("--scale", type=float, help="identity scale; by default the preset's")
    benchmark.parser.add_argument("--frame-step", type=int, default=2, help="measure every Nth frame")
    benchmark.parser.add_argument("--folder", type=Path, default=Path("runs/benchmarks"))
    arguments = benchmark.arguments()
    count = arguments.pairs or (4 if arguments.quick else 20)
    likeness = Likeness.load(backbone=arguments.checkpoint, adapter=arguments.adapter)
    with ProcessPoolExecutor(2, mp_context=get_context("spawn")) as pool:
        subjects = list(pool.map(draw_subject, [arguments.seed + number for number in range(2 * count)]))
        pairs = list(zip(subjects[::2], subjects[1::2], strict=True))
        requests = [
            GenerationRequest(
                prompt=write_prompt((one.group, other.group), number),
                people=((one.face,), (other.face,)),
                seed=number,
            )
            for number, (one, other) in enumerate(pairs)
        ]
        # The person named first stands at the left.
        shown = [pair if number % 2 == 0 else pair[::-1] for number, pair in enumerate(pairs)]
        videos = make(likeness, requests, arguments.batch, identity_scale=arguments.scale)
        alone = [
            GenerationRequest(
                prompt=write_alone(subject.group, number, place),
                people=((subject.face,),),
                seed=2 * number + place,
            )
            for number, pair in enumerate(shown)
            for place, subject in enumerate(pair)
        ]
        halves = make(likeness, alone, 2 * arguments.batch, identity_scale=arguments.scale)
        glued = [np.concatenate(two, axis=2) for two in zip(halves[::2], halves[1::2], strict=True)]

        def measure(films: Sequence[np.ndarray]) -> dict[str, float]:
            found = pool.map(
                look,
                [video[:: arguments.frame_step] for video in films],
                [left.face.embedding for left, _ in shown],
                [right.face.embedding for _, right in shown],
            )
            return summarize([frame for frames in found for frame in frames])

        result, apart = measure(videos), measure(glued)
    write_sheet(arguments.folder / "two_people.png", shown, videos)
    for name, value in result.items():
        benchmark.note(f"two_people.{name}", value)
    for name, value in apart.items():
        benchmark.note(f"two_people.alone.{name}", value)
    benchmark.note("two_people.pairs", count)
    benchmark.claim("two_people.both_own", result["both_own"], ">=", 0.80)
    benchmark.claim("two_people.found_own", result["found_own"], ">=", 0.80)
    benchmark.claim("two_people.two_found", result["two_found"], ">", 0.25)
    benchmark.finish()


if __name__ == "__main__":
    main()
