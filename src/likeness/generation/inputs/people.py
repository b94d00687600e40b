"""Check the pictures or character given for a person, before a face engine or model is imported."""

from collections.abc import Sequence
from pathlib import Path

from likeness.errors import ConfigError
from likeness.generation.inputs.character_files import find_character
from likeness.media.guard import check_media_file


def check_person(faces: Sequence[str | Path], *, character: str | Path | None) -> None:
    """Require either pictures or a character, and existing files.

    Raises:
        ConfigError: Both were given, or neither, or the character does not exist.
        MediaError: A file is missing, empty or a folder.
    """
    if faces and character:
        raise ConfigError(
            f"Pictures and the character `{character}` were given, but one person is shown. Give one of both."
        )
    if not faces and not character:
        raise ConfigError(
            "No face was given; at least one picture of the person is needed. Use `--face me.jpg`, or a saved "
            "`--character`."
        )
    if character:
        find_character(character)
    for face in faces:
        check_media_file(Path(face), expected="a picture or a video of a face")
