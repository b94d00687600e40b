"""Puts files that are on this machine where the registry looks for them: out of a folder, or out of an archive."""

import shutil
import zipfile
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

from likeness.errors import WeightsError
from likeness.weights.files import CHECKSUMS_FILE, problem_of
from likeness.weights.records import WeightEntry, WeightFile, Zip

ProgressCallback = Callable[[str, int, int | None], None]
"""Called with a file's name, its bytes that are here, and its size where that is known."""


def copy(item: WeightEntry, folder: Path, report: ProgressCallback) -> list[WeightFile]:
    """Take the files from a folder: laid out as in the repository, bare, or still in their archive."""
    if not folder.is_dir():
        raise WeightsError(f"{folder} is no folder. Name the one that holds the files of `{item.name}`.")
    if isinstance(item.source, Zip):
        archive = folder / item.source.url.rsplit("/", 1)[-1]
        if archive.is_file():
            return unpack(item, archive, report)
    wanted = {file.path.relative_to(item.folder): file for file in item.files}
    if item.components or getattr(item.source, "patterns", ()):
        # Shards have names of their own, so the whole folder comes.
        for path in sorted(folder.rglob("*")):
            relative = path.relative_to(folder)
            if path.is_file() and not any(part.startswith(".") for part in relative.parts):
                wanted.setdefault(relative, WeightFile(path=item.folder / relative))
    wanted.pop(Path(CHECKSUMS_FILE), None)
    found = {path: _find(folder, path) for path in wanted}
    if absent := [str(path) for path, origin in found.items() if origin is None]:
        raise WeightsError(f"{folder} holds no {', '.join(absent)}. `{item.name}` needs all of its files.")
    for path, file in wanted.items():
        origin = found[path]
        assert origin is not None
        if origin.resolve() != file.path.resolve():
            file.path.parent.mkdir(parents=True, exist_ok=True)
            part = file.path.with_name(f".{file.path.name}.part")
            shutil.copyfile(origin, part)
            _settle(item, file, part)
        report(file.path.name, file.path.stat().st_size, file.size_bytes)
    return list(wanted.values())


def _find(folder: Path, path: Path) -> Path | None:
    return next((place for place in (folder / path, folder / path.name) if place.is_file()), None)


def _settle(item: WeightEntry, file: WeightFile, part: Path) -> None:
    """Let a file that is here into place if it is what it must be."""
    if problem := problem_of(replace(file, path=part)):
        part.unlink(missing_ok=True)
        raise WeightsError(f"The files of `{item.name}` are not what was expected: {problem}. {item.remedy}")
    part.replace(file.path)


def unpack(item: WeightEntry, archive: Path, report: ProgressCallback) -> list[WeightFile]:
    """Take the entry's files out of an archive, by name alone: packs differ in the folders inside."""
    if not archive.is_file():
        return list(item.files)
    try:
        with zipfile.ZipFile(archive) as opened:
            members = {Path(info.filename).name: info for info in opened.infolist() if not info.is_dir()}
            absent = [file.path.name for file in item.files if file.path.name not in members]
            if absent:
                raise WeightsError(
                    f"{archive} holds no {', '.join(absent)}. Get the archive that {item.name} names."
                )
            for file in item.files:
                part = file.path.with_name(f".{file.path.name}.part")
                with opened.open(members[file.path.name]) as packed, part.open("wb") as target:
                    shutil.copyfileobj(packed, target)
                _settle(item, file, part)
                report(file.path.name, file.path.stat().st_size, file.size_bytes)
    except zipfile.BadZipFile as error:
        raise WeightsError(f"{archive} is no archive: {error}. {item.remedy}") from error
    if archive.parent == item.folder:
        archive.unlink()
    return list(item.files)
