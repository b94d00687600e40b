"""Draws a head's mesh in gray, to inspect shapes.

The renderer of puppets (rendered synthetic people) is in `likeness.puppets.rendering`.
"""

import cv2
import numpy as np
from numpy.typing import NDArray

from likeness.identity.face_shape.proportions import refuse_other_topology

_LIGHT = np.array([-0.35, 0.45, 0.82])


def draw_head(vertices: NDArray[np.floating], size_px: int = 96, *, turn_deg: float = 25.0) -> NDArray[np.uint8]:
    """Draw a head in the puppets' topology, rotated by `turn_deg`, as (size_px, size_px, 3) uint8.

    Raises:
        ConfigError: The vertices have another topology.
    """
    from likeness.puppets.people.shape import mean_head  # imports numba, only if puppets are used

    vertices = refuse_other_topology(vertices)
    cosine, sine = np.cos(np.deg2rad(turn_deg)), np.sin(np.deg2rad(turn_deg))
    rotated = vertices @ np.array([[cosine, 0, sine], [0, 1, 0], [-sine, 0, cosine]]).T
    corners = rotated[mean_head()[2]]  # (triangles, 3, 3)
    normals = np.cross(corners[:, 1] - corners[:, 0], corners[:, 2] - corners[:, 0])
    normals /= np.linalg.norm(normals, axis=1, keepdims=True) + 1e-9
    shade = (60 + 180 * np.clip(normals @ _LIGHT, 0, 1)).astype(int)
    picture = np.full((size_px, size_px, 3), 24, dtype=np.uint8)
    # In sixteenths of a pixel: `fillConvexPoly` gets a shift of 4 bits.
    points = np.rint((np.array([0.5, 0.52]) + corners[..., :2] * (0.37, -0.37)) * size_px * 16).astype(np.int32)
    for number in np.argsort(corners[..., 2].mean(axis=1)):
        if normals[number, 2] > 0:
            tone = int(shade[number])
            cv2.fillConvexPoly(picture, points[number], (tone, tone, tone), cv2.LINE_AA, 4)
    return picture
