"""MediaPipe's face mesh: 468 points of a face in a picture with estimated depth. An optional dependency.

Only version 0.10 includes the models. Its metadata requires an older numpy and a second OpenCV, which the face mesh
does not need, so it is installed without dependencies (`INSTALL_COMMAND`). It is imported at first use.
"""

import sys
from collections import Counter
from functools import cache
from itertools import combinations
from typing import Any

import numpy as np
from numpy.typing import NDArray

from likeness.errors import NoFaceError, ResourceError

NUM_POINTS = 468
"""Without the ten points of the irises, which are not part of the face surface."""
INSTALL_COMMAND = 'pip install --no-deps mediapipe==0.10.21 "protobuf==4.25.9" absl-py attrs flatbuffers'


def read_points(picture: NDArray[np.uint8], *, source: str = "picture") -> NDArray[np.float64]:
    """Points (468, 3) of the one face in a picture.

    Shapes:
        picture: (height, width, 3) uint8
        returns: in pixels; x to the right, y up, z towards the camera with zero near the middle of the head

    Raises:
        ResourceError: MediaPipe is not installed, or its version has no models.
        NoFaceError: No face is found.
    """
    found = _face_mesh().process(np.ascontiguousarray(picture)).multi_face_landmarks
    if not found:
        raise NoFaceError(source, best_score=None, min_score=0.5)
    height, width = picture.shape[:2]
    points = np.array([(point.x, point.y, point.z) for point in found[0].landmark[:NUM_POINTS]])
    return points * (width, -height, -width)  # MediaPipe's depth is in units of the picture's width.


def read_triangles(points: NDArray[np.floating]) -> NDArray[np.int64]:
    """Triangles of the mesh, counterclockwise seen from the camera.

    MediaPipe lists edges only. Three vertices with all three edges form a triangle, unless they merely enclose one:
    then each of their edges would belong to three triangles.

    Shapes:
        points: (468, 3) of any face from the front, z towards the camera
        returns: (triangles, 3)

    Raises:
        ResourceError: MediaPipe is not installed.
    """
    higher_neighbors: dict[int, set[int]] = {}
    for low, high in {tuple(sorted(edge)) for edge in _solutions().face_mesh_connections.FACEMESH_TESSELATION}:
        higher_neighbors.setdefault(low, set()).add(high)
    candidates = sorted(
        (a, b, c)
        for a in higher_neighbors
        for b in higher_neighbors[a]
        for c in higher_neighbors[a] & higher_neighbors.get(b, set())
    )
    triangle_counts = Counter(edge for triangle in candidates for edge in combinations(triangle, 2))
    kept = [triangle for triangle in candidates if any(triangle_counts[edge] < 3 for edge in combinations(triangle, 2))]
    triangles = np.array(_orient(kept), dtype=np.int64)
    first, second, third = (points[triangles[:, corner]] for corner in range(3))
    is_clockwise = np.cross(second - first, third - first)[:, 2].sum() < 0
    return triangles[:, ::-1] if is_clockwise else triangles


def _orient(triangles: list[tuple[int, int, int]]) -> list[tuple[int, int, int]]:
    """Orient triangles consistently: neighbors traverse their common edge in opposite directions."""
    by_edge: dict[tuple[int, int], list[int]] = {}
    for number, triangle in enumerate(triangles):
        for edge in combinations(sorted(triangle), 2):
            by_edge.setdefault(edge, []).append(number)
    oriented: dict[int, tuple[int, int, int]] = {}
    for start in range(len(triangles)):
        stack = [] if start in oriented else [start]
        oriented.setdefault(start, triangles[start])
        while stack:
            a, b, c = oriented[stack.pop()]
            for low, high in ((a, b), (b, c), (c, a)):
                for neighbor in by_edge[min(low, high), max(low, high)]:
                    if neighbor not in oriented:
                        (third,) = set(triangles[neighbor]) - {low, high}
                        oriented[neighbor] = (high, low, third)
                        stack.append(neighbor)
    return [oriented[number] for number in range(len(triangles))]


@cache
def _face_mesh() -> Any:
    return _solutions().face_mesh.FaceMesh(static_image_mode=True, max_num_faces=1, refine_landmarks=True)


def _solutions() -> Any:
    try:
        import mediapipe  # pyright: ignore[reportMissingImports]
    except (
        ImportError,
        AttributeError,
    ) as error:  # With a newer protobuf its import fails with AttributeError.
        reason = "is not installed" if "mediapipe" not in sys.modules and _is_absent(error) else f"fails ({error})"
        raise ResourceError(f"MediaPipe {reason}; the source `mediapipe` needs it. Run `{INSTALL_COMMAND}`.") from error
    if not hasattr(mediapipe, "solutions"):
        raise ResourceError(
            f"MediaPipe {mediapipe.__version__} brings no models; version 0.10.21 does. Run `{INSTALL_COMMAND}`."
        )
    return mediapipe.solutions


def _is_absent(error: Exception) -> bool:
    return isinstance(error, ModuleNotFoundError) and error.name == "mediapipe"
