"""The registry of weights: name, files, checksums, size, licence, preset.

A preset names the permitted use: `tiny` ships with the package, `open` allows commercial use, `research` does not.
Weights that do not ship are in `$LIKENESS_HOME/models/NAME`, put there by the user or by `likeness models pull NAME`.
This module finds and verifies files and never opens a network connection; `weights.pull` does. `models` is the table
of weights, `files` and `hashes` check files, `strict` compares tensors with an architecture, `tensors` reads them.
"""

import dataclasses
import importlib.util
import os
import sys
from pathlib import Path

from likeness.errors import WeightsError
from likeness.weights.files import (
    CHECKSUMS_FILE,
    component_problems,
    file_problem,
    read_listing,
    sha256_of,
    size_problem,
    write_checksums,
)
from likeness.weights.models import MODELS
from likeness.weights.records import (
    LICENCE_PRESETS,
    HubSource,
    LicencePreset,
    UrlSource,
    WeightEntry,
    WeightFile,
    ZipSource,
)

__all__ = [
    "CHECKPOINTS",
    "CHECKSUMS_FILE",
    "LICENCE_PRESETS",
    "MODELS",
    "HubSource",
    "LicencePreset",
    "UrlSource",
    "WeightEntry",
    "WeightFile",
    "ZipSource",
    "entry",
    "home",
    "locate",
    "names",
    "sha256_of",
    "verify",
    "verify_quickly",
    "write_checksums",
]

CHECKPOINTS = Path(__file__).parent.parent / "checkpoints"
_DLIB_PACKAGE = "face_recognition_models"
_DLIB_FILES = {
    "dlib-landmarks": (
        "shape_predictor_5_face_landmarks.dat",
        "c4b1e9804792707d3a405c2c16a80a20269e6675021f64a41d30fffafbc41888",
        9_150_489,
    ),
    "dlib-recognizer": (
        "dlib_face_recognition_resnet_model_v1.dat",
        "55533b28a95800a551ba546ba62fe69625c7e95a7061c338adffead08719da30",
        22_466_066,
    ),
}


def home() -> Path:
    """The folder of files that do not ship: `$LIKENESS_HOME`, or `likeness` in the platform's cache folder.

    Weights are in its subfolder `models`, one folder per name, which is also insightface's layout.
    """
    if chosen := os.environ.get("LIKENESS_HOME"):
        return Path(chosen).expanduser()
    if sys.platform == "darwin":
        caches = Path.home() / "Library" / "Caches"
    elif sys.platform == "win32":
        caches = Path(os.environ.get("LOCALAPPDATA") or Path.home() / "AppData" / "Local")
    else:
        caches = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache")
    return caches / "likeness"


def names() -> list[str]:
    """Names of weights that ship or are installed with the package, complete or not. `MODELS` has the others."""
    folders = sorted(CHECKPOINTS.iterdir()) if CHECKPOINTS.is_dir() else []
    return [*(folder.name for folder in folders if folder.is_dir()), *_DLIB_FILES]


def entry(name: str) -> WeightEntry:
    """The entry called `name`, with the absolute paths of its files.

    Raises:
        WeightsError: no entry has that name, or its list of checksums is missing or damaged.
    """
    if name in MODELS:
        return _model_entry(MODELS[name])
    if name in _DLIB_FILES:
        return _dlib_entry(name, *_DLIB_FILES[name])
    if name not in names():
        raise WeightsError(
            f"No weights are called `{name}`. Use one of {', '.join([*names(), *MODELS])}; `likeness models` "
            "says what each is for."
        )
    return _bundled_entry(CHECKPOINTS / name)


def locate(name: str) -> Path:
    """Path of the weights `name`: the file, or the folder of several. Checks presence and size, not content.

    Raises:
        WeightsError: the name is unknown, or a file is missing or has another size. The message ends with the remedy,
            such as `likeness models pull NAME`.
    """
    item = entry(name)
    _raise_problems(item, [problem for file in item.files if (problem := size_problem(file))])
    return item.files[0].path if item.is_one_file else item.folder


def verify(name: str) -> WeightEntry:
    """Check every byte of the weights `name` against their checksums.

    Raises:
        WeightsError: files are missing or altered; all of them are listed.
    """
    item = entry(name)
    _raise_problems(item, [problem for file in item.files if (problem := file_problem(file))])
    return item


def verify_quickly(name: str) -> WeightEntry:
    """Check the weights `name` like `verify`, but read a large file only if it changed since it was last read.

    Raises:
        WeightsError: files are missing or altered; all of them are listed.
    """
    from likeness.weights.hashes import cached_sha256  # `hashes` imports `home` from this module

    item = entry(name)
    _raise_problems(item, [problem for file in item.files if (problem := file_problem(file, cached_sha256))])
    return item


def _model_entry(model: WeightEntry) -> WeightEntry:
    """A model of the table with local paths. The list of checksums written by `pull` completes the table."""
    folder = home() / "models" / model.name
    flag = "" if model.preset == "open" else f" --preset {model.preset}"
    remedy = f"Put the files there yourself, or run `likeness models pull {model.name}{flag}`."
    files = {folder / file.path: dataclasses.replace(file, path=folder / file.path) for file in model.files}
    if (folder / CHECKSUMS_FILE).is_file():
        for file in read_listing(folder, remedy)[1]:
            if file.path not in files or files[file.path].sha256 is None:
                files[file.path] = file
    return dataclasses.replace(model, folder=folder, files=tuple(files.values()), remedy=remedy)


def _bundled_entry(folder: Path) -> WeightEntry:
    remedy = "Install likeness again, or check the folder out again."
    record, files = read_listing(folder, remedy)
    return WeightEntry(
        name=folder.name,
        preset=record["preset"],
        licence=record["licence"],
        remedy=remedy,
        purpose="video backbone and adapter that ship",
        folder=folder,
        files=files,
    )


def _dlib_entry(name: str, file: str, sha256: str, size_bytes: int) -> WeightEntry:
    # Not imported: that package needs `pkg_resources`, which setuptools no longer has.
    spec = importlib.util.find_spec(_DLIB_PACKAGE)
    package = Path(spec.origin).parent if spec is not None and spec.origin is not None else Path(_DLIB_PACKAGE)
    return WeightEntry(
        name=name,
        preset="tiny",
        licence="CC0-1.0",
        remedy=f"Run `pip install --force-reinstall --no-deps {_DLIB_PACKAGE}`.",
        purpose="face engine `dlib`",
        folder=package / "models",
        files=(WeightFile(path=package / "models" / file, sha256=sha256, size_bytes=size_bytes),),
    )


def _raise_problems(item: WeightEntry, problems: list[str]) -> None:
    problems = problems + [line for stem in item.components for line in component_problems(item.folder, stem)]
    if problems:
        listed = "".join(f"\n  {problem}" for problem in dict.fromkeys(problems))
        raise WeightsError(f"The weights `{item.name}` are not whole:{listed}\n{item.remedy}")
