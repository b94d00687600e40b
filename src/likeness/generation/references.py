"""The reference: whatever a user has of a face becomes a tuple of `Face`."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np

from likeness.errors import ConfigError
from likeness.faces import read_face
from likeness.records import Face

FacePicture = str | Path | np.ndarray | Face
"""What a face may be given as."""


def read_faces(faces: FacePicture | Sequence[FacePicture], *, pick: int | None = None) -> tuple[Face, ...]:
    """Read every picture as a face.

    Raises:
        ConfigError: There is no picture.
        FaceError: A picture shows no usable face, or several and `pick` is None.
    """
    if isinstance(faces, (str, Path, np.ndarray, Face)):
        faces = [faces]
    if not faces:
        raise ConfigError(
            "No face was given; at least one picture of the person is needed. Use `--face me.jpg`."
        )
    return tuple(face if isinstance(face, Face) else read_face(face, pick=pick) for face in faces)
