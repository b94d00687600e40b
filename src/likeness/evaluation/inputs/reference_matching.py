"""Match videos with reference pictures by name."""

import logging
import re
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any
from unicodedata import category, normalize

from likeness.errors import ConfigError, LikenessError
from likeness.evaluation.inputs.folders import PICTURES, VIDEOS, entries, files_in, is_hidden
from likeness.files import read_json
from likeness.identity.prompt import TRIGGER

logger = logging.getLogger(__name__)

_LISTED = 5

Cases = dict[str, tuple[tuple[Path, ...], str | None]]
"""Pictures and prompt, by video name."""


def find_references(folder: Path) -> dict[str, tuple[Path, ...]]:
    """Pictures by identity: each folder of pictures is an identity, and so is each picture beside such folders.

    Raises:
        ConfigError: There is no picture, or one name has several sets of pictures.
    """
    if not folder.is_dir():
        raise ConfigError(f"{folder} is not a folder. Give the folder of reference pictures.")
    found: dict[str, list[tuple[Path, ...]]] = {}
    for path in files_in(folder, PICTURES):
        found.setdefault(path.stem, []).append((path,))
    for inner in (path for path in entries(folder) if path.is_dir() and not is_hidden(path)):
        if pictures := tuple(files_in(inner, PICTURES)):
            found.setdefault(inner.name, []).append(pictures)
    if not found:
        raise ConfigError(f"{folder} holds no picture ({', '.join(PICTURES)}). Give a folder that does.")
    twice = {
        name: [each[0].name if each[0].parent == folder else f"{name}/" for each in sets]
        for name, sets in found.items()
        if len(sets) > 1
    }
    if twice:
        listed = "\n".join(f"  {name}: {', '.join(places)}" for name, places in twice.items())
        raise ConfigError(
            f"{folder} has several sets of pictures under one name:\n{listed}\n"
            "Put all pictures of a person into one folder with their name."
        )
    return {name: sets[0] for name, sets in found.items()}


def match_identity(video_name: str, people: Iterable[str]) -> str | None:
    """The identity whose name begins the video's name; the longest match wins (`anna_lee` over `anna`).

    The match must not be followed by a letter, digit or combining mark of any script. Unicode is compared in NFC.
    """
    composed = normalize("NFC", video_name)
    fits = [name for name in people if _begins(composed, normalize("NFC", name))]
    return max(fits, key=lambda name: len(normalize("NFC", name))) if fits else None


def _begins(video_name: str, name: str) -> bool:
    after = video_name[len(name) : len(name) + 1]
    return video_name.startswith(name) and not (after and category(after)[0] in "LMN")


def normalize_name(name: str) -> str:
    """A video's name in NFC, without a video suffix: `anna.mp4` becomes `anna`, `anna_1.5` stays."""
    suffix = Path(name).suffix
    return normalize("NFC", name.removesuffix(suffix) if suffix.lower() in VIDEOS else name)


def read_cases(path: Path, root: Path) -> Cases:
    """Read pictures and prompt by video name: JSON, `{"video": {"img_paths": [...], "prompt": "..."}}`.

    Args:
        path: The JSON.
        root: Folder that the paths in it are relative to.

    Raises:
        ConfigError: The file is not such JSON, or names a picture that does not exist.
    """
    try:
        read = {name: _read_case(entry, root) for name, entry in read_json(path).items()}
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        raise ConfigError(
            f"{path} is not a list of cases ({error!r}). Write JSON: "
            '{"video": {"img_paths": [...], "prompt": "..."}}.'
        ) from error
    absent = [str(picture) for pictures, _ in read.values() for picture in pictures if not picture.is_file()]
    if absent:
        raise ConfigError(f"{path} names pictures that do not exist: {list_names(absent)}. Correct the paths.")
    return read


def _read_case(entry: dict[str, Any], root: Path) -> tuple[tuple[Path, ...], str | None]:
    pictures, prompt = entry["img_paths"], entry.get("prompt")
    if not isinstance(pictures, list):
        raise TypeError(f"`img_paths` is {pictures!r}, not a list")
    if not isinstance(prompt, str | None):
        raise TypeError(f"`prompt` is {prompt!r}, not a text")
    return tuple(root / picture for picture in pictures), prompt


def find_prompt(videos: Sequence[Path]) -> str | None:
    """Read the prompt from the metadata of the first video that has one."""
    from likeness.media import read_metadata

    for video in videos:
        try:
            prompt = read_metadata(video).get("prompt")
        except LikenessError:
            continue  # Reported later, when the video is decoded.
        except Exception as error:  # Foreign files: a damaged tag must not stop the others.
            logger.warning("%r: its metadata cannot be read (%r); it has no prompt.", str(video), error)
            continue
        if isinstance(prompt, str) and prompt.strip():
            return prompt
    return None


def remove_trigger_words(prompt: str) -> str:
    """Remove trigger words (`img`, `img1`), which only this project's models know. Lone surrogates become `?`."""
    text = prompt.encode("utf-8", "replace").decode("utf-8")
    return " ".join(re.sub(rf"\b{TRIGGER}\d?\b", " ", text).split())


def list_names(names: Sequence[str]) -> str:
    """The first five names, and the number of the others."""
    rest = f" and {len(names) - _LISTED} more" if len(names) > _LISTED else ""
    return ", ".join(names[:_LISTED]) + rest
