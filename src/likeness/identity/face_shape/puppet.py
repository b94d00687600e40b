"""The exact shape of a puppet, for training and benchmarks. It does not read pictures."""

from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from likeness.identity.face_shape.proportions import NUM_VERTICES
from likeness.records import Face

if TYPE_CHECKING:
    from likeness.puppets import PuppetPerson


class PuppetShape:
    """A shape source for a known puppet.

    Example:
        fantasy.shape_source = PuppetShape(sample_person(7))
    """

    topology = "puppet"
    num_vertices = NUM_VERTICES

    def __init__(self, person: "PuppetPerson | int") -> None:
        """Build the head of a puppet, given as a `PuppetPerson` or by its seed."""
        from likeness.puppets import sample_person  # imports numba, only if puppets are used
        from likeness.puppets.people.shape import build_head

        self.vertices = build_head(sample_person(person) if isinstance(person, int) else person).vertices

    def __call__(self, faces: Sequence[Face], /) -> NDArray[np.float32]:
        del faces
        return self.vertices.copy()
