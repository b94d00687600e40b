"""The vertex branch of the released FantasyID: learned vertex queries with a depth encoding, fused with face tokens.

Unlike the paper's encoder (`vertices.py`) it reads only the depth of the coarse vertices, and SpiralNet++ comes last,
from the coarse mesh to the fine one. It is meant for the published weights, not for training.
"""

from collections.abc import Sequence
from itertools import pairwise
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.functional import elu, gelu

from likeness.errors import ConfigError
from likeness.identity.encoders.precision import KeepInFloat32
from likeness.identity.mesh.spirals import MeshTopology
from likeness.identity.mesh.vertices import SpiralConv, depth_encoding, upsample
from likeness.identity.shape_fusion import FusionTransformer

NUM_PROJECTIONS = 4
"""Projections from the width of face tokens to that of vertex tokens."""


class ProjectionMLP(nn.Module):
    """A two-layer MLP to another width; the hidden width is that of the input.

    Shapes:
        x: (batch, tokens, width)
        returns: (batch, tokens, output_width)
    """

    def __init__(self, width: int, output_width: int) -> None:
        super().__init__()
        self.fc1 = nn.Linear(width, width)
        self.fc2 = nn.Linear(width, output_width)

    def forward(self, x: Tensor) -> Tensor:
        return self.fc2(gelu(self.fc1(x)))


class VertexDecoder(KeepInFloat32):
    """The fusion transformer over coarse vertices and face tokens, then up-sampling to every vertex of the mesh.

    It stays in float32 when the method is cast to a narrower dtype, as in the published code. The mesh is part of the
    state dict, but not of the published weights.

    Shapes:
        vertices: (batch, vertices, 3), posed, in FLAME's meters
        face: (batch, face_tokens, face_width)
        returns: (batch, vertices, width)
    """

    template: Tensor

    def __init__(
        self,
        width: int,
        *,
        face_width: int,
        num_vertices: Sequence[int],
        spiral_length: int,
        fusion_depth: int,
        fusion_heads: int,
    ) -> None:
        super().__init__()
        self.sizes = tuple(num_vertices)
        self.query = nn.Parameter(torch.zeros(1, num_vertices[-1], width))
        widths = [face_width // 2**step for step in range(NUM_PROJECTIONS)] + [width]
        self.narrow = nn.Sequential(*(ProjectionMLP(wide, narrow) for wide, narrow in pairwise(widths)))
        self.fusion = FusionTransformer(width, depth=fusion_depth, num_heads=fusion_heads)
        self.convolutions = nn.ModuleList(SpiralConv(width, width, spiral_length=spiral_length) for _ in num_vertices)
        self.output = nn.Linear(width, width)
        self.register_buffer("template", torch.zeros(num_vertices[0], 3))
        for level, (fine, coarse) in enumerate(pairwise(num_vertices)):
            self.register_buffer(f"spirals_{level}", torch.zeros(fine, spiral_length, dtype=torch.int64))
            self.register_buffer(f"kept_{level}", torch.zeros(coarse, dtype=torch.int64))
            self.register_buffer(f"up_indices_{level}", torch.zeros(fine, 3, dtype=torch.int64))
            self.register_buffer(f"up_weights_{level}", torch.zeros(fine, 3))

    @property
    def has_topology(self) -> bool:
        return bool(self.get_buffer("spirals_0").any())

    def topology_state(self, topology: MeshTopology) -> dict[str, Tensor]:
        """The mesh as tensors of this module's state dict.

        Raises:
            ConfigError: Its levels or spirals have other sizes.
        """
        length = self.get_buffer("spirals_0").shape[1]
        if topology.sizes != self.sizes or topology.spiral_length != length:
            raise ConfigError(
                f"The mesh has levels of {topology.sizes} vertices and spirals of {topology.spiral_length}; these "
                f"weights were made for {self.sizes} and {length}. Use the mesh that was published with them."
            )
        state: dict[str, Any] = {"template": topology.vertices[0]}
        for level in range(len(self.sizes) - 1):
            state[f"spirals_{level}"] = topology.spirals[level]
            state[f"kept_{level}"] = topology.kept[level]
            state[f"up_indices_{level}"] = topology.up_indices[level]
            state[f"up_weights_{level}"] = topology.up_weights[level]
        return {name: torch.from_numpy(array).clone() for name, array in state.items()}

    def set_topology(self, topology: MeshTopology) -> None:
        """Set the mesh."""
        for name, tensor in self.topology_state(topology).items():
            self.get_buffer(name).copy_(tensor)

    def forward(self, vertices: Tensor, face: Tensor) -> Tensor:
        if vertices.shape[1:] != self.template.shape:
            raise ConfigError(
                f"Vertices have the shape {tuple(vertices.shape[1:])}; {tuple(self.template.shape)} was expected. "
                "Use the vertices of a FLAME head, as DECA writes them."
            )
        depth: Any = vertices[..., 2].to(self.template)
        levels = range(len(self.sizes) - 1)
        for level in levels:
            depth = depth[:, self.get_buffer(f"kept_{level}")]
        queries = self.query + depth_encoding(depth, self.query.shape[-1])
        x = self.fusion(queries, self.narrow(face.to(queries)))
        for level, convolution in zip(reversed(levels), self.convolutions[:-1], strict=True):
            up = upsample(x, self.get_buffer(f"up_indices_{level}"), self.get_buffer(f"up_weights_{level}"))
            x = elu(convolution(up, self.get_buffer(f"spirals_{level}")))
        return self.output(self.convolutions[-1](x, self.get_buffer("spirals_0")))
