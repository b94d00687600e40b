"""Spirals in OpenMesh's vertex order, with which the released FantasyID was trained.

A spiral convolution has one weight per position of a spiral, so trained weights need the same order. OpenMesh's order
depends on the order of the triangles: each vertex stores one outgoing halfedge, which changes while triangles are
added, and its neighbors are listed clockwise from there. `_Halfedges` reproduces this. Adapters trained with this
package use the spirals of `spirals.py`, which begin at the highest neighbor.
"""

import numpy as np
from numpy.typing import NDArray

_NONE = -1


class _Halfedges:
    """A triangle mesh built one triangle at a time. Halfedges are integers; 2k and 2k + 1 are opposite."""

    def __init__(self, num_vertices: int) -> None:
        self.outgoing = [_NONE] * num_vertices
        self.target: list[int] = []
        self.following: list[int] = []
        self.previous: list[int] = []
        self.has_face: list[bool] = []
        self._by_ends: dict[tuple[int, int], int] = {}

    def add(self, triangle: list[int]) -> bool:
        """Add a triangle; returns False and adds nothing if the mesh would become non-manifold."""
        if any(not self._is_open(vertex) for vertex in triangle):  # A closed fan of triangles.
            return False
        pairs = [(triangle[corner], triangle[(corner + 1) % 3]) for corner in range(3)]
        is_new = [pair not in self._by_ends for pair in pairs]
        # Each halfedge has at most one triangle.
        if any(not new and self.has_face[self._by_ends[pair]] for pair, new in zip(pairs, is_new, strict=True)):
            return False
        links = self._relink(pairs, is_new)
        if links is None:
            return False
        edges = [self._edge(*pair) for pair in pairs]
        moved = []
        for corner in range(3):
            after = (corner + 1) % 3
            vertex, before, behind = triangle[after], edges[corner], edges[after]
            if is_new[corner] or is_new[after]:
                links += self._outer_links(vertex, before, behind, (is_new[corner], is_new[after]))
                links.append((before, behind))
            elif self.outgoing[vertex] == behind:
                moved.append(vertex)
            self.has_face[before] = True
        for first, second in links:  # Applied last, because the steps above read the old links.
            self.following[first], self.previous[second] = second, first
        for vertex in moved:
            self._begin_on_border(vertex)
        return True

    def ring(self, vertex: int) -> list[int]:
        """Neighbors, clockwise from the outgoing halfedge."""
        return [self.target[edge] for edge in self._around(vertex)]

    def _around(self, vertex: int) -> list[int]:
        edges: list[int] = []
        edge = self.outgoing[vertex]
        while edge != _NONE and (not edges or edge != edges[0]):
            edges.append(edge)
            edge = self.following[edge ^ 1]
        return edges

    def _is_open(self, vertex: int) -> bool:
        edge = self.outgoing[vertex]
        return edge == _NONE or not self.has_face[edge]

    def _begin_on_border(self, vertex: int) -> None:
        border = (edge for edge in self._around(vertex) if not self.has_face[edge])
        self.outgoing[vertex] = next(border, self.outgoing[vertex])

    def _edge(self, start: int, end: int) -> int:
        if (start, end) not in self._by_ends:
            number = len(self.target)
            self._by_ends[start, end], self._by_ends[end, start] = number, number + 1
            self.target += [end, start]
            self.following += [_NONE, _NONE]
            self.previous += [_NONE, _NONE]
            self.has_face += [False, False]
        return self._by_ends[start, end]

    def _relink(self, pairs: list[tuple[int, int]], is_new: list[bool]) -> list[tuple[int, int]] | None:
        """If two existing edges meet but are not consecutive, move the faces between them into another gap."""
        links: list[tuple[int, int]] = []
        for corner in range(3):
            after = (corner + 1) % 3
            if is_new[corner] or is_new[after]:
                continue
            before, behind = self._by_ends[pairs[corner]], self._by_ends[pairs[after]]
            if self.following[before] == behind:
                continue
            gap = self.following[behind ^ 1] ^ 1
            while self.has_face[gap]:
                gap = self.following[gap] ^ 1
            if gap == before:
                return None
            links += [
                (gap, self.following[before]),
                (self.previous[behind], self.following[gap]),
                (before, behind),
            ]
        return links

    def _outer_links(self, vertex: int, before: int, behind: int, is_new: tuple[bool, bool]) -> list[tuple[int, int]]:
        """Link the border around a corner with a new edge, and set the corner's outgoing halfedge on it."""
        outer_before, outer_behind = behind ^ 1, before ^ 1
        if is_new == (True, False):
            self.outgoing[vertex] = outer_behind
            return [(self.previous[behind], outer_behind)]
        if is_new == (False, True):
            self.outgoing[vertex] = self.following[before]
            return [(outer_before, self.following[before])]
        known = self.outgoing[vertex]
        if known == _NONE:
            self.outgoing[vertex] = outer_behind
            return [(outer_before, outer_behind)]
        return [(self.previous[known], outer_behind), (outer_before, known)]


def openmesh_rings(num_vertices: int, triangles: NDArray[np.integer]) -> list[list[int]]:
    """Neighbors of every vertex in OpenMesh's order. Non-manifold triangles are skipped, as in OpenMesh."""
    mesh = _Halfedges(num_vertices)
    for triangle in triangles.tolist():
        mesh.add(triangle)
    return [mesh.ring(vertex) for vertex in range(num_vertices)]


def openmesh_spirals(vertices: NDArray[np.floating], triangles: NDArray[np.integer], length: int) -> NDArray[np.int64]:
    """Spirals ring by ring in OpenMesh's order; the nearest vertices if there are too few rings.

    Shapes:
        vertices: (vertices, 3)
        triangles: (triangles, 3)
        returns: (vertices, length); each begins with its own vertex
    """
    around = openmesh_rings(len(vertices), triangles)
    spirals = np.empty((len(vertices), length), dtype=np.int64)
    for center in range(len(vertices)):
        spiral, ring = [center], around[center]
        outer = _outer_ring(around, ring, spiral)
        spiral = spiral + ring
        while outer and len(spiral) + len(outer) < length:
            ring, outer = outer, _outer_ring(around, outer, spiral)
            spiral = spiral + ring
        if outer:
            spirals[center] = (spiral + outer)[:length]
        else:
            distances = np.linalg.norm(vertices - vertices[center], axis=1)
            spirals[center] = np.argsort(distances, kind="stable")[:length]
    return spirals


def _outer_ring(around: list[list[int]], ring: list[int], inner: list[int]) -> list[int]:
    """The next ring: neighbors of each vertex of a ring, starting after the first neighbor within the ring."""
    within, outer = {*ring, *inner}, []
    for vertex in ring:
        neighbors = around[vertex]
        first = next((index for index, each in enumerate(neighbors) if each in set(ring)), None)
        if first is not None:
            neighbors = neighbors[first + 1 :] + neighbors[:first]
        for neighbor in neighbors:
            if neighbor not in within:
                within.add(neighbor)
                outer.append(neighbor)
    return outer
