"""The head mesh of puppets (rendered synthetic people), which the FantasyID adapter of `tiny` is trained on."""

from functools import cache

import numpy as np

from likeness.identity.mesh.spirals import MeshTopology


@cache
def puppet_topology(num_people: int = 60, *, factors: tuple[int, ...] = (4, 4)) -> MeshTopology:
    """Build the mesh from the mean of the first `num_people` puppets, in seconds; `factors` as in `MeshTopology.build`.

    Decimation keeps the vertices that describe the shape best. The mean of many heads has facial features, so enough
    vertices remain on the face.
    """
    from likeness.puppets import sample_person  # numba loads only where puppets are used
    from likeness.puppets.people.shape import build_head

    heads = [build_head(sample_person(seed)) for seed in range(num_people)]
    return MeshTopology.build(np.mean([head.vertices for head in heads], axis=0), heads[0].triangles, factors=factors)
