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
_LEAST_COSINE = 0.1
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
    mesh = _Mesh(vertices, triangles)
    heap = [entry for a, b in mesh.edges() for entry in (mesh.entry(a, b), mesh.entry(b, a))]
    heapify(heap)
    left = len(vertices)
    while left > target:
        if not heap:
            raise ConfigError(
                f"The mesh of {len(vertices)} vertices can be reduced to {left}, not to {target}, without folding or "
                "tearing it. Choose a smaller factor, or repair the mesh."
            )
        _, gone, stays, gone_age, stays_age = heappop(heap)
        if (mesh.ages[gone], mesh.ages[stays]) != (gone_age, stays_age) or not mesh.may_collapse(gone, stays):
            continue
        mesh.collapse(gone, stays)
        left -= 1
        for other in mesh.neighbors[stays]:
            heappush(heap, mesh.entry(other, stays))
            heappush(heap, mesh.entry(stays, other))
    return mesh.result()


class _Mesh:
    """A mesh under reduction. A vertex's age counts its changes: heap entries with an older age are stale."""

    def __init__(self, vertices: NDArray[np.float64], triangles: NDArray[np.int64]) -> None:
        self.points = vertices
        self.faces = {number: tuple(face) for number, face in enumerate(triangles.tolist())}
        self.faces_of: list[set[int]] = [set() for _ in vertices]
        self.neighbors: list[set[int]] = [set() for _ in vertices]
        for number, face in self.faces.items():
            for vertex in face:
                self.faces_of[vertex].add(number)
                self.neighbors[vertex].update(other for other in face if other != vertex)
        self.ages: list[int] = [0] * len(vertices)
        self.quadrics = _quadrics(vertices, triangles)

    def edges(self) -> list[tuple[int, int]]:
        return [(a, b) for a, around in enumerate(self.neighbors) for b in around if a < b]

    def entry(self, gone: int, stays: int) -> tuple[float, int, int, int, int]:
        point = np.append(self.points[stays], 1.0)
        cost = float(point @ (self.quadrics[gone] + self.quadrics[stays]) @ point)
        # On a flat surface all costs are zero; the length term then prefers short edges.
        length = float(np.sum((self.points[gone] - self.points[stays]) ** 2))
        return cost + 1e-9 * length, gone, stays, self.ages[gone], self.ages[stays]

    def may_collapse(self, gone: int, stays: int) -> bool:
        """Whether the mesh remains a manifold and no triangle flips."""
        if stays not in self.neighbors[gone]:
            return False
        shared = self.faces_of[gone] & self.faces_of[stays]
        # Link condition: every common neighbor belongs to a common triangle.
        if len(self.neighbors[gone] & self.neighbors[stays]) != len(shared):
            return False
        # A border vertex may only move along the border.
        if self._is_border(gone) and (len(shared) != 1 or not self._is_border(stays)):
            return False
        moved = [self.faces[number] for number in self.faces_of[gone] - shared]
        if not moved or len(self.neighbors[stays]) + len(self.neighbors[gone]) - len(shared) - 2 < 3:
            return False
        before = self.points[np.array(moved)]
        after = self.points[np.array([[stays if vertex == gone else vertex for vertex in face] for face in moved])]
        normals = [np.cross(part[:, 1] - part[:, 0], part[:, 2] - part[:, 0]) for part in (before, after)]
        sizes = [np.linalg.norm(part, axis=1) for part in normals]
        return bool((np.sum(normals[0] * normals[1], axis=1) > _LEAST_COSINE * sizes[0] * sizes[1]).all())

    def collapse(self, gone: int, stays: int) -> None:
        # Triangles with both vertices vanish, the others of `gone` move to `stays`.
        for number in self.faces_of[gone] & self.faces_of[stays]:
            for vertex in self.faces.pop(number):
                self.faces_of[vertex].discard(number)
        for number in self.faces_of[gone]:
            a, b, c = (stays if vertex == gone else vertex for vertex in self.faces[number])
            self.faces[number] = (a, b, c)
            self.faces_of[stays].add(number)
        for other in self.neighbors[gone]:
            self.neighbors[other].discard(gone)
            if other != stays:
                self.neighbors[other].add(stays)
                self.neighbors[stays].add(other)
        self.faces_of[gone], self.neighbors[gone] = set(), set()
        self.quadrics[stays] += self.quadrics[gone]
        self.ages[gone] += 1
        self.ages[stays] += 1

    def result(self) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
        stay = np.array([vertex for vertex, around in enumerate(self.neighbors) if around], dtype=np.int64)
        index = {int(vertex): number for number, vertex in enumerate(stay)}
        faces = [[index[vertex] for vertex in self.faces[number]] for number in sorted(self.faces)]
        return stay, np.array(faces, dtype=np.int64)

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
    owner: dict[tuple[int, int], int] = {}
    for number, (a, b, c) in enumerate(triangles.tolist()):
        owner |= {(a, b): number, (b, c): number, (c, a): number}
    for (a, b), number in owner.items():
        if (b, a) not in owner:  # An edge with one triangle: penalize moving the border.
            wall = np.cross(vertices[b] - vertices[a], normals[number])
            wall /= np.linalg.norm(wall) + 1e-30
            plane = np.append(wall, -wall @ vertices[a])
            quadrics[[a, b]] += _BORDER_WEIGHT * np.outer(plane, plane)
    return quadrics
