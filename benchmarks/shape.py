"""The error of a head predicted from images against the true one, on held-out puppets.

Errors are mean distances of vertices, in units of each face's own width, beside those of the mean head. Images are
128 px wide; crops are cut by the true landmarks, and for part of the people by those that dlib finds in an image of
256 px, as `generate` does it.
"""

from pathlib import Path

import numpy as np
from claims import Benchmark

from likeness.errors import FaceError
from likeness.faces import crop_head, read_face
from likeness.identity.face_shape.learned import LearnedShape
from likeness.identity.face_shape.proportions import measure
from likeness.identity.face_shape.sliders import SHAPE_NUMBERS
from likeness.puppets import sample_image, sample_person
from likeness.puppets.people.shape import build_head
from likeness.training.base.shape_network import vertex_errors

VIEWS = 6
"""Pictures of each person: other pose, light, setting and expression."""


def crops_of(seed: int) -> np.ndarray:
    """Head crops (views, 128, 128, 3) of one person, by the true landmarks."""
    person, crops = sample_person(seed), []
    for take in range(VIEWS):
        clip = sample_image(seed + 1000 * take, person=person, size_px=128, zoom=1.0)
        crops.append(crop_head(clip.frames[0], clip.landmarks[0], 128))
    return np.stack(crops)


def detected_crop(seed: int) -> np.ndarray | None:
    """The head crop of a first reference picture, by dlib; None where it finds no single face."""
    picture = sample_image(seed, person=sample_person(seed), size_px=256).frames[0]
    try:
        return read_face(picture).crop
    except FaceError:
        return None


def main() -> None:
    benchmark = Benchmark("shape", seed=600_000_000)
    benchmark.parser.add_argument("--network", type=Path, help="another folder of the network")
    benchmark.parser.add_argument("--people", type=int, help="puppets; by default 100")
    arguments = benchmark.arguments()
    seeds = range(arguments.seed, arguments.seed + (arguments.people or (10 if arguments.quick else 100)))
    network = LearnedShape(arguments.network).network
    mean = network.mean.numpy()
    true = np.stack([build_head(sample_person(seed)).vertices for seed in seeds])
    crops = [crops_of(seed) for seed in seeds]

    single = np.stack([network.read(views[:1]) for views in crops])
    several = np.stack([network.read(views) for views in crops])
    found = [detected_crop(seed) for seed in seeds]
    kept = [row for row, crop in enumerate(found) if crop is not None]
    detected = np.stack([network.read(crop[None]) for crop in found if crop is not None])

    benchmark.note("shape.people", len(true))
    benchmark.note("shape.people_found_by_dlib", len(kept))
    for name, read, of in (
        ("one_view", single, true),
        ("six_views", several, true),
        ("dlib", detected, true[kept]),
    ):
        for figure, value in vertex_errors(read, of, mean).items():
            benchmark.note(f"shape.{name}.{figure}", value)
    truths = [measure(head) for head in true]
    for name, read in (("one_view", single), ("six_views", several)):
        seen = [measure(head) for head in read]
        for proportion in SHAPE_NUMBERS.values():
            pair = [[each[proportion] for each in heads] for heads in (seen, truths)]
            benchmark.note(f"shape.{name}.{proportion}_r", float(np.corrcoef(pair)[0, 1]))
    benchmark.claim("shape.one_view.face_ratio", vertex_errors(single, true, mean)["face_ratio"], "<=", 0.7)
    benchmark.claim("shape.six_views.face_ratio", vertex_errors(several, true, mean)["face_ratio"], "<=", 0.5)
    benchmark.claim("shape.dlib.face_ratio", vertex_errors(detected, true[kept], mean)["face_ratio"], "<=", 0.75)
    benchmark.finish()


if __name__ == "__main__":
    main()
