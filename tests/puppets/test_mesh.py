import numpy as np

from likeness.puppets.rendering.mesh import ellipsoid, head_topology, join, tube
from likeness.puppets.rendering.raster import hair_depths, hair_inside, vertex_normals


def edges(triangles):
    pairs = np.concatenate([triangles[:, [0, 1]], triangles[:, [1, 2]], triangles[:, [2, 0]]])
    return np.unique(np.sort(pairs, axis=1), axis=0, return_counts=True)


def test_the_head_is_a_closed_surface():
    vertices, triangles = head_topology()
    unique, counts = edges(triangles)
    assert (counts == 2).all()
    assert len(vertices) - len(unique) + len(triangles) == 2


def test_head_directions_are_unit_and_denser_in_front():
    vertices, _ = head_topology()
    assert np.allclose(np.linalg.norm(vertices, axis=1), 1, atol=1e-5)
    assert (vertices[:, 2] > 0).mean() > 0.6


def test_normals_of_a_sphere_point_along_its_radius():
    vertices, triangles = head_topology()
    assert (np.abs((vertex_normals(vertices, triangles) * vertices).sum(1)) > 0.98).all()


def test_joined_meshes_keep_their_triangles():
    first, second = ellipsoid((0, 0, 0), (1, 1, 1)), tube(np.linspace([0, 0, 0], [0, 1, 0], 4), 0.1)
    vertices, triangles = join([first, second])
    assert len(vertices) == len(first[0]) + len(second[0])
    assert triangles.max() == len(vertices) - 1


def test_hair_of_many_points_is_the_hair_of_each():
    points = np.random.default_rng(0).normal(size=(20, 3)).astype(np.float32)
    line = np.array([0.6, 0.5, 0.0, -0.4, 0.5, 0.2, 0.5, 1.0], dtype=np.float32)
    assert np.allclose(hair_depths(points, line), [hair_inside(*point, line) for point in points], atol=1e-5)
