"""Copies local files from a folder or an archive to the place where the registry expects them."""

import re
import shutil
import zipfile
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

from likeness.errors import WeightsError
from likeness.weights.files import CHECKSUMS_FILE, component_problems, file_problem, size_problem
from likeness.weights.hashes import store_sha256
from likeness.weights.models import MODELS
from likeness.weights.records import WeightEntry, WeightFile, ZipSource

ProgressCallback = Callable[[str, int, int | None], None]
"""Called with a file's name, the bytes received so far, and its size if known."""


def copy_files(item: WeightEntry, folder: Path, report: ProgressCallback) -> list[WeightFile]:
    """Copy the files from a folder: laid out as in the repository, flat, or in their archive."""
    if (archive := _find_archive(item, folder)) is not None:
        return extract_archive(item, archive, report)
    wanted = {file.path.relative_to(item.folder): file for file in item.files}
    if item.components or getattr(item.source, "patterns", ()):
        # The names of shards are not known in advance, so the whole folder is copied.
        for path in sorted(folder.rglob("*")):
            relative = path.relative_to(folder)
            if path.is_file() and not any(part.startswith(".") for part in relative.parts):
                wanted.setdefault(relative, WeightFile(path=item.folder / relative))
    wanted.pop(Path(CHECKSUMS_FILE), None)
    # Files that an earlier pull listed and this folder lacks are not part of this copy.
    found = {path: origin for path in wanted if (origin := _find_file(folder, path)) is not None}
    wanted = {path: wanted[path] for path in found}
    for path, file in wanted.items():
        origin = found[path]
        if origin.resolve() != file.path.resolve():
            file.path.parent.mkdir(parents=True, exist_ok=True)
            part = file.path.with_name(f".{file.path.name}.part")
            shutil.copyfile(origin, part)
            _verify_and_move(item, file, part)
        report(file.path.name, file.path.stat().st_size, file.size_bytes)
    return list(wanted.values())


def refuse_incomplete(item: WeightEntry, folder: Path) -> None:
    """Refuse a folder that lacks files, or a disk that is too full, before anything is copied.

    Raises:
        WeightsError: All files that are missing or have another size are listed.
    """
    if not folder.is_dir():
        raise WeightsError(f"{folder} is no folder. Name the folder with the files of `{item.name}`.")
    if problems := missing_in(item, folder):
        listed = "".join(f"\n  {problem}" for problem in problems)
        raise WeightsError(f"`{item.name}` needs all of its files; nothing was copied:{listed}")
    origins = [path for path in folder.rglob("*") if path.is_file()]
    needed = sum(path.stat().st_size for path in origins) if item.components else 0
    existing = next(parent for parent in (item.folder, *item.folder.parents) if parent.is_dir())
    free = shutil.disk_usage(existing).free
    if needed > free and folder.resolve() != item.folder.resolve():
        raise WeightsError(
            f"The files of `{item.name}` hold {needed / 1e9:.1f} GB, and {free / 1e9:.1f} GB are free at "
            f"{item.folder}. Make room, or name another place with LIKENESS_HOME."
        )


def missing_in(item: WeightEntry, folder: Path) -> list[str]:
    """Problems of an entry's files in a folder, by presence and size, including shards."""
    if _find_archive(item, folder) is not None:
        return []
    problems = []
    for file in item.files:
        relative = file.path.relative_to(item.folder)
        origin = _find_file(folder, relative)
        if origin is None:
            # The listing of an earlier pull may name shards that no longer exist; the index decides.
            if relative.as_posix() in {known.path.as_posix() for known in MODELS[item.name].files}:
                problems.append(f"{folder} holds no {relative.as_posix()}")
        elif problem := size_problem(replace(file, path=origin)):
            problems.append(problem)
    return problems + [line for stem in item.components for line in component_problems(folder, stem)]


def _find_archive(item: WeightEntry, folder: Path) -> Path | None:
    if not isinstance(item.source, ZipSource):
        return None
    archive = folder / item.source.url.rsplit("/", 1)[-1]
    return archive if archive.is_file() else None


def _find_file(folder: Path, path: Path) -> Path | None:
    return next((candidate for candidate in (folder / path, folder / path.name) if candidate.is_file()), None)


def _verify_and_move(item: WeightEntry, file: WeightFile, part: Path) -> None:
    """Move a file to its final path if it passes the checks."""
    if problem := file_problem(replace(file, path=part)):
        part.unlink(missing_ok=True)
        raise WeightsError(f"The files of `{item.name}` are not what was expected: {problem}. {item.remedy}")
    part.replace(file.path)
    if file.sha256:
        store_sha256(file.path, file.sha256)


def extract_archive(item: WeightEntry, archive: Path, report: ProgressCallback) -> list[WeightFile]:
    """Extract the entry's files from an archive by file name: packs differ in their inner folders."""
    if not archive.is_file():
        return list(item.files)
    try:
        with zipfile.ZipFile(archive) as opened:
            members = {Path(info.filename).name: info for info in opened.infolist() if not info.is_dir()}
            absent = [file.path.name for file in item.files if file.path.name not in members]
            if absent:
                raise WeightsError(f"{archive} holds no {', '.join(absent)}. Get the archive of {item.name}.")
            for file in item.files:
                part = file.path.with_name(f".{file.path.name}.part")
                with opened.open(members[file.path.name]) as packed, part.open("wb") as target:
                    shutil.copyfileobj(packed, target)
                _verify_and_move(item, file, part)
                report(file.path.name, file.path.stat().st_size, file.size_bytes)
    except zipfile.BadZipFile as error:
        raise WeightsError(f"{archive} is no archive: {error}. {item.remedy}") from error
    if archive.parent == item.folder:
        archive.unlink()
    return list(item.files)


def cached_hub_folder(name: str) -> Path | None:
    """The folder in the hub's local cache of a repository such as `zai-org/CogVideoX-5b`; None if it is not there."""
    if not re.fullmatch(r"[\w.-]+/[\w.-]+", name):
        return None
    from huggingface_hub import try_to_load_from_cache

    found = try_to_load_from_cache(name, "model_index.json")
    return Path(found).parent if isinstance(found, str) else None
