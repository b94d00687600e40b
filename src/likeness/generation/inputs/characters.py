"""Characters: a person saved as one file and used again by name.

The file is safetensors: head crops, embeddings, landmarks and poses, with name and consent note as metadata. It
contains no whole picture, and a checksum detects damage. Characters are saved in `$LIKENESS_HOME/characters`; a file
from any other place works as well.
"""

import hashlib
import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Self

import numpy as np
from safetensors import SafetensorError, safe_open
from safetensors.numpy import save as to_safetensors

from likeness.errors import CharacterError, ConfigError
from likeness.faces import compare, read_face
from likeness.files import write_bytes
from likeness.generation.inputs.character_files import (
    SUFFIX,
    character_file,
    character_folder,
    character_names,
    check_character,
    find_character,
    remove_character,
)
from likeness.records import Face, Pose

__all__ = [
    "FORMAT_VERSION",
    "MAX_FILE_BYTES",
    "METADATA_KEY",
    "SUFFIX",
    "Character",
    "character_file",
    "character_folder",
    "character_names",
    "check_character",
    "find_character",
    "remove_character",
]

METADATA_KEY = "likeness_character"
"""The only key of metadata: safetensors does not fix the order of several, and equal characters must give equal
bytes."""
FORMAT_VERSION = 1
"""Increased when older versions of likeness cannot read the file."""
MAX_FILE_BYTES = 64_000_000
"""About four hundred references; larger files are refused."""
_REMEDY = "Copy it again, or make it anew with `likeness character add`."
_TENSOR_NAMES = ("crops", "embeddings", "landmarks_px", "boxes_px", "poses_deg", "scores")


@dataclass(frozen=True, kw_only=True, slots=True, eq=False)
class Character:
    """A person, their reference faces, and their consent to be shown.

    Example:
        ana = Character.create("ana", ["front.jpg", "side.jpg"], consent="Ana agreed by e-mail on 3 May 2026.")
        ana.save()
        Likeness.load().generate("a woman img waves", Character.load("ana"))
    """

    name: str
    faces: tuple[Face, ...]
    consent: str
    """Who agreed to what, in words; it is stored in this file and in no video."""

    def __post_init__(self) -> None:
        check_character(self.name, self.consent)
        if not self.faces:
            raise ConfigError("A character needs at least one picture. Use `--face me.jpg`.")
        if len({face.engine for face in self.faces}) > 1:
            raise ConfigError("The faces were read by several engines. Read all of them with one.")

    @classmethod
    def create(
        cls,
        name: str,
        pictures: Sequence[str | Path | np.ndarray | Face],
        *,
        consent: str,
        pick: int | None = None,
    ) -> Self:
        """Read one or several pictures of one person.

        Raises:
            ConfigError: Name or consent is not usable, or there is no picture.
            FaceError: A picture shows no usable face, or several and `pick` is None.
        """
        faces = tuple(p if isinstance(p, Face) else read_face(p, pick=pick) for p in pictures)
        return cls(name=name, faces=faces, consent=consent)

    @property
    def max_distance(self) -> float:
        """Largest distance between two references; above the engine's threshold they may be two people."""
        return max(compare(a, b).distance for a in self.faces for b in self.faces)

    @property
    def sha256(self) -> str:
        """Checksum of the whole content of the file."""
        return _checksum(self._tensors(), self._metadata())

    def describe(self) -> dict[str, Any]:
        """The entry in the record of a clip: enough to find the consent note, without the note."""
        return {"name": self.name, "sha256": self.sha256}

    def to_dict(self) -> dict[str, Any]:
        """The facts that `likeness character show` prints."""
        return {
            "name": self.name,
            "consent": self.consent,
            "references": [Path(face.source).name for face in self.faces],
            "engine": self.faces[0].engine,
            "largest_distance": round(self.max_distance, 4),
            "sha256": self.sha256,
        }

    def save(self, path: str | Path | None = None, *, replace: bool = False) -> Path:
        """Write the file atomically, by default among the saved characters.

        Raises:
            ConfigError: It is there already and `replace` is False, or the suffix is another.
            FileWriteError: The disk refuses.
        """
        path = character_file(self.name, path, replace=replace)
        tensors, facts = self._tensors(), self._metadata()
        header = {"version": FORMAT_VERSION, "sha256": _checksum(tensors, facts), "facts": facts}
        write_bytes(path, to_safetensors(tensors, metadata={METADATA_KEY: json.dumps(header, sort_keys=True)}))
        return path

    @classmethod
    def load(cls, name_or_file: str | Path) -> Self:
        """Read a saved character by its name, or any character file.

        Raises:
            ConfigError: Nothing has that name.
            CharacterError: The file is damaged, of a newer likeness, or no character.
        """
        path = find_character(name_or_file)
        tensors, facts = _read_file(path)
        try:
            poses, boxes = tensors["poses_deg"].tolist(), tensors["boxes_px"].tolist()
            faces = tuple(
                Face(
                    box=tuple(boxes[index]),
                    landmarks=tensors["landmarks_px"][index],
                    pose=Pose(yaw_deg=poses[index][0], pitch_deg=poses[index][1], roll_deg=poses[index][2]),
                    embedding=tensors["embeddings"][index],
                    score=float(tensors["scores"][index]),
                    crop=tensors["crops"][index],
                    engine=facts["engine"],
                    source=source,
                    threshold=facts["threshold"],
                    metric=facts["metric"],
                    layout=facts["layout"],
                )
                for index, source in enumerate(facts["sources"])
            )
            return cls(name=facts["name"], faces=faces, consent=facts["consent"])
        except (KeyError, IndexError, TypeError) as error:
            raise CharacterError(f"{path} lacks a part of a character ({error!r}). {_REMEDY}") from error

    def _tensors(self) -> dict[str, np.ndarray]:
        poses = [(face.pose.yaw_deg, face.pose.pitch_deg, face.pose.roll_deg) for face in self.faces]
        return {
            "crops": np.stack([face.crop for face in self.faces]),
            "embeddings": np.stack([face.embedding for face in self.faces]),
            "landmarks_px": np.stack([face.landmarks for face in self.faces]),
            "boxes_px": np.array([face.box for face in self.faces], dtype=np.float64),
            "poses_deg": np.array(poses, dtype=np.float64),
            "scores": np.array([face.score for face in self.faces], dtype=np.float64),
        }

    def _metadata(self) -> dict[str, Any]:
        return {
            "name": self.name,
            "consent": self.consent,
            "engine": self.faces[0].engine,
            "threshold": self.faces[0].threshold,
            "metric": self.faces[0].metric,
            "layout": self.faces[0].layout,
            "sources": [Path(face.source).name for face in self.faces],
        }


def _checksum(tensors: dict[str, np.ndarray], facts: dict[str, Any]) -> str:
    digest = hashlib.sha256(json.dumps(facts, sort_keys=True).encode())
    for name in _TENSOR_NAMES:
        digest.update(f"{name} {tensors[name].dtype} {tensors[name].shape}".encode())
        digest.update(np.ascontiguousarray(tensors[name]).tobytes())
    return digest.hexdigest()


def _read_file(path: Path) -> tuple[dict[str, np.ndarray], dict[str, Any]]:
    """Tensors and facts of a character file."""
    size_bytes = path.stat().st_size
    if size_bytes > MAX_FILE_BYTES:
        raise CharacterError(
            f"{path} holds {size_bytes / 1e6:.0f} MB, at most {MAX_FILE_BYTES / 1e6:.0f} are read. "
            "It is no character file; name another."
        )
    try:
        with safe_open(path, framework="np") as file:
            metadata = file.metadata() or {}
            if METADATA_KEY not in metadata:
                raise CharacterError(
                    f"{path} is a safetensors file of something else, not a character. Name another file."
                )
            header = json.loads(metadata[METADATA_KEY])
            _refuse_newer(path, header["version"])
            facts, sha256 = header["facts"], header["sha256"]
            tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118 - no mapping
    except (SafetensorError, OSError) as error:
        raise CharacterError(f"{path} is no character file, or is truncated or damaged ({error}). {_REMEDY}") from error
    except (KeyError, TypeError, ValueError, RecursionError) as error:
        raise CharacterError(f"{path} is a damaged character ({error!r}). {_REMEDY}") from error
    if set(tensors) != set(_TENSOR_NAMES) or _checksum(tensors, facts) != sha256:
        raise CharacterError(f"{path} is altered or damaged: its checksum does not fit. {_REMEDY}")
    return tensors, facts


def _refuse_newer(path: Path, version: int) -> None:
    if version > FORMAT_VERSION:
        raise CharacterError(
            f"{path} is a character of version {version}; this likeness reads up to {FORMAT_VERSION}. "
            "Update likeness, or make the character anew."
        )
