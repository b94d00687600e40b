"""Triangle meshes of puppets: the fixed head topology, ellipsoids, tubes and sheets."""

from functools import cache

import numpy as np
from numpy.typing import NDArray

Vertices = NDArray[np.float32]
Triangles = NDArray[np.int32]
Mesh = tuple[Vertices, Triangles]


@cache
def head_topology(levels: int = 4, front_density: float = 0.58) -> Mesh:
    """Directions and triangles of the head: an icosphere, made denser at the face by a Moebius map.

    The map is conformal, so triangles stay well shaped; 4 levels give 2,562 vertices and 5,120 triangles.

    Shapes:
        returns: (vertices, 3) unit directions, z towards the face; (triangles, 3)
    """
    golden = (1 + 5**0.5) / 2
    corners = [
        (-1, golden, 0), (1, golden, 0), (-1, -golden, 0), (1, -golden, 0),
        (0, -1, golden), (0, 1, golden), (0, -1, -golden), (0, 1, -golden),
        (golden, 0, -1), (golden, 0, 1), (-golden, 0, -1), (-golden, 0, 1),
    ]  # fmt: skip
    points = [np.array(corner, dtype=np.float64) / np.linalg.norm(corner) for corner in corners]
    triangles = [
        (0, 11, 5), (0, 5, 1), (0, 1, 7), (0, 7, 10), (0, 10, 11), (1, 5, 9), (5, 11, 4), (11, 10, 2), (10, 7, 6),
        (7, 1, 8), (3, 9, 4), (3, 4, 2), (3, 2, 6), (3, 6, 8), (3, 8, 9), (4, 9, 5), (2, 4, 11), (6, 2, 10),
        (8, 6, 7), (9, 8, 1),
    ]  # fmt: skip
    for _ in range(levels):
        middles: dict[tuple[int, int], int] = {}

        def middle(first: int, second: int, middles: dict[tuple[int, int], int] = middles) -> int:
            key = (min(first, second), max(first, second))
            if key not in middles:
                point = points[first] + points[second]
                middles[key] = len(points)
                points.append(point / np.linalg.norm(point))
            return middles[key]

        finer = []
        for a, b, c in triangles:
            ab, bc, ca = middle(a, b), middle(b, c), middle(c, a)
            finer += [(a, ab, ca), (b, bc, ab), (c, ca, bc), (ab, bc, ca)]
        triangles = finer
    directions = np.array(points)
    half_angle = np.arctan(front_density * np.tan(np.arccos(np.clip(directions[:, 2], -1, 1)) / 2 * 0.9999))
    around = np.arctan2(directions[:, 1], directions[:, 0])
    sine = np.sin(2 * half_angle)
    directions = np.stack([sine * np.cos(around), sine * np.sin(around), np.cos(2 * half_angle)], axis=1)
    return directions.astype(np.float32), np.array(triangles, dtype=np.int32)


@cache
def unit_sphere(rings: int = 9, segments: int = 12) -> Mesh:
    """A latitude-longitude sphere, poles on the y axis."""
    theta, phi = np.meshgrid(np.linspace(0, np.pi, rings + 1), np.linspace(0, 2 * np.pi, segments + 1), indexing="ij")
    vertices = np.stack([np.sin(theta) * np.cos(phi), np.cos(theta), np.sin(theta) * np.sin(phi)], axis=-1)
    return vertices.reshape(-1, 3).astype(np.float32), sheet_triangles(rings + 1, segments + 1)


@cache
def sheet_triangles(rows: int, columns: int) -> Triangles:
    """Triangles of a grid of vertices laid out row by row."""
    corner = (np.arange(rows - 1)[:, None] * columns + np.arange(columns - 1)[None]).reshape(-1)
    first = np.stack([corner, corner + 1, corner + columns], axis=1)
    second = np.stack([corner + 1, corner + columns + 1, corner + columns], axis=1)
    return np.concatenate([first, second]).astype(np.int32)


def ellipsoid(
    center: tuple[float, float, float],
    radii: tuple[float, float, float],
    *,
    rings: int = 9,
    segments: int = 12,
) -> Mesh:
    """A sphere stretched to `radii` about `center`."""
    vertices, triangles = unit_sphere(rings, segments)
    return vertices * np.array(radii, dtype=np.float32) + np.array(center, dtype=np.float32), triangles


def tube(path: NDArray[np.floating], radius: float, *, sides: int = 5, closed: bool = False) -> Mesh:
    """A round tube along `path`, (points, 3)."""
    path = np.concatenate([path, path[:1]]) if closed else path
    tangents = np.gradient(path, axis=0)
    if closed:
        tangents[0] = tangents[-1] = path[1] - path[-2]
    tangents /= np.linalg.norm(tangents, axis=1, keepdims=True) + 1e-9
    helper = np.where(np.abs(tangents[:, 2:3]) < 0.8, np.array([[0.0, 0.0, 1.0]]), np.array([[0.0, 1.0, 0.0]]))
    first = np.cross(tangents, helper)
    first /= np.linalg.norm(first, axis=1, keepdims=True) + 1e-9
    second = np.cross(tangents, first)
    angles = np.linspace(0, 2 * np.pi, sides + 1)
    ring = np.cos(angles)[None, :, None] * first[:, None] + np.sin(angles)[None, :, None] * second[:, None]
    vertices = path[:, None] + radius * ring
    return vertices.reshape(-1, 3).astype(np.float32), sheet_triangles(len(path), sides + 1)


def join(meshes: list[Mesh]) -> Mesh:
    """Several meshes as one."""
    vertices, triangles, offset = [], [], 0
    for points, faces in meshes:
        vertices.append(points)
        triangles.append(faces + offset)
        offset += len(points)
    return np.concatenate(vertices), np.concatenate(triangles)
