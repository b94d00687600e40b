"""Read reference pictures, videos or a character as a tuple of `Face`."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np

from likeness.errors import ConfigError
from likeness.faces import read_face
from likeness.faces.video_faces import read_video_faces
from likeness.generation.inputs.characters import Character
from likeness.generation.inputs.people import check_person
from likeness.media import is_video
from likeness.records import Face

FaceInput = str | Path | np.ndarray | Face
"""A picture of a face; a file may also be a short video, which gives several faces."""
PersonInput = FaceInput | Sequence[FaceInput] | Character
"""One or several pictures or videos of a person, or a saved character."""


def read_faces(faces: PersonInput, *, pick: int | None = None) -> tuple[Face, ...]:
    """Read every picture as a face, and every short video as its most different views of a face.

    The faces of a character are those stored in it.

    Raises:
        ConfigError: There is no picture.
        MediaError: A file cannot be read, or a video is too short.
        FaceError: A picture or video shows no usable face, or several and `pick` is None.
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
    return tuple(face for picture in faces for face in _read_picture(picture, pick))


def choose_person(faces: Sequence[str | Path], character: str | Path | None, *, pick: int | None = None) -> PersonInput:
    """Read the pictures or load the character.

    Raises:
        ConfigError: Both were given, or neither.
        MediaError: A file is missing or cannot be read.
        FaceError: A picture or video shows no usable face, or several and `pick` is None.
    """
    check_person(faces, character=character)
    if character:
        return Character.load(character)
    return read_faces(list(faces), pick=pick)


def _read_picture(picture: FaceInput, pick: int | None) -> list[Face]:
    if isinstance(picture, Face):
        return [picture]
    if isinstance(picture, (str, Path)) and is_video(picture):
        return read_video_faces(picture, pick=pick)
    return [read_face(picture, pick=pick)]
