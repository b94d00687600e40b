"""Small meshes: a sphere of an octahedron's subdivisions, and a flat sheet with a border."""

import numpy as np


def sphere(levels=2):
    """Unit sphere, triangles counter-clockwise from outside: 6, 18, 66, 258 vertices."""
    corners = ((1, 0, 0), (-1, 0, 0), (0, 1, 0), (0, -1, 0), (0, 0, 1), (0, 0, -1))
    points = [np.array(point, float) for point in corners]
    faces = [(0, 2, 4), (2, 1, 4), (1, 3, 4), (3, 0, 4), (2, 0, 5), (1, 2, 5), (3, 1, 5), (0, 3, 5)]
    for _ in range(levels):
        middles = {}

        def middle(a, b, middles=middles):
            key = (min(a, b), max(a, b))
            if key not in middles:
                middles[key] = len(points)
                points.append((points[a] + points[b]) / np.linalg.norm(points[a] + points[b]))
            return middles[key]

        finer = []
        for a, b, c in faces:
            ab, bc, ca = middle(a, b), middle(b, c), middle(c, a)
            finer += [(a, ab, ca), (b, bc, ab), (c, ca, bc), (ab, bc, ca)]
        faces = finer
    return np.array(points), np.array(faces)


def sheet(rows=5, columns=6):
    """A plane of squares, each cut in two."""
    y, x = np.mgrid[:rows, :columns]
    points = np.stack([x.ravel(), y.ravel(), np.zeros(rows * columns)], axis=1).astype(float)
    corner = (np.arange(rows - 1)[:, None] * columns + np.arange(columns - 1)).ravel()
    first = np.stack([corner, corner + 1, corner + columns], axis=1)
    second = np.stack([corner + 1, corner + columns + 1, corner + columns], axis=1)
    return points, np.concatenate([first, second])
