"""Pair the videos of several systems with each other and with reference pictures."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from likeness.errors import ConfigError
from likeness.evaluation.inputs.folders import VIDEOS, files_in
from likeness.evaluation.inputs.reference_matching import (
    find_prompt,
    find_references,
    list_names,
    match_identity,
    read_cases,
)


@dataclass(frozen=True, kw_only=True, slots=True)
class VideoSet:
    """The videos of all systems for one person and prompt."""

    name: str
    videos: Mapping[str, Path]
    """By system."""
    references: tuple[Path, ...]
    prompt: str | None


def read_systems(folders: Sequence[str]) -> dict[str, Path]:
    """Turn `FOLDER` and `NAME=FOLDER` into folders by the system's name.

    Raises:
        ConfigError: A folder does not exist, or two systems have one name.
    """
    systems: dict[str, Path] = {}
    for argument in folders:
        name, equals, path = argument.partition("=")
        folder = Path(path if equals else argument)
        name = name if equals else folder.resolve().name
        if not folder.is_dir():
            raise ConfigError(f"{folder} is no folder. Give a folder of videos for each system.")
        if not name or not name.isprintable():
            raise ConfigError(
                f"A system cannot be called {name!r}: its name is printed and shown. Name it: `name={str(folder)!r}`."
            )
        if name in systems:
            raise ConfigError(
                f"Two systems are called `{name}`. Tell them apart: `{name}_a={systems[name]} {name}_b={folder}`."
            )
        systems[name] = folder
    return systems


def pair_videos(
    systems: Mapping[str, Path],
    references: Path,
    *,
    manifest: Path | None = None,
    allow_missing: bool = False,
) -> list[VideoSet]:
    """Find the videos that all systems have, and their reference pictures.

    Pictures are matched by name: `anna_2.mp4` belongs to `anna.jpg` or to the folder `anna`; the longest name wins. A
    manifest overrides this: JSON, `{"video": {"img_paths": [...], "prompt": "..."}}`, paths relative to the references'
    folder, the layout of OpenS2V and of `likeness bench`.

    Raises:
        ConfigError: There are no videos, two of a system have one name, a system lacks some, or a video has no
            reference.
    """
    videos_by_system = {name: _videos(folder) for name, folder in systems.items()}
    for name, folder in systems.items():
        if not videos_by_system[name]:
            raise ConfigError(f"{folder} holds no video ({', '.join(VIDEOS)}). Give a folder that does.")
    names = sorted(set().union(*videos_by_system.values()))
    complete = [name for name in names if all(name in videos for videos in videos_by_system.values())]
    if len(complete) < len(names) and not allow_missing:
        raise ConfigError(_missing_message(names, videos_by_system))
    if not complete:
        raise ConfigError("No video name occurs in every folder. Give the same names to what is compared.")
    cases = read_cases(manifest, references) if manifest else {}
    people = find_references(references) if manifest is None else {}
    sets = []
    for name in complete:
        videos = {system: videos_by_system[system][name] for system in systems}
        pictures, prompt = cases.get(name, ((), None)) if manifest else (_match(name, people), None)
        if not pictures:
            raise ConfigError(_unpaired_message(name, references, people, manifest))
        sets.append(
            VideoSet(
                name=name,
                videos=videos,
                references=pictures,
                prompt=prompt or find_prompt([*videos.values()]),
            )
        )
    return sets


def _videos(folder: Path) -> dict[str, Path]:
    found: dict[str, Path] = {}
    for path in files_in(folder, VIDEOS):
        if found.setdefault(path.stem, path) != path:
            raise ConfigError(
                f"{found[path.stem]} and {path} have one name, and a video is known by it. Rename or remove one."
            )
    return found


def _match(name: str, people: Mapping[str, tuple[Path, ...]]) -> tuple[Path, ...]:
    person = match_identity(name, people)
    return () if person is None else people[person]


def _missing_message(names: Sequence[str], found: Mapping[str, Mapping[str, Path]]) -> str:
    lines = [
        f"  {system} lacks {list_names([name for name in names if name not in videos])}"
        for system, videos in found.items()
        if len(videos) < len(names)
    ]
    listed = "\n".join(lines)
    return (
        f"Not every system has every video, and all are compared under one name:\n{listed}\n"
        "Add them, or skip these videos with `--allow-missing`."
    )


def _unpaired_message(name: str, references: Path, people: Mapping[str, Any], manifest: Path | None) -> str:
    if manifest is not None:
        return f"{manifest} has no entry `{name}`, but there is such a video. Add it."
    return (
        f"No reference for the video `{name}`: {references} has pictures of {list_names(sorted(people))}. Begin the "
        "video's name with the picture's (`anna.jpg`, `anna_2.mp4`), or give a `--manifest`."
    )
