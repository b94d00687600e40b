"""Provenance of a clip: software, weights, references. Independent of time, folder and machine."""

import hashlib
import platform
from collections.abc import Mapping
from functools import cache
from importlib.metadata import version
from pathlib import Path
from typing import Any

from likeness.records import Face
from likeness.weights.hashes import cached_sha256


@cache
def describe_software() -> dict[str, str]:
    """Versions of the packages that influence the numbers."""
    packages = ("likeness", "torch", "diffusers", "transformers")
    return {"python": platform.python_version()} | {name: version(name) for name in packages}


def describe_weights(sources: Mapping[str, str | Path]) -> dict[str, str]:
    """SHA-256 of every weight file in local folders; a hub name is recorded as it is."""
    checksums = {}
    for role, source in sources.items():
        folder = Path(source)
        if not folder.is_dir():
            checksums[role] = str(source)
            continue
        paths = [path for path in sorted(folder.rglob("*.safetensors")) if _belongs_to_role(path, folder, role)]
        checksums |= {f"{role}/{path.relative_to(folder).as_posix()}": cached_sha256(path) for path in paths}
    return checksums


def describe_reference(face: Face) -> dict[str, Any]:
    """The reference without its picture: file name, SHA-256 of the file (or of the crop), and the face's box."""
    path = Path(face.source)
    content = path.read_bytes() if path.is_file() else face.crop.tobytes()
    return {
        "file": path.name,
        "sha256": hashlib.sha256(content).hexdigest(),
        "box_px": [round(float(side), 1) for side in face.box],
    }


def _belongs_to_role(path: Path, folder: Path, role: str) -> bool:
    """Whether a file belongs to the role: an adapter inside the backbone's folder is no part of the backbone."""
    parts = {"transformer", "vae", "text_encoder"}
    return role != "backbone" or path.relative_to(folder).parts[0] in parts
