"""Sliders of a face's shape (FantasyID, arXiv:2502.13995v1, Fig. 4): vertex offsets before a method encodes the shape.

A slider's direction is the mean displacement of each vertex over puppets (rendered synthetic people) when one shape
number grows by one standard deviation. Directions are computed once (`derive_directions`) when the network of
`learned.py` is trained, and stored with it. They are linear: if a feature moves across the mesh, like the tip of the
nose, large values also change its sharpness.
"""

from collections.abc import Sequence
from functools import cache
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from pydantic import Field
from safetensors.numpy import save_file

from likeness.config import Settings
from likeness.errors import ConfigError, WeightsError
from likeness.files import write_atomically
from likeness.identity.face_shape.proportions import refuse_other_topology
from likeness.identity.face_shape.source import BUNDLED_SHAPE_FOLDER, ShapeSource
from likeness.records import Face
from likeness.weights.tensors import read_arrays

SHAPE_NUMBERS = {
    "face_width": "face_width",
    "face_length": "face_length",
    "jaw": "jaw_width",
    "chin": "chin_length",
    "nose": "nose_length",
    "eyes": "eye_spacing",
}
"""The puppets' shape number of each slider; it is also the proportion of `proportions.measure` that changes."""
LIMIT = 3.0
"""Largest absolute value, in standard deviations."""
_FILE = "sliders.safetensors"


class FaceShape(Settings):
    """Change of a face's shape, in standard deviations over people; 0 is no change.

    Example:
        likeness.generate("a woman img waves", faces=["me.jpg"], face_shape=FaceShape(jaw=-1.5))
    """

    face_width: float = Field(default=0.0, ge=-LIMIT, le=LIMIT)
    """Width of the whole face, from the cheekbones down."""
    face_length: float = Field(default=0.0, ge=-LIMIT, le=LIMIT)
    """Length from the brows to the chin."""
    jaw: float = Field(default=0.0, ge=-LIMIT, le=LIMIT)
    """Width between the corners of the jaw."""
    chin: float = Field(default=0.0, ge=-LIMIT, le=LIMIT)
    """Length from mouth to chin."""
    nose: float = Field(default=0.0, ge=-LIMIT, le=LIMIT)
    """Length from the eyes to the base of the nose."""
    eyes: float = Field(default=0.0, ge=-LIMIT, le=LIMIT)
    """Distance between the eyes."""

    @property
    def is_neutral(self) -> bool:
        """Whether all sliders are 0."""
        return not any(self.model_dump().values())

    def move(self, vertices: NDArray[np.floating]) -> NDArray[np.float32]:
        """Apply the sliders to a head.

        Args:
            vertices: (vertices, 3) in the puppets' topology.

        Raises:
            ConfigError: The vertices have another topology.
            WeightsError: The directions that ship are missing.
        """
        edited = refuse_other_topology(vertices)
        for name, deviations in self.model_dump().items():
            if deviations:
                edited = edited + deviations * load_directions()[name]
        return edited.astype(np.float32)


class EditedShapeSource:
    """Applies sliders to the shapes of another source."""

    def __init__(self, source: ShapeSource, face_shape: FaceShape) -> None:
        if source.topology != "puppet" and not face_shape.is_neutral:
            raise ConfigError(
                f"The sliders move heads in the puppets' topology; this source has the topology `{source.topology}`. "
                "Use the source `learned`, or leave the sliders at 0."
            )
        self.source, self.face_shape = source, face_shape

    @property
    def topology(self) -> str:
        return self.source.topology

    @property
    def num_vertices(self) -> int:
        return self.source.num_vertices

    def __call__(self, faces: Sequence[Face], /) -> NDArray[np.float32]:
        vertices = self.source(faces)
        return vertices if self.face_shape.is_neutral else self.face_shape.move(vertices)


def derive_directions(num_people: int = 40) -> dict[str, NDArray[np.float32]]:
    """Compute each slider's direction (vertices, 3) from puppets, in seconds.

    Central differences of one standard deviation either way, averaged over the first `num_people` puppets.
    """
    from likeness.puppets import (
        IDENTITY_NUMBERS,
        PuppetPerson,
        sample_person,
    )  # numba loads only where puppets are used
    from likeness.puppets.people.shape import build_head

    def head_vertices(person: PuppetPerson, number: str, change: float) -> NDArray[np.float32]:
        numbers = person.numbers.copy()
        numbers[IDENTITY_NUMBERS.index(number)] += change
        return build_head(PuppetPerson(person.group, numbers)).vertices

    people = [sample_person(seed) for seed in range(num_people)]
    return {
        name: np.stack([head_vertices(p, number, 1.0) - head_vertices(p, number, -1.0) for p in people]).mean(axis=0)
        / 2
        for name, number in SHAPE_NUMBERS.items()
    }


def save_directions(folder: Path, directions: dict[str, NDArray[np.float32]]) -> None:
    """Write the directions as float16 into the folder of a shape network."""
    with write_atomically(folder / _FILE) as draft:
        save_file({name: value.astype(np.float16) for name, value in directions.items()}, draft)


@cache
def load_directions(folder: Path = BUNDLED_SHAPE_FOLDER) -> dict[str, NDArray[np.float64]]:
    """Read directions, by default those that ship: (vertices, 3) for each slider.

    Raises:
        WeightsError: The file is missing, or has other sliders.
    """
    try:
        arrays = read_arrays(folder / _FILE)
    except WeightsError as error:
        raise WeightsError(
            f"No directions of sliders at {folder} ({error}). `likeness train recipes/tiny/shape.toml` makes them."
        ) from error
    if set(arrays) != set(SHAPE_NUMBERS):
        raise WeightsError(
            f"{folder / _FILE} holds {', '.join(sorted(arrays))}; {', '.join(sorted(SHAPE_NUMBERS))} were expected. "
            "Install likeness again, or check the folder out again."
        )
    return {name: value.astype(np.float64) for name, value in arrays.items()}
