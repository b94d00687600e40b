"""Lists the sources of a recipe, with their hashes and facts, and everything that is left out at once."""

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path

from likeness.curation.reading.hashes import FileFacts, HashIndex
from likeness.curation.reading.lists import Entry, read_facts, read_list
from likeness.curation.settings import ReadSettings, WriteSettings
from likeness.curation.stage import Kind, Source
from likeness.errors import ConfigError
from likeness.training.files import tar

STAGE = "read"
"""Stage of everything that is dropped before the first stage."""
_BESIDE = (".txt", ".json")
"""Files beside media that say something of them."""
_KINDS: dict[str, Kind] = {"picture": "image", "video": "video"}


@dataclass(frozen=True, kw_only=True, slots=True)
class FoundSource:
    """A source, and how it was found."""

    source: Source
    name: str
    """Its path from the folder or list that named it, for records: the same wherever that lies."""
    stamp: tuple[int, int, int]
    """Size, date and inode when it was hashed."""


@dataclass(frozen=True, kw_only=True, slots=True)
class LeftOut:
    """A file that is no source."""

    name: str
    reason: str
    value: str | None = None
    sha256: str = ""


@dataclass(kw_only=True, slots=True)
class Sources:
    """All that was found: every file is in one of the two."""

    used: dict[str, FoundSource] = field(default_factory=dict)
    """By SHA-256."""
    left_out: list[LeftOut] = field(default_factory=list)


def ignore_progress(*_: object) -> None:
    """Show no progress."""


def find_sources(
    read: ReadSettings,
    index: HashIndex,
    *,
    write: WriteSettings | None = None,
    is_forgotten: Callable[[Source], bool] = lambda _: False,
    on_progress: Callable[[int, int], None] = ignore_progress,
) -> Sources:
    """Find and hash all files. Of files with equal bytes the first is used.

    Args:
        read: Where to look.
        index: Remembered hashes.
        write: Its licences and consent are checked here, before any work is done.
        is_forgotten: Whether a source may not be used again (`forget.py`).
        on_progress: Called with files done, and all.

    Raises:
        ConfigError: A folder or list is missing or cannot be read.
        MediaError: A tar file cannot be read.
    """
    entries = _merge(_entries(read))
    result = Sources()
    found = index.look_up([entry.path for entry in entries])
    for number, (entry, (_, facts)) in enumerate(zip(entries, found, strict=True), start=1):
        _sort_in(result, entry, facts, {**read.facts, **entry.facts}, write, is_forgotten)
        on_progress(number, len(entries))
    return result


def _sort_in(
    result: Sources,
    entry: Entry,
    known: FileFacts,
    facts: Mapping[str, str],
    write: WriteSettings | None,
    is_forgotten: Callable[[Source], bool],
) -> None:
    def leave_out(reason: str, value: str | None = None) -> None:
        result.left_out.append(LeftOut(name=entry.name, reason=reason, value=value, sha256=known.sha256))

    if not known.sha256:
        return leave_out("the file cannot be read", known.kind)
    if known.kind not in _KINDS:
        return leave_out("not a picture or a video")
    source = Source(path=entry.path, sha256=known.sha256, kind=_KINDS[known.kind], facts=dict(facts))
    if is_forgotten(source):
        # Without its name, which may tell the person's.
        result.left_out.append(LeftOut(name="", reason="forgotten", sha256=known.sha256))
        return None
    if (first := result.used.get(known.sha256)) is not None:
        return leave_out("the same bytes as another file", first.name)
    if write is not None and write.licences is not None and facts.get("licence") not in write.licences:
        return leave_out("its licence is not allowed", facts.get("licence", "none is recorded"))
    if write is not None and write.needs_consent and not facts.get("consent", "").strip():
        return leave_out("no consent is recorded")
    result.used[known.sha256] = FoundSource(source=source, name=entry.name, stamp=known.stamp)
    return None


def _entries(read: ReadSettings) -> Iterator[Entry]:
    # Lists come first: what they say of a file counts more than what stands beside it.
    for path in read.lists:
        yield from read_list(path)
    for folder in read.folders:
        yield from _read_folder(folder, are_folders_people=read.are_folders_people)
    for path in read.shards:
        shards = sorted(path.glob(f"*{tar.SHARD_SUFFIX}")) if path.is_dir() else [path]
        if not shards:
            raise ConfigError(f"{path} has no tar files. Name a folder of shards, or one of them.")
        for shard in shards:
            yield from _read_shard(shard)


def _merge(entries: Iterator[Entry]) -> list[Entry]:
    """One entry for each path; later ones add the facts that earlier ones lack."""
    merged: dict[Path, Entry] = {}
    for entry in entries:
        first = merged.setdefault(entry.path, entry)
        if first is not entry:
            merged[entry.path] = Entry(path=first.path, name=first.name, facts={**entry.facts, **first.facts})
    return list(merged.values())


def _read_folder(folder: Path, *, are_folders_people: bool) -> Iterator[Entry]:
    if not folder.is_dir():
        raise ConfigError(f"{folder} is not a folder. Name a folder of photographs and videos in `read.folders`.")
    paths = sorted(
        path
        for path in folder.rglob("*")
        if path.is_file() and not any(part.startswith(".") for part in path.relative_to(folder).parts)
    )
    media = {path.with_suffix("") for path in paths if path.suffix.lower() not in _BESIDE}
    for path in paths:
        if path.suffix.lower() in _BESIDE and path.with_suffix("") in media:
            continue
        inside = path.relative_to(folder)
        facts = {"person": inside.parts[0]} if are_folders_people and len(inside.parts) > 1 else {}
        beside = {suffix: _read_beside(path.with_suffix(suffix)) for suffix in _BESIDE}
        facts |= read_facts(beside[".txt"], beside[".json"], where=str(inside))
        yield Entry(path=Path(path).absolute(), name=inside.as_posix(), facts=facts)


def _read_beside(path: Path) -> bytes | None:
    return path.read_bytes() if path.is_file() else None


def _read_shard(shard: Path) -> Iterator[Entry]:
    # Names that lead out of the archive belong to nobody.
    names = sorted(name for name in tar.members(shard) if ".." not in Path(name).parts and not Path(name).is_absolute())
    keys: dict[str, dict[str, str]] = {}
    for name in names:
        keys.setdefault(_key(name), {})[Path(name).name.partition(".")[2].lower()] = name
    for name in names:
        extension = Path(name).name.partition(".")[2].lower()
        parts = keys[_key(name)]
        if f".{extension}" in _BESIDE and len(parts) > 1:
            continue
        beside = [tar.read_bytes(shard / parts[one]) if one in parts else None for one in ("txt", "json")]
        # References of a sample are media of the same person, but have no caption of their own.
        facts = read_facts(*(beside if "." not in extension else (None, beside[1])), where=f"{shard.name}/{name}")
        yield Entry(path=shard.absolute() / name, name=f"{shard.name}/{name}", facts=facts)


def _key(name: str) -> str:
    path = Path(name)
    return (path.parent / path.name.partition(".")[0]).as_posix()
