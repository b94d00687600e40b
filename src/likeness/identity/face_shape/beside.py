"""Vertices from a file beside the picture: `me.ply`, `me.obj` or `me.npy` for `me.jpg`; useful for many references."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from likeness.errors import WeightsError
from likeness.identity.face_shape.flame import NUM_VERTICES, FlameShape, setup_instructions
from likeness.identity.face_shape.source import require_faces
from likeness.records import Face

SUFFIXES = (".ply", ".obj", ".npy")


class BesideShape:
    """Reads the file beside the first reference that has one."""

    topology = "flame"
    num_vertices = NUM_VERTICES

    def __call__(self, faces: Sequence[Face], /) -> NDArray[np.float32]:
        """The vertices of the file.

        Raises:
            WeightsError: No picture has a file beside it.
            ConfigError: The file has other content.
        """
        require_faces(faces)
        pictures = [Path(face.source) for face in faces]
        vertices_file = next((file for picture in pictures if (file := find_vertices(picture)) is not None), None)
        if vertices_file is None:
            expected = " or ".join(pictures[0].with_suffix(suffix).name for suffix in SUFFIXES)
            raise WeightsError(f"No vertices lie beside {pictures[0]}: {expected} is missing. {setup_instructions()}")
        return FlameShape(vertices_file)(faces)


def find_vertices(picture: Path) -> Path | None:
    """The file of vertices with a picture's name in the same folder, or None."""
    paths = [picture.with_suffix(suffix) for suffix in SUFFIXES] if picture.name else []
    return next((path for path in paths if path.is_file()), None)
