"""The reference: whatever a user has of a face becomes a tuple of `Face`."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np

from likeness.errors import ConfigError
from likeness.faces import read_face
from likeness.generation.characters import Character
from likeness.records import Face

FacePicture = str | Path | np.ndarray | Face
"""What a face may be given as."""
Person = FacePicture | Sequence[FacePicture] | Character
"""What a person may be given as: one or several pictures, or a saved character."""


def read_faces(faces: Person, *, pick: int | None = None) -> tuple[Face, ...]:
    """Read every picture as a face. The faces of a character were read when it was made.

    Raises:
        ConfigError: There is no picture.
        FaceError: A picture shows no usable face, or several and `pick` is None.
    """
    if isinstance(faces, Character):
        return faces.faces
    if isinstance(faces, (str, Path, np.ndarray, Face)):
        faces = [faces]
    if not faces:
        raise ConfigError(
            "No face was given; at least one picture of the person is needed. Use `--face me.jpg`, or a saved "
            "`--character`."
        )
    return tuple(face if isinstance(face, Face) else read_face(face, pick=pick) for face in faces)


def choose_person(
    faces: Sequence[str | Path], character: str | Path | None, *, pick: int | None = None
) -> Person:
    """Read the pictures or load the character: whichever a user named.

    Raises:
        ConfigError: Both were named, or neither.
    """
    if faces and character:
        raise ConfigError(
            f"Pictures and the character `{character}` were given, but one person is shown. Give one of both."
        )
    if character:
        return Character.load(character)
    return read_faces(list(faces), pick=pick)
