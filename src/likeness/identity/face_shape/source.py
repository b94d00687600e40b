"""Sources of 3D face shapes: the protocol `ShapeSource`, and `load_source` by name.

A source returns vertices in a fixed topology for FantasyID. Adapters trained with this package read neutral heads,
the released weights heads posed as in the picture. docs/shape_sources.md compares the sources.
"""

import difflib
from collections.abc import Sequence
from pathlib import Path
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from likeness import weights
from likeness.errors import ConfigError
from likeness.records import Face

BUNDLED_SHAPE_FOLDER = weights.CHECKPOINTS / "tiny" / "shape"
"""Folder of the network and the sliders that ship."""
SOURCES = ("learned", "puppet:SEED", "mediapipe", "flame:FILE", "beside", "mean_head:PITCH_DEG")
"""Names for `load_source`."""


class ShapeSource(Protocol):
    """Reads one person's shape from their pictures."""

    @property
    def topology(self) -> str:
        """Mesh of the vertices: `puppet`, `mediapipe` or `flame`. Different topologies cannot be compared."""
        ...

    @property
    def num_vertices(self) -> int: ...

    def __call__(self, faces: Sequence[Face], /) -> NDArray[np.float32]:
        """The person's vertices (vertices, 3): x to the picture's right, y up, z towards the camera."""
        ...


def load_source(name: str, *, template: NDArray[np.floating] | None = None) -> ShapeSource:
    """Load a shape source by its name.

    Args:
        name: `learned`, or `learned:FOLDER` for another network; `puppet:SEED`, the exact head of that puppet;
            `mediapipe`; `flame:FILE`, a mesh or shape numbers (betas) made with FLAME; `beside`, a mesh file with the
            picture's name in the same folder; `mean_head` or `mean_head:PITCH_DEG`, FLAME's mean head posed as the
            face.
        template: Vertices (vertices, 3) of the mean head; by default those of the released FantasyID's `transform.pkl`.

    Raises:
        ConfigError: No source has that name, or a part of the name is missing.
        WeightsError: A file is missing; the message says which file to put where.
    """
    source_name, _, argument = name.partition(":")
    if source_name == "learned":
        from likeness.identity.face_shape.learned import LearnedShape

        return LearnedShape(Path(argument) if argument else None)
    if source_name == "puppet":
        from likeness.identity.face_shape.puppet import PuppetShape

        return PuppetShape(_seed(argument))
    if source_name == "mediapipe" and not argument:
        from likeness.identity.face_shape.mediapipe import MediaPipeShape

        return MediaPipeShape()
    if source_name == "flame":
        from likeness.identity.face_shape.flame import FlameShape

        return FlameShape(Path(argument) if argument else None)
    if source_name == "beside" and not argument:
        from likeness.identity.face_shape.beside import BesideShape

        return BesideShape()
    if source_name == "mean_head":
        from likeness.identity.face_shape.mean_head import MeanHeadShape, parse_pitch
        from likeness.identity.mesh.published_mesh import MESH_FILE, read_template

        pitch_deg = parse_pitch(argument)
        if template is None:
            template = read_template(weights.entry("fantasyid-mesh").folder / MESH_FILE)
        return MeanHeadShape(template, pitch_deg=pitch_deg)
    close = difflib.get_close_matches(source_name, [source.partition(":")[0] for source in SOURCES], n=1)
    advice = f"Did you mean `{close[0]}`? " if close else ""
    raise ConfigError(f"No source of shapes is called `{name}`. {advice}Known: {', '.join(SOURCES)}.")


def require_faces(faces: Sequence[Face]) -> None:
    """Refuse an empty list of references.

    Raises:
        ConfigError: The list is empty.
    """
    if not faces:
        raise ConfigError("No reference face was given; a shape is read from at least one. Pass a picture.")


def _seed(text: str) -> int:
    if not text.isdecimal():
        raise ConfigError(f"`puppet:{text}` names no puppet. Write its seed behind the colon: `puppet:7`.")
    return int(text)
