"""References as arrays: what a method's encoders read of `Face` records or pictures."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np

from likeness.errors import ConfigError
from likeness.records import Face

FaceInput = Face | str | Path
"""What a reference may be given as."""


def read_references(
    faces: FaceInput | Sequence[FaceInput], *, embedding_width: int
) -> tuple[np.ndarray, np.ndarray]:
    """Read every reference and stack what encoders need.

    Shapes:
        returns: crops (references, height, width, 3) uint8, embeddings (references, embedding_width)

    Raises:
        ConfigError: There is no reference, or one was read by an engine whose embeddings have another width.
        FaceError: A picture shows no usable face, or several.
    """
    records = read_faces(faces)
    for record in records:
        if record.embedding.shape != (embedding_width,):
            raise ConfigError(
                f"The embedding of {record.source}, read by `{record.engine}`, has {record.embedding.size} numbers; "
                f"the adapter was trained on {embedding_width}. Read the face with the engine of its training."
            )
    return np.stack([face.crop for face in records]), np.stack([face.embedding for face in records])


def read_faces(faces: FaceInput | Sequence[FaceInput]) -> list[Face]:
    """Read every reference as a record.

    Raises:
        ConfigError: There is no reference.
        FaceError: A picture shows no usable face, or several.
    """
    if isinstance(faces, (str, Path, Face)):
        faces = [faces]
    if not faces:
        raise ConfigError("No reference face was given; at least one is needed. Pass a picture.")
    return [_read(face) for face in faces]


def _read(face: FaceInput) -> Face:
    if isinstance(face, Face):
        return face
    from likeness.faces import read_face  # the face engine loads only where pictures are given

    return read_face(face)
