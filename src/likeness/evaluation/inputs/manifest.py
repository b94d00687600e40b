"""What is evaluated, from what a user has: folders of videos and of pictures, prompts, or a manifest that says all.

Videos are folders (one a system; `NAME=FOLDER` names it), single files, or manifests. A manifest is a table with a row for
each video: CSV with a head, JSON (a list of rows) or TOML (`[[videos]]`). Columns: `video`, and where the name does not
say it `system`, `name`, `identity`, `references` (pictures; in CSV separated by `;`) and `prompt`. Paths start at the
manifest's folder. References are a folder (`people.find_people`) or JSON in the layout of OpenS2V and `likeness bench`,
`{"video": {"img_paths": [...], "prompt": "..."}}`. Everything that cannot be paired is told at once.
"""

import csv
import difflib
import json
import tomllib
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from likeness.errors import ConfigError
from likeness.evaluation.inputs.folders import (
    VIDEOS,
    SkippedFile,
    entries,
    find_skipped_pictures,
    find_videos,
    links_elsewhere,
)
from likeness.evaluation.inputs.reference_matching import (
    Cases,
    few,
    find_people,
    find_prompt,
    match_person,
    plain,
    read_cases,
    shorten,
    title_of,
)
from likeness.evaluation.inputs.video_items import VideoItem

MANIFESTS = (".csv", ".json", ".toml")
_COLUMNS = ("video", "system", "name", "identity", "references", "prompt")
_LISTED = 20
_SYSTEM = "videos"
"""What those are called that nobody named."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Request:
    """Videos that all know their person, or that are all held against their own first face."""

    items: tuple[VideoItem, ...]
    references: Mapping[str, tuple[Path, ...]] | None
    skipped: tuple[SkippedFile, ...] = ()
    """Files in the folders that were not taken."""
    notes: tuple[str, ...] = ()
    """What else is to be told of the files."""


@dataclass(kw_only=True, slots=True)
class _Draft:
    """What has been found so far, and what is wrong with it."""

    items: list[VideoItem] = field(default_factory=list)
    people: dict[str, tuple[Path, ...]] = field(default_factory=dict)
    problems: list[str] = field(default_factory=list)
    skipped: list[SkippedFile] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)
    sources: dict[str, tuple[str, bool]] = field(default_factory=dict)
    """Where each system's videos come from, and whether its name was given."""

    def add_system(self, name: str, source: str, *, is_named: bool) -> None:
        """Two sources make one system only where it was named for both."""
        before, was_named = self.sources.setdefault(name, (source, is_named))
        if before != source and not (is_named and was_named):
            self.problems.append(f"{before} and {source} would both be the system `{name}`; name them: NAME={source}")

    def add_person(self, name: str, pictures: tuple[Path, ...], where: str) -> None:
        if self.people.setdefault(name, pictures) != pictures:
            self.problems.append(f"{where}: `{name}` has other pictures than before; name another identity")


def read_request(
    videos: Sequence[str],
    references: Path | None,
    prompts: Path | None = None,
    *,
    against_first_face: bool = False,
) -> Request:
    """Find every video, its person and its sentence.

    Args:
        videos: Folders, `NAME=FOLDER`, files and manifests.
        references: A folder of pictures, or cases in JSON.
        prompts: Sentences by video name; without, those in the manifest, the cases or the videos' own records.
        against_first_face: No references are wanted.

    Raises:
        ConfigError: Something is not there, is not what it should be, or cannot be paired; all of it is listed.
    """
    draft = _Draft()
    cases: Cases = {}
    if references is not None and references.is_file():
        cases = read_cases(references, references.parent)
    elif references is not None:
        draft.people.update(find_people(references))
        draft.skipped += find_skipped_pictures(references)
    for word in videos:
        _read_word(word, draft)
    sentences = read_prompts(prompts) if prompts is not None else {}
    items = [_complete(item, draft, cases, sentences, against_first_face) for item in draft.items]
    _check_names(items, draft)
    _check_sentences(items, sentences, prompts, draft)
    if draft.problems:
        shown = "\n".join(f"  {problem}" for problem in draft.problems[:_LISTED])
        rest = len(draft.problems) - _LISTED
        raise ConfigError(
            f"{len(draft.problems)} things stand in the way of evaluating {len(items)} videos:\n{shown}"
            + (f"\n  and {rest} more" if rest > 0 else "")
            + "\nBegin a video's name with its person's (`anna_2.mp4` and `anna.jpg` or `anna/`), or say in a manifest "
            "who is in which video."
        )
    used = {item.identity for item in items}
    people = {name: pictures for name, pictures in draft.people.items() if name in used}
    return Request(
        items=tuple(items),
        references=None if against_first_face else people,
        skipped=tuple(dict.fromkeys(draft.skipped)),
        notes=tuple(draft.notes),
    )


def read_prompts(path: Path) -> dict[str, str]:
    """Read sentences by video name: JSON or TOML of names and sentences, OpenS2V's cases, or CSV `name,prompt`.

    Raises:
        ConfigError: The file is none of these.
    """
    try:
        if path.suffix.lower() == ".csv":
            with path.open(encoding="utf-8-sig", newline="") as file:
                return _by_title((row["name"], row["prompt"]) for row in csv.DictReader(file))
        text = path.read_text(encoding="utf-8-sig")
        table = tomllib.loads(text) if path.suffix.lower() == ".toml" else json.loads(text)
        return _by_title((name, entry["prompt"] if isinstance(entry, dict) else entry) for name, entry in table.items())
    except (OSError, ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
        raise ConfigError(
            f"{path} cannot be read as prompts ({error!r}). Write JSON, a sentence for each video's name: "
            '{"anna_2": "a woman waves"}; TOML of the same, or CSV with the columns `name` and `prompt`.'
        ) from error


def read_rows(path: Path) -> list[dict[str, Any]]:
    """Read the rows of a manifest.

    Raises:
        ConfigError: It is no such table, or has a column that nobody knows.
    """
    try:
        if path.suffix.lower() == ".csv":
            with path.open(encoding="utf-8-sig", newline="") as file:
                rows: Any = [{name: text for name, text in row.items() if text} for row in csv.DictReader(file)]
        else:
            text = path.read_text(encoding="utf-8-sig")
            rows = tomllib.loads(text) if path.suffix.lower() == ".toml" else json.loads(text)
            rows = rows["videos"] if isinstance(rows, dict) else rows
        if not isinstance(rows, list) or not rows or not all(isinstance(row, dict) for row in rows):
            raise ValueError("it has no rows")
        for number, row in enumerate(rows, start=1):
            _check_row(row, f"{path}, row {number}")
    except (OSError, ValueError, KeyError, TypeError, RecursionError) as error:
        if isinstance(error, ConfigError):
            raise
        raise ConfigError(
            f"{path} cannot be read as a manifest ({error!r}). A row for each video is needed, with the columns "
            f"{', '.join(_COLUMNS)}; only `video` must be there."
        ) from error
    return rows


def _check_row(row: Mapping[str, Any], where: str) -> None:
    for name in row:
        if name not in _COLUMNS:
            close = difflib.get_close_matches(str(name), _COLUMNS, n=1)
            advice = f"Did you mean `{close[0]}`?" if close else f"Known: {', '.join(_COLUMNS)}."
            raise ConfigError(f"{where}: unknown column `{name}`. {advice}")
        if not isinstance(row[name], str) and (name != "references" or not isinstance(row[name], list)):
            raise ConfigError(f"{where}: `{name}` is {row[name]!r}; a text is needed.")
    if not row.get("video"):
        raise ConfigError(f"{where}: it has no `video`. Name the file.")


def _read_word(word: str, draft: _Draft) -> None:
    name, equals, rest = word.partition("=")
    path = Path(rest if equals and not Path(word).exists() else word)
    named = name if path == Path(rest) and equals else None
    if path.is_dir():
        system = named or path.resolve().name
        draft.add_system(system, str(path), is_named=named is not None)
        _read_folder(path, system, draft)
    elif not path.exists():
        draft.problems.append(f"{path} does not exist")
    elif not path.is_file():
        draft.problems.append(f"{path} is no regular file; copy the video to disk and name that")
    elif path.suffix.lower() in MANIFESTS:
        _read_manifest(path, named, draft)
    else:
        draft.add_system(named or _SYSTEM, "single files", is_named=named is not None)
        draft.items.append(VideoItem(path=path, system=named or _SYSTEM))


def _read_folder(folder: Path, system: str, draft: _Draft) -> None:
    files, skipped = find_videos(folder)
    draft.skipped += skipped
    if not files:
        inner = [path.name for path in entries(folder) if path.is_dir()]
        advice = f"; name its folders one by one: {', '.join(inner[:5])}" if inner else ""
        others = [Path(each.path).name for each in skipped if not Path(each.path).is_dir()]
        found = f"; left out: {shorten(others)} ({skipped[-1].reason})" if others and not inner else ""
        draft.problems.append(f"{folder} holds no video ({', '.join(VIDEOS)}){advice}{found}")
    if outside := links_elsewhere(folder, files):
        draft.notes.append(
            f"{len(outside)} videos in {folder} are links to files elsewhere: "
            + shorten([f"{path.name} -> {path.resolve()}" for path in outside])
        )
    draft.items += [VideoItem(path=path, system=system) for path in files]


def _read_manifest(path: Path, system: str | None, draft: _Draft) -> None:
    for number, row in enumerate(read_rows(path), start=1):
        where = f"{path.name}, row {number}"
        video = path.parent / row["video"]
        if not video.is_file():
            draft.problems.append(f"{where}: {video} does not exist")
        listed = row.get("references", [])
        listed = [part for part in listed.split(";") if part.strip()] if isinstance(listed, str) else listed
        pictures = tuple(path.parent / str(picture).strip() for picture in listed)
        draft.problems += [f"{where}: {each} does not exist" for each in pictures if not each.is_file()]
        if not row.get("system"):
            draft.add_system(system or _SYSTEM, str(path), is_named=system is not None)
        identity = row.get("identity") or (pictures[0].stem if pictures else None)
        if pictures and identity is not None:
            draft.add_person(identity, pictures, where)
        draft.items.append(
            VideoItem(
                path=video,
                identity=identity,
                prompt=row.get("prompt"),
                system=row.get("system") or system or _SYSTEM,
                name=row.get("name"),
            )
        )


def _complete(
    item: VideoItem,
    draft: _Draft,
    cases: Cases,
    sentences: Mapping[str, str],
    against_first_face: bool,
) -> VideoItem:
    """Fill in whose a video is and what was asked for; the nearest to the user's hand wins."""
    pictures, told = cases.get(item.title, ((), None))
    prompt = sentences.get(title_of(item.title)) or item.prompt or told or find_prompt([Path(item.path)])
    prompt = None if prompt is None else plain(prompt)
    if against_first_face:
        return replace(item, identity=None, prompt=prompt)
    identity = item.identity
    if identity is None and pictures:
        folder = pictures[0].parent.name
        identity = folder if len({each.parent for each in pictures}) == 1 and folder else pictures[0].stem
        if draft.people.get(identity, pictures) != pictures:
            identity = f"{identity} ({', '.join(each.stem for each in pictures)})"
        draft.add_person(identity, pictures, str(item.path))
    if identity is None:
        identity = match_person(item.title, draft.people)
        if identity is None:
            draft.problems.append(f"{item.path} belongs to nobody: its name begins with none of {few(draft.people)}")
    elif identity not in draft.people:
        draft.problems.append(
            f"{item.path} shows `{identity}`, of whom there is no picture; there are {few(draft.people)}"
        )
    return replace(item, identity=identity, prompt=prompt)


def _check_names(items: Sequence[VideoItem], draft: _Draft) -> None:
    seen: dict[tuple[str, str], VideoItem] = {}
    for item in items:
        if not _is_text(str(item.path)):
            draft.problems.append(f"{str(item.path)!r} has a name that is not UTF-8; rename the file")
        known = seen.setdefault((item.system, item.title), item)
        if known is not item:
            draft.problems.append(
                f"{item.path} and {known.path} are both `{item.title}` of the system `{item.system}`; "
                "give one of them another name or system (`NAME=FOLDER`)"
            )
    if not items and not draft.problems:
        draft.problems.append("no video was named")


def _is_text(name: str) -> bool:
    try:
        name.encode()
    except UnicodeEncodeError:
        return False
    return True


def _check_sentences(
    items: Sequence[VideoItem], sentences: Mapping[str, str], source: Path | None, draft: _Draft
) -> None:
    """A file may hold sentences of other videos; a name that nearly fits a video without one was meant for it."""
    unused = sorted(sentences.keys() - {title_of(item.title) for item in items})
    for title in sorted({item.title for item in items if item.prompt is None}):
        if close := difflib.get_close_matches(title, unused, n=1):
            draft.problems.append(
                f"{source} has no sentence for `{title}`, but one for `{close[0]}`, which is no video; correct the name"
            )


def _by_title(pairs: Iterable[tuple[str, Any]]) -> dict[str, str]:
    sentences: dict[str, str] = {}
    for name, value in pairs:
        if not isinstance(value, str) or not value.strip():
            raise ValueError(f"`{name}` has no sentence: {value!r}")
        if sentences.setdefault(title_of(name), value) != value:
            raise ValueError(f"`{title_of(name)}` has two sentences")
    return sentences
