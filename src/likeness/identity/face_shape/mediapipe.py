"""Shapes of 468 points by MediaPipe: for photographs, without training. Pose is removed; expression is not.

Every view is aligned to seven points of MediaPipe's canonical face that move least with expression, by a
least-squares similarity (Procrustes); then views are averaged. Depth is estimated from single pictures, so several
neutral, frontal pictures give the best result.
"""

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from likeness.faces import EYE_CENTERS, EYE_CORNERS
from likeness.faces.geometry.mesh_points import NUM_POINTS, read_points, read_triangles
from likeness.identity.face_shape.source import require_faces
from likeness.records import Face

ANCHORS = (33, 133, 362, 263, 1, 61, 291)
"""MediaPipe's indices of the eye corners from left to right, the tip of the nose and the mouth corners."""
_CANONICAL_CM = np.concatenate([EYE_CORNERS.head_points[:4], EYE_CENTERS.head_points[2:]]) * (1, -1, 1)
"""(7, 3): the same points on the canonical face, y up."""


class MediaPipeShape:
    """Reads 468 points from the crops of all references; MediaPipe is imported at the first call."""

    topology = "mediapipe"
    num_vertices = NUM_POINTS

    def __call__(self, faces: Sequence[Face], /) -> NDArray[np.float32]:
        """Vertices at the scale of a mean face in centimeters; x to the picture's right, y up, z towards the camera.

        Raises:
            ResourceError: MediaPipe is not installed; the message has the command.
            NoFaceError: MediaPipe finds no face in a crop.
        """
        require_faces(faces)
        shapes = [remove_pose(read_points(face.crop, source=face.source)) for face in faces]
        return np.mean(shapes, axis=0).astype(np.float32)

    def triangles(self, vertices: NDArray[np.floating]) -> NDArray[np.int64]:
        """(triangles, 3) for `MeshTopology.build`, oriented by any vertices from this source."""
        return read_triangles(vertices)


def remove_pose(points: NDArray[np.floating]) -> NDArray[np.float64]:
    """Align (468, 3) points to the canonical face by a similarity."""
    scale, rotation, shift = fit_similarity_3d(points[list(ANCHORS)], _CANONICAL_CM)
    return scale * points @ rotation.T + shift


def fit_similarity_3d(
    source: NDArray[np.floating], target: NDArray[np.floating]
) -> tuple[float, NDArray[np.float64], NDArray[np.float64]]:
    """Least-squares scale, rotation (no mirroring) and shift that map `source` to `target`, by Umeyama's method.

    Shapes:
        source, target: (points, 3)
        returns: scale, (3, 3), (3,): target is near scale * source @ rotation.T + shift
    """
    source, target = np.asarray(source, np.float64), np.asarray(target, np.float64)
    a, b = source - source.mean(axis=0), target - target.mean(axis=0)
    u, singular_values, v_transposed = np.linalg.svd(b.T @ a)
    # The last sign excludes reflections.
    sign = np.array([1.0, 1.0, np.sign(np.linalg.det(u) * np.linalg.det(v_transposed))])
    rotation = (u * sign) @ v_transposed
    scale = float((singular_values * sign).sum() / max((a**2).sum(), np.finfo(np.float64).tiny))
    return scale, rotation, target.mean(axis=0) - scale * source.mean(axis=0) @ rotation.T
