import numpy as np
import pytest
import torch

from likeness.identity.mesh.puppet_topology import puppet_topology
from likeness.identity.mesh.vertices import VertexEncoder
from likeness.puppets import sample_clip


@pytest.mark.slow
def test_puppets_have_a_mesh_that_their_vertices_fit():
    topology = puppet_topology(8)
    assert topology.sizes == (2562, 641, 161)
    on_front = [(level[:, 2] > 0).mean() for level in topology.vertices]
    assert min(on_front) > 0.5
    clip = sample_clip(1, num_frames=1, size_px=16)
    torch.manual_seed(0)
    encoder = VertexEncoder((8, 16), num_vertices=topology.sizes)
    encoder.set_topology(topology)
    vertices = torch.from_numpy(clip.vertices)[None]
    assert encoder(vertices).shape == (1, 161, 16)
    coarse = encoder.project(vertices)[0, encoder.kept(0)[encoder.kept(1)]]
    assert coarse.abs().max() < 1.5
    assert np.ptp(coarse[:, 2].numpy()) > 1.0  # depth uses most of the code's range
