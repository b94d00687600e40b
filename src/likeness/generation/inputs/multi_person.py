"""Several people in one video: who they are, how large the picture is, where each is, and how alike each comes out.

Each is a person of `references.py`. The prompt numbers them, "a man img1 shakes hands with a woman img2", and how they
are kept apart is the business of `adapters/conditioning/regions.py`.
"""

from collections.abc import Sequence
from dataclasses import replace

import numpy as np

from likeness.adapters.conditioning.regions import Area, Regions
from likeness.errors import ConfigError
from likeness.faces import distances, find_faces, prominence
from likeness.generation.inputs.characters import Character
from likeness.generation.inputs.references import Person, read_faces
from likeness.generation.outputs.similarity import (
    DETECTION_PX,
    mean_embedding,
    measure_similarity,
    refuse_other_engines,
)
from likeness.generation.sampling.sample import GenerationRequest
from likeness.identity.prompt import split_mentions
from likeness.records import Face, Similarity

People = Person | Sequence[Person]
"""Whom a clip shows: one person, or a list of several, each a list of pictures or a `Character`."""


def part_people(faces: People) -> list[Person]:
    """Part a list of several people; one person is a list of one."""
    if isinstance(faces, (list, tuple)) and any(isinstance(one, (list, tuple, Character)) for one in faces):
        return list(faces)
    return [faces]  # pyright: ignore[reportReturnType]


def read_people(faces: People) -> tuple[tuple[Face, ...], ...]:
    """Read every picture of everyone.

    Raises:
        ConfigError: Somebody has no picture.
        FaceError: A picture shows no usable face, or several.
    """
    return tuple(read_faces(person) for person in part_people(faces))


def assign_regions(request: GenerationRequest, own_positions: bool) -> GenerationRequest:
    """Decide where people of a request are, where nobody said it.

    Args:
        request: What is asked for.
        own_positions: The backbone has seen one person at a time, so each gets a frame of its size.

    Raises:
        ConfigError: Areas were given to such a backbone, or their number is not that of the people.
    """
    if not request.others:
        if request.regions is not None:
            raise ConfigError("Regions were given, but one person is shown. Give faces of several, or no regions.")
        return request
    if request.regions is None:
        regions = Regions(cross_region_weight=0.0, own_positions=True) if own_positions else Regions()
        return replace(request, regions=regions)
    request.regions.check(len(request.people))
    if own_positions and request.regions.areas is not None:
        raise ConfigError(
            "This backbone shows people side by side, in the order in which the prompt names them, and cannot place them "
            "in regions. Leave `regions` out, or use another preset."
        )
    return request


def areas_of(request: GenerationRequest) -> list[Area]:
    """Where each person is expected, in the order of their numbers."""
    if request.regions is not None and request.regions.areas is not None:
        return list(request.regions.areas)
    order = [mention.person for mention in split_mentions(request.prompt)[0]]
    count = len(order)
    return [(place / count, 0.0, (place + 1) / count, 1.0) for place in map(order.index, range(1, count + 1))]


def measure(frames: np.ndarray, request: GenerationRequest) -> tuple[Similarity, tuple[Similarity, ...]]:
    """Hold every frame against the references.

    Returns:
        The likeness of the clip, and where several are shown that of each. A frame of several is as good as its worst
        face, and has none where one of them was not found.
    """
    if not request.others:
        return measure_similarity(frames, request.references), ()
    each = measure_people(frames, request.people, areas_of(request))
    joint = Similarity(
        distances=np.stack([one.distances for one in each]).max(axis=0),
        cosines=np.stack([one.cosines for one in each]).min(axis=0),
        threshold=each[0].threshold,
    )
    return joint, each


def measure_people(
    frames: np.ndarray, people: Sequence[Sequence[Face]], areas: Sequence[Area]
) -> tuple[Similarity, ...]:
    """Hold the face in everyone's part of every frame against their references.

    Raises:
        FaceError: A reference was read by another engine than frames are.
    """
    refuse_other_engines([face for references in people for face in references])
    found = [faces_in(frame, areas) for frame in frames]
    measured = []
    for number, references in enumerate(people):
        wanted = mean_embedding(references)
        seen = np.stack([_embedding(faces[number], wanted) for faces in found])
        cosines = seen @ wanted / (np.linalg.norm(seen, axis=1) * np.linalg.norm(wanted))
        measured.append(
            Similarity(
                distances=distances(seen, wanted, references[0].metric).astype(np.float32),
                cosines=cosines.astype(np.float32),
                threshold=references[0].threshold,
            )
        )
    return tuple(measured)


def faces_in(frame: np.ndarray, areas: Sequence[Area]) -> list[Face | None]:
    """The most prominent face whose middle is in each area; None where there is none."""
    height, width = frame.shape[:2]
    # As large as a frame of one person would be shown to the detector.
    faces = find_faces(frame, enlarge_to_px=round(DETECTION_PX * max(height, width) / min(height, width)))
    chosen: list[Face | None] = []
    for left, top, right, bottom in areas:
        inside = [
            face
            for face in faces
            if left <= (face.box[0] + face.box[2]) / 2 / width < right
            and top <= (face.box[1] + face.box[3]) / 2 / height < bottom
        ]
        chosen.append(max(inside, key=prominence, default=None))
    return chosen


def _embedding(face: Face | None, like: np.ndarray) -> np.ndarray:
    return np.full_like(like, np.nan) if face is None else face.embedding
