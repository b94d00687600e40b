"""Quadric edge collapse onto existing vertices (Garland and Heckbert, SIGGRAPH 1997).

Each collapse moves one end of an edge onto the other, so the vertices of the coarser mesh are a subset of those of
the finer one, as in CoMA (arXiv:1807.10267v3), whose down-sampling SpiralNet++ uses. Plain Python with a heap: it
runs once per topology and takes seconds for 5,000 vertices.
"""

from heapq import heapify, heappop, heappush

import numpy as np
from numpy.typing import NDArray

from likeness.errors import ConfigError

_BORDER_WEIGHT = 1000.0
_MIN_NORMAL_COSINE = 0.1
"""Smallest cosine between a triangle's normals before and after a collapse."""


def decimate(
    vertices: NDArray[np.float64], triangles: NDArray[np.int64], target: int
) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Reduce a mesh to `target` vertices.

    Shapes:
        returns: (target,) indices of the kept vertices, ascending; (triangles, 3) over them

    Raises:
        ConfigError: No further edge can be collapsed without folding or tearing the mesh.
    """
    mesh = _ReducibleMesh(vertices, triangles)
    heap = [entry for a, b in mesh.edges() for entry in (mesh.heap_entry(a, b), mesh.heap_entry(b, a))]
    heapify(heap)
    num_remaining = len(vertices)
    while num_remaining > target:
        if not heap:
            raise ConfigError(
                f"The mesh of {len(vertices)} vertices can be reduced to {num_remaining}, not to {target}, without "
                "folding or tearing it. Choose a smaller factor, or repair the mesh."
            )
        _, removed, kept, removed_version, kept_version = heappop(heap)
        if (mesh.versions[removed], mesh.versions[kept]) != (removed_version, kept_version) or not mesh.can_collapse(
            removed, kept
        ):
            continue
        mesh.collapse(removed, kept)
        num_remaining -= 1
        for other in mesh.neighbors[kept]:
            heappush(heap, mesh.heap_entry(other, kept))
            heappush(heap, mesh.heap_entry(kept, other))
    return mesh.result()


class _ReducibleMesh:
    """A mesh under reduction. A vertex's version counts its changes: heap entries with an older version are stale."""

    def __init__(self, vertices: NDArray[np.float64], triangles: NDArray[np.int64]) -> None:
        self.points = vertices
        self.faces = {number: tuple(face) for number, face in enumerate(triangles.tolist())}
        self.faces_of: list[set[int]] = [set() for _ in vertices]
        self.neighbors: list[set[int]] = [set() for _ in vertices]
        for number, face in self.faces.items():
            for vertex in face:
                self.faces_of[vertex].add(number)
                self.neighbors[vertex].update(other for other in face if other != vertex)
        self.versions: list[int] = [0] * len(vertices)
        self.quadrics = _quadrics(vertices, triangles)

    def edges(self) -> list[tuple[int, int]]:
        return [(a, b) for a, adjacent in enumerate(self.neighbors) for b in adjacent if a < b]

    def heap_entry(self, removed: int, kept: int) -> tuple[float, int, int, int, int]:
        point = np.append(self.points[kept], 1.0)
        cost = float(point @ (self.quadrics[removed] + self.quadrics[kept]) @ point)
        # On a flat surface all costs are zero; the length term then prefers short edges.
        length = float(np.sum((self.points[removed] - self.points[kept]) ** 2))
        return cost + 1e-9 * length, removed, kept, self.versions[removed], self.versions[kept]

    def can_collapse(self, removed: int, kept: int) -> bool:
        """Whether the mesh remains a manifold and no triangle flips."""
        if kept not in self.neighbors[removed]:
            return False
        shared = self.faces_of[removed] & self.faces_of[kept]
        # Link condition: every common neighbor belongs to a common triangle.
        if len(self.neighbors[removed] & self.neighbors[kept]) != len(shared):
            return False
        # A border vertex may only move along the border.
        if self._is_border(removed) and (len(shared) != 1 or not self._is_border(kept)):
            return False
        moved = [self.faces[number] for number in self.faces_of[removed] - shared]
        if not moved or len(self.neighbors[kept]) + len(self.neighbors[removed]) - len(shared) - 2 < 3:
            return False
        before = self.points[np.array(moved)]
        after = self.points[np.array([[kept if vertex == removed else vertex for vertex in face] for face in moved])]
        normals = [
            np.cross(corners[:, 1] - corners[:, 0], corners[:, 2] - corners[:, 0]) for corners in (before, after)
        ]
        sizes = [np.linalg.norm(corners, axis=1) for corners in normals]
        return bool((np.sum(normals[0] * normals[1], axis=1) > _MIN_NORMAL_COSINE * sizes[0] * sizes[1]).all())

    def collapse(self, removed: int, kept: int) -> None:
        # Triangles with both vertices vanish, the others of `removed` move to `kept`.
        for number in self.faces_of[removed] & self.faces_of[kept]:
            for vertex in self.faces.pop(number):
                self.faces_of[vertex].discard(number)
        for number in self.faces_of[removed]:
            a, b, c = (kept if vertex == removed else vertex for vertex in self.faces[number])
            self.faces[number] = (a, b, c)
            self.faces_of[kept].add(number)
        for other in self.neighbors[removed]:
            self.neighbors[other].discard(removed)
            if other != kept:
                self.neighbors[other].add(kept)
                self.neighbors[kept].add(other)
        self.faces_of[removed], self.neighbors[removed] = set(), set()
        self.quadrics[kept] += self.quadrics[removed]
        self.versions[removed] += 1
        self.versions[kept] += 1

    def result(self) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
        kept_vertices = np.array([vertex for vertex, adjacent in enumerate(self.neighbors) if adjacent], dtype=np.int64)
        index = {int(vertex): number for number, vertex in enumerate(kept_vertices)}
        faces = [[index[vertex] for vertex in self.faces[number]] for number in sorted(self.faces)]
        return kept_vertices, np.array(faces, dtype=np.int64)

    def _is_border(self, vertex: int) -> bool:
        return len(self.neighbors[vertex]) != len(self.faces_of[vertex])


def _quadrics(vertices: NDArray[np.float64], triangles: NDArray[np.int64]) -> NDArray[np.float64]:
    """Quadrics of the planes around each vertex, and of planes perpendicular to the surface at open edges.

    Shapes:
        returns: (vertices, 4, 4)
    """
    quadrics = np.zeros((len(vertices), 4, 4))
    first, second, third = (vertices[triangles[:, number]] for number in range(3))
    normals = np.cross(second - first, third - first)
    normals /= np.linalg.norm(normals, axis=1, keepdims=True) + 1e-30
    planes = np.concatenate([normals, -(normals * first).sum(axis=1, keepdims=True)], axis=1)
    outer = planes[:, :, None] * planes[:, None]
    for number in range(3):
        np.add.at(quadrics, triangles[:, number], outer)
    triangle_of_edge: dict[tuple[int, int], int] = {}
    for number, (a, b, c) in enumerate(triangles.tolist()):
        triangle_of_edge |= {(a, b): number, (b, c): number, (c, a): number}
    for (a, b), number in triangle_of_edge.items():
        if (b, a) not in triangle_of_edge:  # An edge with one triangle: penalize moving the border.
            border_normal = np.cross(vertices[b] - vertices[a], normals[number])
            border_normal /= np.linalg.norm(border_normal) + 1e-30
            plane = np.append(border_normal, -border_normal @ vertices[a])
            quadrics[[a, b]] += _BORDER_WEIGHT * np.outer(plane, plane)
    return quadrics
