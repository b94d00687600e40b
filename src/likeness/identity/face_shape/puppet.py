"""The exact shape of a puppet: what training and benchmarks know. It looks at no picture."""

from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from likeness.identity.face_shape.proportions import NUM_VERTICES
from likeness.records import Face

if TYPE_CHECKING:
    from likeness.puppets import PuppetPerson


class PuppetShape:
    """A source that knows who is shown.

    Example:
        fantasy.shape_source = PuppetShape(sample_person(7))
    """

    topology = "puppet"
    num_vertices = NUM_VERTICES

    def __init__(self, person: "PuppetPerson | int") -> None:
        """Shape the head of a puppet, given itself or by its seed."""
        from likeness.puppets import sample_person  # numba loads only where puppets are used
        from likeness.puppets.people.shape import build_head

        self.vertices = build_head(sample_person(person) if isinstance(person, int) else person).vertices

    def __call__(self, faces: Sequence[Face], /) -> NDArray[np.float32]:
        del faces
        return self.vertices.copy()
