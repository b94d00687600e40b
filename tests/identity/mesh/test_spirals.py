from itertools import pairwise

import numpy as np
import pytest
from meshes import sheet, sphere

from likeness.errors import ConfigError, WeightsError
from likeness.identity.mesh.decimation import decimate
from likeness.identity.mesh.spirals import MeshTopology, project_to_surface, spiral_sequences


def neighbors_of(triangles, vertex):
    return set(triangles[(triangles == vertex).any(axis=1)].ravel().tolist()) - {vertex}


def edges_of(triangles):
    counts = {}
    for face in triangles.tolist():
        for a, b in zip(face, face[1:] + face[:1], strict=True):
            counts[(a, b)] = counts.get((a, b), 0) + 1
    return counts


@pytest.mark.parametrize("mesh", [sphere(2), sheet()], ids=["sphere", "sheet with a border"])
def test_spiral_is_the_vertex_then_its_rings_in_order(mesh):
    vertices, triangles = mesh
    spirals = spiral_sequences(vertices, triangles, 12)
    edges = edges_of(triangles)
    for center, spiral in enumerate(spirals.tolist()):
        assert spiral[0] == center
        assert len(set(spiral)) == len(spiral)
        ring = neighbors_of(triangles, center)
        inner = spiral[1 : 1 + len(ring)]
        assert set(inner) == ring
        if all((b, a) in edges for a, b in edges if center in (a, b)):  # no border here
            # Each next neighbor closes a triangle with the last one, in the triangles' direction.
            faces = {tuple(np.roll(face, shift)) for face in triangles.tolist() for shift in range(3)}
            assert all((center, a, b) in faces for a, b in pairwise(inner))
            assert vertices[inner[0], 1] == max(vertices[list(ring), 1])
        second = set().union(*(neighbors_of(triangles, vertex) for vertex in ring)) - ring - {center}
        outer = spiral[1 + len(ring) :]
        assert set(outer) <= second or second <= set(outer)


def test_a_mesh_in_parts_is_filled_with_the_nearest_vertices():
    vertices, triangles = sphere(0)
    both = np.concatenate([vertices, vertices + np.array([5, 0, 0])])
    spirals = spiral_sequences(both, np.concatenate([triangles, triangles + 6]), 8)
    assert set(spirals[0, :6].tolist()) == set(range(6))
    assert set(spirals[0, 6:].tolist()) <= set(range(6, 12))


@pytest.mark.parametrize(("mesh", "target"), [(sphere(3), 65), (sheet(8, 9), 18)], ids=["sphere", "sheet"])
def test_decimation_keeps_a_closed_surface_among_its_own_vertices(mesh, target):
    vertices, triangles = mesh
    stay, coarse = decimate(vertices, triangles, target)
    assert len(stay) == target == len(np.unique(coarse))
    assert (np.diff(stay) > 0).all()
    edges, before = edges_of(coarse), edges_of(triangles)
    assert set(edges.values()) == {1}  # every directed edge once: a surface with one direction
    closed = all((b, a) in before for a, b in before)
    assert all((b, a) in edges for a, b in edges) == closed
    undirected = {tuple(sorted(edge)) for edge in edges}
    assert len(stay) - len(undirected) + len(coarse) == (2 if closed else 1)  # Euler
    corners = vertices[stay][coarse]
    normals = np.cross(corners[:, 1] - corners[:, 0], corners[:, 2] - corners[:, 0])
    outward = corners.mean(axis=1) if closed else np.array([0.0, 0.0, 1.0])
    assert ((normals * outward).sum(axis=1) > 0).all()
    if not closed:  # the border stays where it was
        assert np.ptp(vertices[stay], axis=0).tolist() == np.ptp(vertices, axis=0).tolist()


def test_quadric_decimation_keeps_what_sticks_out():
    vertices, triangles = sheet(9, 9)
    vertices[40, 2] = 3.0
    stay, _ = decimate(vertices, triangles, 20)
    assert 40 in stay


def test_upsampling_weights_are_the_nearest_points_by_brute_force():
    vertices, triangles = sphere(1)
    points = np.random.default_rng(0).normal(size=(20, 3))
    indices, weights = project_to_surface(points, vertices, triangles)
    assert weights.min() >= 0
    assert weights.sum(axis=1) == pytest.approx(np.ones(20))
    found = np.linalg.norm(points - (vertices[indices] * weights[..., None]).sum(axis=1), axis=1)
    shares = np.array([(a, b, 60 - a - b) for a in range(61) for b in range(61 - a)]) / 60
    dense = np.einsum("sc,tcx->tsx", shares, vertices[triangles]).reshape(-1, 3)
    brute = np.linalg.norm(points[:, None] - dense, axis=-1).min(axis=1)
    assert (found <= brute + 1e-12).all()
    assert found == pytest.approx(brute, abs=2e-2)


def test_topology_round_trip_and_levels(tmp_path):
    vertices, triangles = sphere(3)
    topology = MeshTopology.build(vertices, triangles)
    assert topology.sizes == (258, 65, 17)
    for level, kept in enumerate(topology.kept):
        assert np.array_equal(topology.vertices[level][kept], topology.vertices[level + 1])
        # A vertex that stayed is placed on itself alone.
        place = topology.up_indices[level][kept], topology.up_weights[level][kept]
        assert place[1].max(axis=1) == pytest.approx(np.ones(len(kept)), abs=1e-6)
        assert np.array_equal(place[0][np.arange(len(kept)), place[1].argmax(axis=1)], np.arange(len(kept)))
    topology.save(tmp_path / "mesh.safetensors")
    again = MeshTopology.load(tmp_path / "mesh.safetensors")
    assert again.digest == topology.digest
    for name in MeshTopology.__dataclass_fields__:
        pairs = zip(getattr(again, name), getattr(topology, name), strict=True)
        assert all(np.array_equal(a, b) and a.dtype == b.dtype for a, b in pairs)


def test_misuse_says_what_to_do(tmp_path):
    vertices, triangles = sphere(0)
    with pytest.raises(ConfigError, match="no mesh"):
        MeshTopology.build(np.concatenate([vertices, [[9, 9, 9]]]), triangles)
    with pytest.raises(ConfigError, match="does not fit on a mesh of 6"):
        MeshTopology.build(vertices, triangles, factors=())
    with pytest.raises(ConfigError, match="folding or"):
        decimate(*sheet(2, 2), 1)
    with pytest.raises(WeightsError, match=r"MeshTopology\.build"):
        MeshTopology.load(tmp_path / "nothing.safetensors")
