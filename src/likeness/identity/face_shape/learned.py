"""The shape source that ships: a small network (`network.py`) reads a head in the puppets' topology from head crops.

Puppets are rendered synthetic people (`likeness.puppets`).
"""

from collections.abc import Sequence
from functools import cache
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from likeness.identity.face_shape.network import ShapeNetwork
from likeness.identity.face_shape.source import BUNDLED_SHAPE_FOLDER, require_faces
from likeness.records import Face


class LearnedShape:
    """Reads the crops of all references and averages the predicted shapes.

    Example:
        vertices = LearnedShape()(views)
    """

    topology = "puppet"

    def __init__(self, folder: Path | None = None) -> None:
        """Load the network in `folder`, by default the one that ships. Raises WeightsError if there is none."""
        self.network = _load(BUNDLED_SHAPE_FOLDER if folder is None else folder)

    @property
    def num_vertices(self) -> int:
        return len(self.network.mean)

    def __call__(self, faces: Sequence[Face], /) -> NDArray[np.float32]:
        require_faces(faces)
        return self.network.read(np.stack([face.crop for face in faces])).astype(np.float32)


@cache
def _load(folder: Path) -> ShapeNetwork:
    return ShapeNetwork.load(folder)
