"""Names and files of saved characters. Reads none, so that no face engine is imported."""

import difflib
import re
from pathlib import Path

from likeness.errors import CharacterError, ConfigError
from likeness.generation.outputs.destinations import check_folder_writable
from likeness.weights import home

SUFFIX = ".safetensors"
_NAME_PATTERN = re.compile(r"\w[\w -]{0,63}")


def check_character(name: str, consent: str) -> None:
    """Require a name that is a valid file name, and a consent note.

    Raises:
        ConfigError: One of them is invalid.
    """
    if not _NAME_PATTERN.fullmatch(name) or name != name.strip():
        raise ConfigError(
            f"A character cannot be called {name!r}. Use up to 64 letters, digits, spaces, - and _, "
            "beginning with a letter or digit."
        )
    if not consent.strip():
        raise ConfigError(
            "The consent note is empty. Say in words who agreed to be shown, when and for what: "
            '`--consent "Ana agreed by e-mail on 3 May 2026"`.'
        )


def character_file(name: str, path: str | Path | None = None, *, replace: bool = False) -> Path:
    """The file to which a character will be written.

    Raises:
        ConfigError: Something is there already and `replace` is False, or the suffix is another.
        CharacterError: A folder has that name.
        FileWriteError: Nothing can be written there.
    """
    path = character_folder() / f"{name}{SUFFIX}" if path is None else Path(path)
    if path.suffix != SUFFIX:
        raise ConfigError(f"{path} cannot hold a character. Let its name end in {SUFFIX}.")
    check_folder_writable(path.parent)
    if path.is_dir():
        raise CharacterError(f"{path} cannot hold a character: it is a folder. Name a file inside it.")
    if (path.exists() or path.is_symlink()) and not replace:
        raise ConfigError(f"{path} is there already. Use another name, or `--replace` to overwrite it.")
    return path


def character_folder() -> Path:
    """The folder of saved characters."""
    return home() / "characters"


def character_names() -> list[str]:
    """Names of the saved characters, including damaged ones."""
    files = character_folder().glob(f"*{SUFFIX}")
    return sorted(file.stem for file in files if not file.name.startswith("."))


def find_character(name_or_file: str | Path) -> Path:
    """The file of a saved character, or of one given by its path.

    Raises:
        ConfigError: There is neither; the message proposes the closest name.
    """
    text = str(name_or_file)
    if isinstance(name_or_file, str) and text in character_names():
        return character_folder() / f"{text}{SUFFIX}"
    if Path(text).is_file():
        return Path(text)
    names = character_names()
    close = difflib.get_close_matches(text, names, n=1)
    known = f"Saved: {', '.join(names)}." if names else "None is saved yet."
    advice = f"Did you mean `{close[0]}`?" if close else known
    raise ConfigError(
        f"No character and no file is called `{text}`. {advice} "
        'Make one with `likeness character add NAME --face me.jpg --consent "..."`.'
    )


def remove_character(name: str) -> Path:
    """Delete a saved character; a file given by its path is refused.

    Raises:
        ConfigError: No saved character has that name.
    """
    if name not in character_names():
        find_character(name)
        raise ConfigError(f"{name} is a file, not the name of a saved character. Delete the file itself.")
    path = character_folder() / f"{name}{SUFFIX}"
    path.unlink()
    return path
