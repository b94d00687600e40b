"""Mesh preprocessing for SpiralNet++ (arXiv:1911.05856v1): spirals, and down- and up-sampling between mesh levels.

Everything is computed once from a triangle mesh and stored as safetensors. Down-sampling is quadric edge collapse
onto existing vertices; up-sampling interpolates each fine vertex from the nearest triangle of the coarser mesh by
barycentric weights. The layers are in `vertices.py`.

Deviation: a spiral starts at the highest neighbor, not at an arbitrary one, so that a weight belongs to the same
direction at every vertex (docs/papers/fantasy_id.md, row 5).
"""

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Self

import numpy as np
from numpy.typing import NDArray
from safetensors.numpy import save_file

from likeness.errors import ConfigError, WeightsError
from likeness.files import write_atomically
from likeness.identity.mesh.decimation import decimate
from likeness.weights.tensors import read_arrays

Vertices = NDArray[np.float32]
Triangles = NDArray[np.int64]


@dataclass(frozen=True, kw_only=True, slots=True, eq=False)
class MeshTopology:
    """A fixed mesh at several levels, finest first.

    Shapes:
        vertices: per level (vertices, 3), of the mean shape
        triangles: per level (triangles, 3)
        spirals: per level (vertices, spiral_length); each begins with its center vertex
        kept: per down-sampling (coarse_vertices,), indices of the kept vertices of the finer level
        up_indices, up_weights: per up-sampling (fine_vertices, 3), corners of a coarse triangle and barycentric weights
    """

    vertices: tuple[Vertices, ...]
    triangles: tuple[Triangles, ...]
    spirals: tuple[NDArray[np.int64], ...]
    kept: tuple[NDArray[np.int64], ...]
    up_indices: tuple[NDArray[np.int64], ...]
    up_weights: tuple[Vertices, ...]

    @property
    def sizes(self) -> tuple[int, ...]:
        """Vertices at each level."""
        return tuple(len(level) for level in self.vertices)

    @property
    def spiral_length(self) -> int:
        return self.spirals[0].shape[1]

    @property
    def digest(self) -> str:
        """SHA-256 of the finest level's triangles, which identifies the topology."""
        return hashlib.sha256(self.triangles[0].tobytes()).hexdigest()

    @classmethod
    def build(
        cls,
        vertices: NDArray[np.floating],
        triangles: NDArray[np.integer],
        *,
        factors: Sequence[int] = (4, 4),
        spiral_length: int = 9,
    ) -> Self:
        """Compute all levels from a mesh, in seconds for 5,000 vertices.

        Args:
            vertices: (vertices, 3), of the mean shape.
            triangles: (triangles, 3).
            factors: Reduction factor of the number of vertices at each level; the result is rounded up.
            spiral_length: Vertices in a spiral, including its center.

        Raises:
            ConfigError: The mesh is malformed, or cannot be reduced that far.
        """
        levels = [(np.asarray(vertices, dtype=np.float64), np.asarray(triangles, dtype=np.int64))]
        _refuse_malformed(*levels[0])
        kept, indices, weights = [], [], []
        for factor in factors:
            fine, faces = levels[-1]
            kept_vertices, coarse_faces = decimate(fine, faces, -(-len(fine) // factor))
            coarse = fine[kept_vertices]
            corners, barycentric_weights = project_to_surface(fine, coarse, coarse_faces)
            levels.append((coarse, coarse_faces))
            kept.append(kept_vertices)
            indices.append(corners)
            weights.append(barycentric_weights.astype(np.float32))
        return cls(
            vertices=tuple(level.astype(np.float32) for level, _ in levels),
            triangles=tuple(faces for _, faces in levels),
            spirals=tuple(spiral_sequences(*level, spiral_length) for level in levels),
            kept=tuple(kept),
            up_indices=tuple(indices),
            up_weights=tuple(weights),
        )

    def save(self, path: Path) -> None:
        """Write one safetensors file."""
        tensors = {
            f"{name}.{level}": np.ascontiguousarray(array)
            for name in self.__dataclass_fields__
            for level, array in enumerate(getattr(self, name))
        }
        with write_atomically(path) as draft:
            save_file(tensors, draft)

    @classmethod
    def load(cls, path: Path) -> Self:
        """Load a file written by `save`."""
        try:
            tensors = read_arrays(path)
        except WeightsError as error:
            raise WeightsError(
                f"No mesh topology at {path} ({error}). "
                "Build one: `MeshTopology.build(vertices, triangles).save(path)`."
            ) from error
        names = cls.__dataclass_fields__
        arrays = {
            name: tuple(tensors[f"{name}.{level}"] for level in range(len(tensors)) if f"{name}.{level}" in tensors)
            for name in names
        }
        if any(not arrays[name] for name in names) or sum(map(len, arrays.values())) != len(tensors):
            raise WeightsError(
                f"{path} holds {', '.join(sorted(tensors))}, which are not those of a mesh topology. Build it again."
            )
        return cls(**arrays)


def spiral_sequences(vertices: NDArray[np.floating], triangles: NDArray[np.integer], length: int) -> NDArray[np.int64]:
    """Spirals: a vertex, then its neighbors ring by ring, each ring in the direction of the triangles.

    If a connected part of the mesh has too few vertices, the nearest other vertices follow.

    Shapes:
        returns: (vertices, length)

    Raises:
        ConfigError: The whole mesh has fewer vertices than a spiral.
    """
    if length > len(vertices):
        raise ConfigError(
            f"A spiral of {length} vertices does not fit on a mesh of {len(vertices)}. "
            "Choose a shorter one or fewer levels."
        )
    neighbors = _ordered_neighbors(triangles, len(vertices))
    spirals = np.empty((len(vertices), length), dtype=np.int64)
    for center in range(len(vertices)):
        first = _rotate_to_highest(neighbors[center], vertices)
        spiral, seen = [center, *first], {center, *first}
        position = 1
        while len(spiral) < length and position < len(spiral):
            # Traverse the neighbors of each spiral vertex, starting at the first that is already in the spiral.
            ring = neighbors[spiral[position]]
            inner = next((index for index, vertex in enumerate(ring) if vertex in seen), 0)
            for vertex in ring[inner:] + ring[:inner]:
                if vertex not in seen:
                    seen.add(vertex)
                    spiral.append(vertex)
            position += 1
        if len(spiral) < length:
            distances = np.linalg.norm(vertices - vertices[center], axis=1)
            spiral += [vertex for vertex in np.argsort(distances, kind="stable") if vertex not in seen]
        spirals[center] = spiral[:length]
    return spirals


def project_to_surface(
    points: NDArray[np.floating], vertices: NDArray[np.floating], triangles: NDArray[np.integer]
) -> tuple[NDArray[np.int64], NDArray[np.float64]]:
    """Find the nearest point of a surface for each of `points`.

    Shapes:
        points: (points, 3)
        returns: corners of its triangle (points, 3), and barycentric weights (points, 3), which are >= 0 and sum to 1
    """
    points = np.asarray(points, dtype=np.float64)
    corners = np.asarray(vertices, dtype=np.float64)[triangles]  # (triangles, 3, 3)
    indices = np.empty((len(points), 3), dtype=np.int64)
    weights = np.empty((len(points), 3))
    for start in range(0, len(points), 256):
        chunk = points[start : start + 256]
        barycentric_weights = _nearest_barycentric_weights(chunk[:, None], corners[None])  # (chunk, triangles, 3)
        distances = np.linalg.norm(chunk[:, None] - np.einsum("ptc,tcx->ptx", barycentric_weights, corners), axis=-1)
        nearest = distances.argmin(axis=1)
        indices[start : start + 256] = triangles[nearest]
        weights[start : start + 256] = barycentric_weights[np.arange(len(chunk)), nearest]
    return indices, weights


def _nearest_barycentric_weights(points: NDArray[np.float64], corners: NDArray[np.float64]) -> NDArray[np.float64]:
    """Barycentric weights of the nearest point of each triangle: inside it, or on the nearest of its edges."""
    first, second, third = (corners[:, :, number] for number in range(3))
    # Project onto the plane of each triangle.
    edge1, edge2, to_point = second - first, third - first, points - first
    d11, d12, d22 = ((a * b).sum(-1) for a, b in ((edge1, edge1), (edge1, edge2), (edge2, edge2)))
    p1, p2 = (to_point * edge1).sum(-1), (to_point * edge2).sum(-1)
    area = np.maximum(d11 * d22 - d12 * d12, 1e-30)
    v, w = (d22 * p1 - d12 * p2) / area, (d11 * p2 - d12 * p1) / area
    barycentric_weights = np.stack([1 - v - w, v, w], axis=-1)
    is_inside = (barycentric_weights >= 0).all(axis=-1)
    min_distance = np.where(is_inside, -1.0, np.inf)  # A point inside is never replaced by one on an edge.
    for start, stop in ((0, 1), (1, 2), (2, 0)):
        origin, edge = corners[:, :, start], corners[:, :, stop] - corners[:, :, start]
        # Nearest point of the edge, with its parameter clipped to the segment.
        along = ((points - origin) * edge).sum(-1) / np.maximum((edge * edge).sum(-1), 1e-30)
        along = np.clip(along, 0, 1)
        distance = np.linalg.norm(points - origin - along[..., None] * edge, axis=-1)
        edge_weights = np.zeros_like(barycentric_weights)
        edge_weights[..., start], edge_weights[..., stop] = 1 - along, along
        barycentric_weights = np.where((distance < min_distance)[..., None], edge_weights, barycentric_weights)
        min_distance = np.minimum(distance, min_distance)
    return barycentric_weights


def _ordered_neighbors(triangles: NDArray[np.integer], num_vertices: int) -> list[list[int]]:
    """Neighbors of each vertex in the direction of its triangles; at a border they start at the open end."""
    next_neighbor: list[dict[int, int]] = [{} for _ in range(num_vertices)]
    for a, b, c in triangles.tolist():
        next_neighbor[a][b], next_neighbor[b][c], next_neighbor[c][a] = c, a, b
    neighbors = []
    for successors in next_neighbor:
        starts = [vertex for vertex in successors if vertex not in successors.values()] or list(successors)[:1]
        ring: list[int] = []
        remaining = dict(successors)
        while starts or remaining:
            vertex: int | None = starts.pop() if starts else next(iter(remaining))
            while vertex is not None and vertex not in ring:
                ring.append(vertex)
                vertex = remaining.pop(vertex, None)
            remaining = {key: value for key, value in remaining.items() if key not in ring}
        neighbors.append(ring)
    return neighbors


def _rotate_to_highest(ring: list[int], vertices: NDArray[np.floating]) -> list[int]:
    if not ring:
        return []
    start = max(range(len(ring)), key=lambda index: (vertices[ring[index], 1], -ring[index]))
    return ring[start:] + ring[:start]


def _refuse_malformed(vertices: NDArray[np.float64], triangles: NDArray[np.int64]) -> None:
    is_mesh = (
        vertices.ndim == triangles.ndim == 2
        and vertices.shape[1] == triangles.shape[1] == 3
        and len(triangles) > 0
        and np.array_equal(np.unique(triangles), np.arange(len(vertices)))
        and bool(np.isfinite(vertices).all())
    )
    if not is_mesh:
        raise ConfigError(
            f"Vertices {vertices.shape} and triangles {triangles.shape} are no mesh: (vertices, 3) finite numbers and "
            "(triangles, 3) that use every vertex were expected. Check their source file."
        )
