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
        self.next_halfedge: list[int] = []
        self.prev_halfedge: list[int] = []
        self.has_face: list[bool] = []
        self._halfedge_of_ends: dict[tuple[int, int], int] = {}

    def add(self, triangle: list[int]) -> bool:
        """Add a triangle; returns False and adds nothing if the mesh would become non-manifold."""
        if any(not self._is_boundary(vertex) for vertex in triangle):  # A closed fan of triangles.
            return False
        pairs = [(triangle[corner], triangle[(corner + 1) % 3]) for corner in range(3)]
        is_new = [pair not in self._halfedge_of_ends for pair in pairs]
        # Each halfedge has at most one triangle.
        if any(
            not new and self.has_face[self._halfedge_of_ends[pair]] for pair, new in zip(pairs, is_new, strict=True)
        ):
            return False
        links = self._relink(pairs, is_new)
        if links is None:
            return False
        edges = [self._edge(*pair) for pair in pairs]
        moved = []
        for corner in range(3):
            next_corner = (corner + 1) % 3
            vertex, inner_prev, inner_next = triangle[next_corner], edges[corner], edges[next_corner]
            if is_new[corner] or is_new[next_corner]:
                links += self._outer_links(vertex, inner_prev, inner_next, (is_new[corner], is_new[next_corner]))
                links.append((inner_prev, inner_next))
            elif self.outgoing[vertex] == inner_next:
                moved.append(vertex)
            self.has_face[inner_prev] = True
        for first, second in links:  # Applied last, because the steps above read the old links.
            self.next_halfedge[first], self.prev_halfedge[second] = second, first
        for vertex in moved:
            self._adjust_outgoing_halfedge(vertex)
        return True

    def ring(self, vertex: int) -> list[int]:
        """Neighbors, clockwise from the outgoing halfedge."""
        return [self.target[edge] for edge in self._around(vertex)]

    def _around(self, vertex: int) -> list[int]:
        edges: list[int] = []
        edge = self.outgoing[vertex]
        while edge != _NONE and (not edges or edge != edges[0]):
            edges.append(edge)
            edge = self.next_halfedge[edge ^ 1]
        return edges

    def _is_boundary(self, vertex: int) -> bool:
        edge = self.outgoing[vertex]
        return edge == _NONE or not self.has_face[edge]

    def _adjust_outgoing_halfedge(self, vertex: int) -> None:
        border = (edge for edge in self._around(vertex) if not self.has_face[edge])
        self.outgoing[vertex] = next(border, self.outgoing[vertex])

    def _edge(self, start: int, end: int) -> int:
        if (start, end) not in self._halfedge_of_ends:
            number = len(self.target)
            self._halfedge_of_ends[start, end], self._halfedge_of_ends[end, start] = number, number + 1
            self.target += [end, start]
            self.next_halfedge += [_NONE, _NONE]
            self.prev_halfedge += [_NONE, _NONE]
            self.has_face += [False, False]
        return self._halfedge_of_ends[start, end]

    def _relink(self, pairs: list[tuple[int, int]], is_new: list[bool]) -> list[tuple[int, int]] | None:
        """If two existing edges meet but are not consecutive, move the faces between them into another gap."""
        links: list[tuple[int, int]] = []
        for corner in range(3):
            next_corner = (corner + 1) % 3
            if is_new[corner] or is_new[next_corner]:
                continue
            inner_prev, inner_next = self._halfedge_of_ends[pairs[corner]], self._halfedge_of_ends[pairs[next_corner]]
            if self.next_halfedge[inner_prev] == inner_next:
                continue
            boundary_prev = self.next_halfedge[inner_next ^ 1] ^ 1
            while self.has_face[boundary_prev]:
                boundary_prev = self.next_halfedge[boundary_prev] ^ 1
            if boundary_prev == inner_prev:
                return None
            links += [
                (boundary_prev, self.next_halfedge[inner_prev]),
                (self.prev_halfedge[inner_next], self.next_halfedge[boundary_prev]),
                (inner_prev, inner_next),
            ]
        return links

    def _outer_links(
        self, vertex: int, inner_prev: int, inner_next: int, is_new: tuple[bool, bool]
    ) -> list[tuple[int, int]]:
        """Link the border around a corner with a new edge, and set the corner's outgoing halfedge on it."""
        outer_prev, outer_next = inner_next ^ 1, inner_prev ^ 1
        if is_new == (True, False):
            self.outgoing[vertex] = outer_next
            return [(self.prev_halfedge[inner_next], outer_next)]
        if is_new == (False, True):
            self.outgoing[vertex] = self.next_halfedge[inner_prev]
            return [(outer_prev, self.next_halfedge[inner_prev])]
        boundary_next = self.outgoing[vertex]
        if boundary_next == _NONE:
            self.outgoing[vertex] = outer_next
            return [(outer_prev, outer_next)]
        return [(self.prev_halfedge[boundary_next], outer_next), (outer_prev, boundary_next)]


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
    neighbors = openmesh_rings(len(vertices), triangles)
    spirals = np.empty((len(vertices), length), dtype=np.int64)
    for center in range(len(vertices)):
        spiral, ring = [center], neighbors[center]
        outer = _outer_ring(neighbors, ring, spiral)
        spiral = spiral + ring
        while outer and len(spiral) + len(outer) < length:
            ring, outer = outer, _outer_ring(neighbors, outer, spiral)
            spiral = spiral + ring
        if outer:
            spirals[center] = (spiral + outer)[:length]
        else:
            distances = np.linalg.norm(vertices - vertices[center], axis=1)
            spirals[center] = np.argsort(distances, kind="stable")[:length]
    return spirals


def _outer_ring(neighbors: list[list[int]], ring: list[int], inner: list[int]) -> list[int]:
    """The next ring: neighbors of each vertex of a ring, starting after the first neighbor within the ring."""
    within, outer = {*ring, *inner}, []
    for vertex in ring:
        ordered = neighbors[vertex]
        first = next((index for index, neighbor in enumerate(ordered) if neighbor in set(ring)), None)
        if first is not None:
            ordered = ordered[first + 1 :] + ordered[:first]
        for neighbor in ordered:
            if neighbor not in within:
                within.add(neighbor)
                outer.append(neighbor)
    return outer
