"""Build an evaluation request from folders of videos and references, prompts, or a manifest.

Videos are folders (one system each; `NAME=FOLDER` names it), single files, or manifests. A manifest is a table with one
row for each video: CSV with a header, JSON (a list of rows) or TOML (`[[videos]]`). Columns: `video` (required),
`system`, `name`, `identity`, `references` (pictures, separated by `;` in CSV) and `prompt`. Paths are relative to the
manifest's folder. References are a folder (`reference_matching.find_references`) or JSON in the layout of OpenS2V and
`likeness bench`, `{"video": {"img_paths": [...], "prompt": "..."}}`. One error lists everything that cannot be paired.
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
    find_prompt,
    find_references,
    list_names,
    match_identity,
    normalize_name,
    read_cases,
    remove_trigger_words,
)
from likeness.evaluation.inputs.video_items import VideoItem, is_label, is_text

MANIFESTS = (".csv", ".json", ".toml")
_COLUMNS = ("video", "system", "name", "identity", "references", "prompt")
_LABELS = ("system", "name", "identity")
_LISTED = 20
_SYSTEM = "videos"
"""Name of the system of single files."""


@dataclass(frozen=True, kw_only=True, slots=True)
class EvaluationRequest:
    """Videos that all have an identity, or are all compared with their own first face."""

    items: tuple[VideoItem, ...]
    references: Mapping[str, tuple[Path, ...]] | None
    skipped: tuple[SkippedFile, ...] = ()
    """Files in the folders that are not evaluated."""
    notes: tuple[str, ...] = ()
    """Remarks on the files for the user, such as links."""


@dataclass(kw_only=True, slots=True)
class _Draft:
    """A request in the making, with the problems found so far."""

    items: list[VideoItem] = field(default_factory=list)
    people: dict[str, tuple[Path, ...]] = field(default_factory=dict)
    problems: list[str] = field(default_factory=list)
    skipped: list[SkippedFile] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)
    sources: dict[str, tuple[str, bool]] = field(default_factory=dict)
    """Source of each system's videos, and whether the user named the system."""

    def add_system(self, name: str, source: str, *, is_named: bool) -> None:
        """Register a system. Two sources form one system only if the user gave both the same name."""
        before, was_named = self.sources.setdefault(name, (source, is_named))
        if before != source and not (is_named and was_named):
            self.problems.append(f"{before} and {source} would both be the system `{name}`; name them: NAME={source}")

    def add_person(self, name: str, pictures: tuple[Path, ...], where: str) -> None:
        if self.people.setdefault(name, pictures) != pictures:
            self.problems.append(f"{where}: `{name}` has other pictures than in an earlier row; use another identity")


def read_request(
    videos: Sequence[str],
    references: Path | None,
    prompts: Path | None = None,
    *,
    against_first_face: bool = False,
) -> EvaluationRequest:
    """Find every video, its identity and its prompt.

    Args:
        videos: Folders, `NAME=FOLDER`, files and manifests.
        references: A folder of pictures, or cases in JSON.
        prompts: Prompts by video name; default: those in the manifest, the cases or the videos' metadata.
        against_first_face: Compare each video with its own first face instead of references.

    Raises:
        ConfigError: Something is missing, malformed or cannot be paired; all problems are listed.
    """
    if not videos:
        raise ConfigError("No video was given. Name a folder of videos for each system, files, or a manifest.")
    draft = _Draft()
    cases: Cases = {}
    if references is not None and references.is_file():
        cases = read_cases(references, references.parent)
    elif references is not None:
        draft.people.update(find_references(references))
        draft.skipped += find_skipped_pictures(references)
    for argument in videos:
        _read_argument(argument, draft)
    prompt_by_name = read_prompts(prompts) if prompts is not None else {}
    items = [_complete(item, draft, cases, prompt_by_name, against_first_face) for item in draft.items]
    _check_names(items, draft)
    _check_prompts(items, prompt_by_name, prompts, draft)
    if draft.problems:
        shown = "\n".join(f"  {problem}" for problem in draft.problems[:_LISTED])
        rest = len(draft.problems) - _LISTED
        raise ConfigError(
            f"{len(draft.problems)} things prevent the evaluation of {len(items)} videos:\n{shown}"
            + (f"\n  and {rest} more" if rest > 0 else "")
            + "\nBegin a video's name with its person's (`anna_2.mp4` and `anna.jpg` or `anna/`), or say in a manifest "
            "who is in which video."
        )
    used = {item.identity for item in items}
    people = {name: pictures for name, pictures in draft.people.items() if name in used}
    return EvaluationRequest(
        items=tuple(items),
        references=None if against_first_face else people,
        skipped=tuple(dict.fromkeys(draft.skipped)),
        notes=tuple(draft.notes),
    )


def read_prompts(path: Path) -> dict[str, str]:
    """Read prompts by video name: JSON or TOML of names and prompts, OpenS2V's cases, or CSV `name,prompt`.

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
    except (OSError, ValueError, KeyError, TypeError, AttributeError, RecursionError, csv.Error) as error:
        raise ConfigError(
            f"{path} cannot be read as prompts ({error!r}). Write JSON with a prompt for each video name: "
            '{"anna_2": "a woman waves"}; TOML of the same, or CSV with the columns `name` and `prompt`.'
        ) from error


def read_rows(path: Path) -> list[dict[str, Any]]:
    """Read the rows of a manifest.

    Raises:
        ConfigError: It is not such a table, or has an unknown column.
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
    except (OSError, ValueError, KeyError, TypeError, RecursionError, csv.Error) as error:
        if isinstance(error, ConfigError):
            raise
        raise ConfigError(
            f"{path} cannot be read as a manifest ({error!r}). One row for each video is needed, with the columns "
            f"{', '.join(_COLUMNS)}; only `video` is required."
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
    for name in _LABELS:
        if row.get(name) and not is_label(row[name]):
            raise ConfigError(f"{where}: `{name}` is {row[name]!r}; a name without control characters is needed.")
    if not row.get("video"):
        raise ConfigError(f"{where}: it has no `video`. Give the path of the file.")


def _read_argument(argument: str, draft: _Draft) -> None:
    name, equals, rest = argument.partition("=")
    path = Path(rest if equals and not Path(argument).exists() else argument)
    named = name if path == Path(rest) and equals else None
    if path.is_dir():
        system = named or path.resolve().name
        draft.add_system(system, str(path), is_named=named is not None)
        _read_folder(path, system, draft)
    elif not path.exists():
        draft.problems.append(f"{path} does not exist")
    elif not path.is_file():
        draft.problems.append(f"{path} is not a regular file; copy the video to disk and give that path")
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
        found = f"; skipped: {list_names(others)} ({skipped[-1].reason})" if others and not inner else ""
        draft.problems.append(f"{folder} holds no video ({', '.join(VIDEOS)}){advice}{found}")
    if outside := links_elsewhere(folder, files):
        draft.notes.append(
            f"{len(outside)} videos in {folder} are links to files elsewhere: "
            + list_names([f"{path.name} -> {path.resolve()}" for path in outside])
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
    prompt_by_name: Mapping[str, str],
    against_first_face: bool,
) -> VideoItem:
    """Fill in identity and prompt; explicit options win over the manifest, cases and metadata."""
    pictures, case_prompt = cases.get(item.resolved_name, ((), None))
    prompt = (
        prompt_by_name.get(normalize_name(item.resolved_name))
        or item.prompt
        or case_prompt
        or find_prompt([Path(item.path)])
    )
    prompt = None if prompt is None else remove_trigger_words(prompt)
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
        identity = match_identity(item.resolved_name, draft.people)
        if identity is None:
            draft.problems.append(
                f"{item.path} matches no reference: its name begins with none of {_known(draft.people)}"
            )
    elif identity not in draft.people:
        draft.problems.append(f"{item.path} shows `{identity}`, who has no reference; known: {_known(draft.people)}")
    return replace(item, identity=identity, prompt=prompt)


def _known(people: Iterable[str]) -> str:
    return list_names(sorted(people)) or "none"


def _check_names(items: Sequence[VideoItem], draft: _Draft) -> None:
    seen: dict[tuple[str, str], VideoItem] = {}
    for item in items:
        if not is_text(str(item.path)):
            draft.problems.append(f"{str(item.path)!r} has a name that is not UTF-8; rename the file")
        elif not is_text(item.system):
            draft.problems.append(f"the system {item.system!r} has a name that is not UTF-8; name it (`NAME=FOLDER`)")
        known = seen.setdefault((item.system, item.resolved_name), item)
        if known is not item:
            draft.problems.append(
                f"{item.path} and {known.path} are both `{item.resolved_name}` of the system `{item.system}`; "
                "give one of them another name or system (`NAME=FOLDER`)"
            )
    if not items and not draft.problems:
        draft.problems.append("the folders and manifests hold no video")


def _check_prompts(
    items: Sequence[VideoItem], prompt_by_name: Mapping[str, str], source: Path | None, draft: _Draft
) -> None:
    """A file may hold prompt_by_name of other videos; a name that nearly fits a video without one was meant for it."""
    unused = sorted(prompt_by_name.keys() - {normalize_name(item.resolved_name) for item in items})
    for resolved_name in sorted({item.resolved_name for item in items if item.prompt is None}):
        if close := difflib.get_close_matches(resolved_name, unused, n=1):
            draft.problems.append(
                f"{source} has no prompt for `{resolved_name}`, but one for `{close[0]}`, which is not a video; "
                "correct the name"
            )


def _by_title(pairs: Iterable[tuple[str, Any]]) -> dict[str, str]:
    prompt_by_name: dict[str, str] = {}
    for name, value in pairs:
        if not isinstance(value, str) or not value.strip():
            raise ValueError(f"`{name}` has no prompt: {value!r}")
        if prompt_by_name.setdefault(normalize_name(name), value) != value:
            raise ValueError(f"`{normalize_name(name)}` has two prompts")
    return prompt_by_name
