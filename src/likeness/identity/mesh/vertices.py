"""Encodes a face's 3D shape as tokens: SpiralNet++ with a depth encoding (FantasyID, arXiv:2502.13995v1, Sec. 3.3).

Vertices have a fixed topology (`spirals.py`), neutral pose and expression. `SpiralConv` is SpiralNet++'s
(arXiv:1911.05856v1); `VertexEncoder` maps V_s to X_V. Vertices come from `likeness.identity.face_shape`.
"""

from collections.abc import Sequence
from itertools import pairwise
from math import pi
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.functional import elu

from likeness.errors import ConfigError
from likeness.identity.encoders.precision import KeepInFloat32
from likeness.identity.mesh.spirals import MeshTopology

DEPTH_TEMPERATURE = 10_000


class SpiralConv(nn.Module):
    """One linear layer over the features along a spiral, with separate weights for each position.

    Shapes:
        x: (batch, vertices, width)
        spirals: (centers, spiral_length), int32, for all vertices or some
        returns: (batch, centers, output_width)
    """

    def __init__(self, width: int, output_width: int, *, spiral_length: int) -> None:
        super().__init__()
        self.layer = nn.Linear(spiral_length * width, output_width)
        nn.init.xavier_uniform_(self.layer.weight)
        nn.init.zeros_(self.layer.bias)

    def forward(self, x: Tensor, spirals: Tensor) -> Tensor:
        return self.layer(x[:, spirals].flatten(2))


def upsample(x: Tensor, indices: Tensor, weights: Tensor) -> Tensor:
    """Interpolate features of a coarse mesh at the vertices of the finer one.

    Shapes:
        x: (batch, coarse_vertices, width)
        indices, weights: (vertices, 3)
        returns: (batch, vertices, width)
    """
    return (x[:, indices] * weights[..., None].to(x)).sum(dim=2)


def depth_encoding(depth: Tensor, width: int) -> Tensor:
    """E_dep: sines (even channels) and cosines (odd channels) of 2 pi (depth / 2 + 1 / 2) at falling frequencies.

    Shapes:
        depth: (batch, vertices), from -1 (far) to 1 (near the camera)
        returns: (batch, vertices, width)
    """
    channel = torch.arange(width, device=depth.device)
    period = DEPTH_TEMPERATURE ** (2 * (channel // 2).to(depth) / width)
    angle = (2 * pi * (0.5 * depth + 0.5))[..., None] / period
    return torch.where(channel % 2 == 0, angle.sin(), angle.cos())


class VertexEncoder(KeepInFloat32):
    """X_V = X'_V + E_dep: spiral convolutions over all three coordinates, plus a depth encoding of coarse vertices.

    The mesh is part of the state dict, so saved weights need no other file. Depth is that of an orthographic camera
    in front of the mean face, scaled so that the mean face fills [-1, 1]. SpiralNet++ reads offsets from the mean
    face, and a learned embedding identifies the vertex of each token (docs/papers/fantasy_id.md, rows 5 and 6).

    It stays in float32 when the method is cast to a narrower dtype: differences between people are small compared
    with the size of a head.

    Shapes:
        vertices: (batch, vertices, 3): V_s; x and y span the image plane, z points at the camera
        returns: (batch, coarse_vertices, width)
    """

    template: Tensor
    spread: Tensor

    def __init__(self, widths: Sequence[int], *, num_vertices: Sequence[int], spiral_length: int = 9) -> None:
        """Build it for a mesh of these sizes; `set_topology` sets the mesh.

        Args:
            widths: Channels after each level, the last the paper's C'.
            num_vertices: Vertices of each level, one more than there are widths; the last is the paper's N'.
            spiral_length: Vertices in a spiral.
        """
        super().__init__()
        if len(num_vertices) != len(widths) + 1:
            raise ConfigError(
                f"{len(widths)} widths were given for {len(num_vertices)} levels of the mesh; each down-sampling has "
                "one width. Give one width less than levels."
            )
        self.sizes = tuple(num_vertices)
        self.register_buffer("template", torch.zeros(num_vertices[0], 3))
        self.register_buffer("spread", torch.ones(()))
        for level, (fine, coarse) in enumerate(pairwise(num_vertices)):
            self.register_buffer(f"spirals_{level}", torch.zeros(fine, spiral_length, dtype=torch.int32))
            self.register_buffer(f"kept_{level}", torch.zeros(coarse, dtype=torch.int32))
        self.convolutions = nn.ModuleList(
            SpiralConv(narrow, wide, spiral_length=spiral_length) for narrow, wide in pairwise((3, *widths))
        )
        self.position = nn.Parameter(0.02 * torch.randn(1, num_vertices[-1], widths[-1]))

    @property
    def has_topology(self) -> bool:
        return bool(self.spirals(0).any())

    def set_topology(self, topology: MeshTopology) -> None:
        """Set the mesh and the mean shape from which offsets are computed.

        Raises:
            ConfigError: Its levels or spirals have other sizes.
        """
        length = self.spirals(0).shape[1]
        if topology.sizes != self.sizes or topology.spiral_length != length:
            raise ConfigError(
                f"The mesh has levels of {topology.sizes} vertices and spirals of {topology.spiral_length}; the "
                f"encoder was built for {self.sizes} and {length}. "
                f"Build the method with `num_vertices={topology.sizes}`."
            )
        mean = torch.from_numpy(topology.vertices[0])
        self.template.copy_(mean)
        self.spread.copy_((mean.amax(dim=0) - mean.amin(dim=0)).amax() / 2)
        for level, kept in enumerate(topology.kept):
            self.spirals(level).copy_(torch.from_numpy(topology.spirals[level]))
            self.kept(level).copy_(torch.from_numpy(kept))

    def spirals(self, level: int) -> Tensor:
        return self.get_buffer(f"spirals_{level}")

    def kept(self, level: int) -> Tensor:
        return self.get_buffer(f"kept_{level}")

    def project(self, vertices: Tensor) -> Tensor:
        """Project vertices to x, y and depth, scaled so that the mean face fills [-1, 1]."""
        center = (self.template.amax(dim=0) + self.template.amin(dim=0)) / 2
        return (vertices - center) / self.spread

    def forward(self, vertices: Tensor) -> Tensor:
        if vertices.shape[1:] != self.template.shape:
            raise ConfigError(
                f"Vertices have the shape {tuple(vertices.shape[1:])}; {tuple(self.template.shape)} was expected. "
                "Read the shape in the topology that the method was trained on."
            )
        vertices = vertices.to(self.template)
        # Offsets between people are about a tenth of a head; the factor 10 brings them to unit scale.
        x = 10 * (vertices - self.template) / self.spread
        coarse: Any = self.project(vertices)
        for level, convolution in enumerate(self.convolutions):
            kept = self.kept(level)
            # Compute only the vertices that the down-sampling keeps.
            x = elu(convolution(x, self.spirals(level)[kept]))
            coarse = coarse[:, kept]
        return x + depth_encoding(coarse[..., 2], x.shape[-1]) + self.position
