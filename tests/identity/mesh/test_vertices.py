import math

import numpy as np
import pytest
import torch
from meshes import sphere
from torch.testing import assert_close

from likeness.errors import ConfigError
from likeness.identity.mesh.spirals import MeshTopology
from likeness.identity.mesh.vertices import SpiralConv, VertexEncoder, depth_encoding, upsample


@pytest.fixture(scope="module")
def topology():
    return MeshTopology.build(*sphere(3))


def make_encoder(topology) -> VertexEncoder:
    torch.manual_seed(0)
    encoder = VertexEncoder((6, 8), num_vertices=topology.sizes)
    encoder.set_topology(topology)
    return encoder.double()


def test_spiral_convolution_matches_loops():
    torch.manual_seed(0)
    layer = SpiralConv(3, 4, spiral_length=5).double()
    x, spirals = torch.randn(2, 7, 3).double(), torch.randint(0, 7, (7, 5))
    weight = layer.layer.weight.view(4, 5, 3)
    expected = torch.zeros(2, 7, 4).double()
    for row in range(2):
        for vertex in range(7):
            for place, other in enumerate(spirals[vertex].tolist()):
                expected[row, vertex] += weight[:, place] @ x[row, other]
    assert_close(layer(x, spirals), expected + layer.layer.bias)


def test_depth_code_matches_the_formula():
    depth = torch.tensor([[-1.0, -0.3, 0.0, 0.8]]).double()
    code = depth_encoding(depth, 6)
    for vertex, z in enumerate(depth[0].tolist()):
        for channel in range(6):
            angle = 2 * math.pi * (0.5 * z + 0.5) / 10_000 ** (2 * (channel // 2) / 6)
            expected = math.cos(angle) if channel % 2 else math.sin(angle)
            assert code[0, vertex, channel].item() == pytest.approx(expected, abs=1e-12)


def test_encoder_matches_equation_f4_written_as_loops(topology):
    encoder = make_encoder(topology)
    people = torch.from_numpy(topology.vertices[0]).double() + 0.05 * torch.randn(2, 258, 3).double()
    x = 10 * (people - encoder.template) / encoder.spread
    depth = people[..., 2]  # the unit sphere fills [-1, 1] already
    for level, layer in enumerate(encoder.convolutions):
        rows = [
            layer.layer(torch.cat([x[:, v] for v in spiral], dim=-1)) for spiral in topology.spirals[level].tolist()
        ]
        kept = topology.kept[level].tolist()
        x = torch.stack([torch.where(row > 0, row, row.exp() - 1) for row in rows], dim=1)[:, kept]
        depth = depth[:, kept]
    expected = x + depth_encoding(depth, 8) + encoder.position
    assert_close(encoder(people), expected)
    assert encoder(people).shape == (2, 17, 8)


def test_every_coordinate_reaches_the_tokens(topology):
    encoder = make_encoder(topology)
    mean = torch.from_numpy(topology.vertices[0]).double()[None]
    for axis in range(3):
        moved = mean.clone()
        moved[:, topology.kept[0][topology.kept[1]], axis] += 0.05
        assert not torch.allclose(encoder(moved), encoder(mean), atol=1e-3)


def test_upsampling_brings_coordinates_back_to_the_surface(topology):
    coarse, fine = (torch.from_numpy(level).double() for level in topology.vertices[1::-1])
    indices, weights = (torch.from_numpy(part[0]) for part in (topology.up_indices, topology.up_weights))
    back = upsample(coarse[None], indices, weights)[0]
    assert (back - fine).norm(dim=-1).max() < 0.15
    assert_close(back[topology.kept[0]], coarse, atol=1e-6, rtol=0)


def test_stays_in_float32_beside_narrower_neighbors(topology):
    encoder = make_encoder(topology).float()
    both = torch.nn.ModuleList([encoder, torch.nn.Linear(2, 2)]).to(torch.bfloat16)
    assert both[1].weight.dtype == torch.bfloat16
    assert {tensor.dtype for tensor in encoder.state_dict().values()} == {torch.float32, torch.int32}


def test_the_mesh_is_part_of_the_state(topology):
    encoder = make_encoder(topology)
    again = VertexEncoder((6, 8), num_vertices=topology.sizes).double()
    assert not again.has_topology
    again.load_state_dict(encoder.state_dict())
    vertices = torch.from_numpy(topology.vertices[0] * np.float32(1.1))[None]
    assert again.has_topology
    assert torch.equal(again(vertices), encoder(vertices))


def test_misuse_says_what_to_do(topology):
    with pytest.raises(ConfigError, match="one width less than levels"):
        VertexEncoder((6, 8), num_vertices=(258, 65))
    with pytest.raises(ConfigError, match="num_vertices="):
        VertexEncoder((6, 8), num_vertices=(250, 65, 17)).set_topology(topology)
    with pytest.raises(ConfigError, match="trained on"):
        make_encoder(topology)(torch.zeros(1, 5, 3))
