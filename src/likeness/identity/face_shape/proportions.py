"""Measures a head's proportions on vertices in the topology of puppets (rendered synthetic people).

Widths and lengths are in units of the mesh (a head is about two units tall). `measure` divides them by the width of
the face, so that they can be compared between people and with the estimates from pictures in
`likeness.faces.geometry.proportions`.
"""

from functools import cache

import numpy as np
from numpy.typing import NDArray

from likeness.errors import ConfigError

NUM_VERTICES = 2562
"""Vertices of the puppets' head."""


@cache
def _mean_vertices() -> NDArray[np.float32]:
    from likeness.puppets.people.shape import mean_head  # imports numba, only if puppets are used

    return mean_head()[0]


@cache
def is_face() -> NDArray[np.bool_]:
    """(vertices,): mask of the vertices between brows and chin, in front of the ears."""
    mean_vertices = _mean_vertices()
    return (mean_vertices[:, 2] > 0.15) & (mean_vertices[:, 1] < 0.45) & (mean_vertices[:, 1] > -0.95)


@cache
def _midline() -> NDArray[np.int64]:
    """Indices of the vertices on the profile, from the top down."""
    mean_vertices = _mean_vertices()
    middle = np.flatnonzero((np.abs(mean_vertices[:, 0]) < 1e-4) & (mean_vertices[:, 2] > 0.2))
    return middle[np.argsort(-mean_vertices[middle, 1])]


def refuse_other_topology(vertices: NDArray[np.floating]) -> NDArray[np.float64]:
    """Check that vertices are finite and in the puppets' topology, and return them as float64.

    Raises:
        ConfigError: They are not.
    """
    vertices = np.asarray(vertices, dtype=np.float64)
    if vertices.shape != (NUM_VERTICES, 3) or not np.isfinite(vertices).all():
        raise ConfigError(
            f"Vertices have the shape {vertices.shape}; ({NUM_VERTICES}, 3) finite numbers in the puppets' topology "
            "were expected. Use the source `puppet` or `learned`."
        )
    return vertices


def face_width(vertices: NDArray[np.floating]) -> float:
    """Width between the cheekbones: the largest width from the eyes to the base of the nose."""
    return _width(refuse_other_topology(vertices), -0.20, 0.05)


def measure(vertices: NDArray[np.floating]) -> dict[str, float]:
    """A head's proportions.

    Args:
        vertices: (vertices, 3) in the puppets' topology, neutral.

    Returns:
        `face_length` (brows to chin), `jaw_width` (between the corners of the jaw), `chin_length` (mouth to chin),
        `nose_length` (eyes to the base of the nose) and `eye_spacing` (between the centers of the eye sockets), divided
        by the face's width; and `face_width`, divided by its length.

    Raises:
        ConfigError: The vertices have another topology.
    """
    vertices = refuse_other_topology(vertices)
    width = face_width(vertices)
    profile = vertices[_midline()]
    levels = _mean_vertices()[_midline(), 1]
    brows, eyes, mouth = (float(np.interp(-y, -levels, profile[:, 1])) for y in (0.325, 0.12, -0.475))
    chin = float(profile[:, 1].min())
    return {
        "face_width": width / (brows - chin),
        "face_length": (brows - chin) / width,
        "jaw_width": _width(vertices, -0.62, -0.42) / width,
        "chin_length": (mouth - chin) / width,
        "nose_length": (eyes - _nose_base(profile, levels)) / width,
        "eye_spacing": _eye_spacing(vertices) / width,
    }


def _width(vertices: NDArray[np.float64], low: float, high: float) -> float:
    mean_vertices = _mean_vertices()
    return 2 * float(np.abs(vertices[(mean_vertices[:, 1] > low) & (mean_vertices[:, 1] < high), 0]).max())


def _nose_base(profile: NDArray[np.float64], levels: NDArray[np.float32]) -> float:
    """Height below the tip at which the nose protrudes half as far as at the tip."""
    protrusion = profile[:, 2] - _mean_vertices()[_midline(), 2]
    tip = int(np.where((levels < 0.0) & (levels > -0.45), protrusion, -np.inf).argmax())
    half = protrusion[tip] / 2
    below = tip + 1 + int((protrusion[tip + 1 :] < half).argmax())
    share = (protrusion[below - 1] - half) / (protrusion[below - 1] - protrusion[below])
    return float(profile[below - 1, 1] + share * (profile[below, 1] - profile[below - 1, 1]))


def _eye_spacing(vertices: NDArray[np.float64]) -> float:
    """Twice the mean distance of the eye sockets from the middle, weighted by their depth."""
    mean_vertices = _mean_vertices()
    is_socket = (
        (np.abs(mean_vertices[:, 0]) < 0.62)
        & (np.abs(mean_vertices[:, 0]) > 0.12)
        & (np.abs(mean_vertices[:, 1] - 0.14) < 0.2)
    )
    is_socket &= mean_vertices[:, 2] > 0.1
    depths = np.maximum(mean_vertices[is_socket, 2] - vertices[is_socket, 2], 0)
    return 2 * float((depths * np.abs(vertices[is_socket, 0])).sum() / max(depths.sum(), 1e-9))
