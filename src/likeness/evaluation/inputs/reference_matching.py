"""Who is in which video: reference pictures by person, matched with videos by name."""

import json
import logging
import re
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any
from unicodedata import category, normalize

from likeness.errors import ConfigError, LikenessError
from likeness.evaluation.inputs.folders import PICTURES, VIDEOS, entries, files_in, is_hidden
from likeness.identity.prompt import TRIGGER

__all__ = ["PICTURES", "VIDEOS", "files_in"]

logger = logging.getLogger(__name__)

_LISTED = 5

Cases = dict[str, tuple[tuple[Path, ...], str | None]]
"""Pictures and prompt, by video name."""


def find_people(folder: Path) -> dict[str, tuple[Path, ...]]:
    """Pictures by person: a folder of pictures is a person, and so is a picture beside such folders.

    Raises:
        ConfigError: There is no picture, or it is not clear which pictures a person has.
    """
    if not folder.is_dir():
        raise ConfigError(f"{folder} is no folder. Name the folder of reference pictures.")
    found: dict[str, list[tuple[Path, ...]]] = {}
    for path in files_in(folder, PICTURES):
        found.setdefault(path.stem, []).append((path,))
    for inner in (path for path in entries(folder) if path.is_dir() and not is_hidden(path)):
        if pictures := tuple(files_in(inner, PICTURES)):
            found.setdefault(inner.name, []).append(pictures)
    if not found:
        raise ConfigError(f"{folder} holds no picture ({', '.join(PICTURES)}). Name a folder that does.")
    twice = {
        name: [each[0].name if each[0].parent == folder else f"{name}/" for each in sets]
        for name, sets in found.items()
        if len(sets) > 1
    }
    if twice:
        listed = "\n".join(f"  {name}: {', '.join(places)}" for name, places in twice.items())
        raise ConfigError(
            f"{folder} has several sets of pictures under one name:\n{listed}\n"
            "Put all pictures of a person into one folder of their name."
        )
    return {name: sets[0] for name, sets in found.items()}


def match_person(title: str, people: Iterable[str]) -> str | None:
    """Whose name begins a video's name. Of `anna` and `anna_lee` the longest that ends at a boundary is meant.

    No letter, digit or sign on a letter, of any script, follows at a boundary. Letters with accents are the same however
    they are composed.
    """
    composed = normalize("NFC", title)
    fits = [name for name in people if _begins(composed, normalize("NFC", name))]
    return max(fits, key=lambda name: len(normalize("NFC", name))) if fits else None


def _begins(title: str, name: str) -> bool:
    after = title[len(name) : len(name) + 1]
    return title.startswith(name) and not (after and category(after)[0] in "LMN")


def title_of(name: str) -> str:
    """A video's name, composed, without the suffix of a video if it has one: `anna_1.5` is whole, `anna.mp4` is not."""
    suffix = Path(name).suffix
    return normalize("NFC", name.removesuffix(suffix) if suffix.lower() in VIDEOS else name)


def read_cases(path: Path, root: Path) -> Cases:
    """Read pictures and prompt by video name: JSON, `{"video": {"img_paths": [...], "prompt": "..."}}`.

    Args:
        path: The JSON.
        root: Where the paths in it start.

    Raises:
        ConfigError: The file is no such JSON, or names a picture that is not there.
    """
    try:
        entries: dict[str, dict[str, Any]] = json.loads(path.read_text(encoding="utf-8-sig"))
        read = {
            name: (tuple(root / picture for picture in entry["img_paths"]), entry.get("prompt"))
            for name, entry in entries.items()
        }
    except (OSError, ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
        raise ConfigError(
            f'{path} is no manifest ({error!r}). Write JSON: {{"video": {{"img_paths": [...], "prompt": "..."}}}}.'
        ) from error
    absent = [str(picture) for pictures, _ in read.values() for picture in pictures if not picture.is_file()]
    if absent:
        raise ConfigError(f"{path} names pictures that are not there: {shorten(absent)}. Correct the paths.")
    return read


def find_prompt(videos: Sequence[Path]) -> str | None:
    """Read the sentence from the record inside any of the videos. What is no sentence there is none."""
    from likeness.media import read_metadata

    for video in videos:
        try:
            prompt = read_metadata(video).get("prompt")
        except LikenessError:
            continue  # Whoever reads it in full tells its fault.
        except Exception as error:  # Other people's files: no tag may end what is done with the others.
            logger.warning("%r: its record cannot be read (%r); it counts as without a prompt.", str(video), error)
            continue
        if isinstance(prompt, str) and prompt.strip():
            return prompt
    return None


def plain(prompt: str) -> str:
    """Take trigger words out, numbered ones too, which mean nothing to people and to other models.

    Halves of surrogate pairs, which JSON can hold and no file of text, become question marks.
    """
    text = prompt.encode("utf-8", "replace").decode("utf-8")
    return " ".join(re.sub(rf"\b{TRIGGER}\d?\b", " ", text).split())


def shorten(names: Sequence[str]) -> str:
    """The first few names, and how many more there are."""
    rest = f" and {len(names) - _LISTED} more" if len(names) > _LISTED else ""
    return ", ".join(names[:_LISTED]) + rest


def few(names: Mapping[str, Any]) -> str:
    """The first few names of a mapping, or `nobody`."""
    return shorten(sorted(names)) or "nobody"
