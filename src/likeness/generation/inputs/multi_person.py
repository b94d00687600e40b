"""Several people in one video: their reference faces and the region of the frame that each gets.

The prompt numbers them: "a man img1 shakes hands with a woman img2". `adapters/conditioning/regions.py` separates their
conditioning; `outputs/similarity.py` measures each person.
"""

from collections.abc import Sequence
from dataclasses import replace

from likeness.adapters.conditioning.regions import NormalizedBox, Regions
from likeness.errors import ConfigError
from likeness.generation.inputs.characters import Character
from likeness.generation.inputs.references import PersonInput, read_faces
from likeness.generation.inputs.request import GenerationRequest
from likeness.identity.prompt import split_mentions

PeopleInput = PersonInput | Sequence[PersonInput]
"""The people of a clip: one person, or a list of several, each a list of pictures or a `Character`."""


def split_people(faces: PeopleInput) -> list[PersonInput]:
    """Split the argument into people; one person gives a list of one."""
    if isinstance(faces, (list, tuple)) and any(isinstance(item, (list, tuple, Character)) for item in faces):
        return list(faces)
    return [faces]  # pyright: ignore[reportReturnType]


def build_request(
    prompt: str, people: Sequence[PersonInput], *, seed: int = 0, boxes: Sequence[NormalizedBox] | None = None
) -> GenerationRequest:
    """Read the faces of all people and build the request of one clip.

    Raises:
        ConfigError: A person has no picture.
        FaceError: A picture shows no usable face, or several.
    """
    return GenerationRequest(
        prompt=prompt,
        people=tuple(read_faces(person) for person in people),
        seed=seed,
        character=people[0].describe() if len(people) == 1 and isinstance(people[0], Character) else None,
        regions=None if boxes is None else Regions(areas=tuple(tuple(box) for box in boxes)),  # pyright: ignore[reportArgumentType]
    )


def assign_regions(request: GenerationRequest, own_positions: bool) -> GenerationRequest:
    """Choose the regions of a request that names none, and check those of one that does.

    Args:
        request: The request of one clip.
        own_positions: The backbone was trained on one person, so each person gets a frame of its size.

    Raises:
        ConfigError: Areas were given to such a backbone, or their number is not the number of people.
    """
    if not request.is_multi_person:
        if request.regions is not None:
            raise ConfigError("Regions were given, but one person is shown. Give faces of several, or no regions.")
        return request
    if request.regions is None:
        regions = Regions(cross_region_weight=0.0, own_positions=True) if own_positions else Regions()
        return replace(request, regions=regions)
    request.regions.check(len(request.people))
    if own_positions and request.regions.areas is not None:
        raise ConfigError(
            "This backbone shows people side by side, in the order in which the prompt names them, and cannot place "
            "them in regions. Leave `regions` out, or use another preset."
        )
    return request


def person_boxes(request: GenerationRequest) -> list[NormalizedBox]:
    """The area of the frame in which each person is expected, in the order of their numbers."""
    if not request.is_multi_person:
        return [(0.0, 0.0, 1.0, 1.0)]
    if request.regions is not None and request.regions.areas is not None:
        return list(request.regions.areas)
    order = [mention.person for mention in split_mentions(request.prompt)[0]]
    count = len(order)
    return [(index / count, 0.0, (index + 1) / count, 1.0) for index in map(order.index, range(1, count + 1))]
