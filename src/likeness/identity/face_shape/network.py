"""Predicts a neutral head from head crops: a small convolutional network over a PCA basis of puppets' shapes.

Its output has the puppets' topology (`identity/mesh/puppet_topology.py`), for any pose and expression of the input. It
is trained on puppets (rendered synthetic people) only: on photographs it gives plausible heads of unmeasured accuracy.
"""

from itertools import pairwise
from pathlib import Path
from typing import Any, Self

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from likeness.identity.encoders.convolution import Residual
from likeness.identity.network_files import load_network, save_network


class ShapeNetwork(nn.Module):
    """From aligned head crops to PCA coefficients; vertices are mean + sum of coefficient times component.

    Components are scaled so that over people each coefficient has mean 0 and standard deviation 1.

    Shapes:
        crops: (batch, 3, size_px, size_px) in [-1, 1]
        returns: (batch, components)
    """

    mean: Tensor
    basis: Tensor

    def __init__(
        self,
        num_vertices: int = 2562,
        num_components: int = 32,
        widths: tuple[int, ...] = (16, 40, 80, 96),
        hidden_width: int = 160,
        size_px: int = 64,
    ) -> None:
        super().__init__()
        self.config: dict[str, Any] = {
            "num_vertices": num_vertices,
            "num_components": num_components,
            "widths": list(widths),
            "hidden_width": hidden_width,
            "size_px": size_px,
        }
        self.size_px = size_px
        self.register_buffer("mean", torch.zeros(num_vertices, 3))
        self.register_buffer("basis", torch.zeros(num_components, num_vertices, 3))
        layers: list[nn.Module] = [nn.Conv2d(3, widths[0], 4, stride=2, padding=1), nn.GELU()]
        for level, (narrow, wide) in enumerate(pairwise(widths)):
            layers += [nn.Conv2d(narrow, wide, 3, stride=2, padding=1), nn.GELU()]
            layers += [Residual(wide)] if level else []  # None at the largest, most expensive feature map.
        side = size_px // 2 ** len(widths)
        layers += [
            nn.Flatten(),
            nn.Linear(widths[-1] * side * side, hidden_width),
            nn.GELU(),
            nn.Linear(hidden_width, num_components),
        ]
        self.layers = nn.Sequential(*layers)

    def forward(self, crops: Tensor) -> Tensor:
        return self.layers(crops)

    def set_basis(self, mean: Tensor, basis: Tensor) -> None:
        """Set the result of `principal_shapes`."""
        self.mean.copy_(mean)
        self.basis.copy_(basis)

    @property
    def spread(self) -> Tensor:
        """(components,): RMS displacement of a vertex coordinate per unit of each coefficient."""
        return self.basis.square().mean(dim=(1, 2)).sqrt()

    def coefficients(self, vertices: Tensor) -> Tensor:
        """Project heads (batch, vertices, 3) onto the orthogonal components: coefficients (batch, components)."""
        basis = self.basis.flatten(1)
        return (vertices - self.mean).flatten(1) @ basis.T / basis.square().sum(dim=1)

    def head(self, coefficients: Tensor) -> Tensor:
        """Vertices (batch, vertices, 3) of coefficients (batch, components)."""
        return self.mean + torch.einsum("bk,kvc->bvc", coefficients, self.basis)

    def prepare(self, crops: Tensor) -> Tensor:
        """Resize crops (batch, 3, side, side) in [-1, 1] to the network's input size."""
        return F.adaptive_avg_pool2d(crops, self.size_px)

    @torch.no_grad()
    def read(self, crops: np.ndarray) -> np.ndarray:
        """The neutral head (vertices, 3) of one person from (views, side, side, 3) uint8 head crops, averaged."""
        pixels = torch.from_numpy(crops).movedim(-1, 1).float() / 127.5 - 1
        coefficients = self(self.prepare(pixels).to(self.mean.device)).mean(dim=0, keepdim=True)
        return self.head(coefficients)[0].cpu().numpy()

    def save(self, folder: Path) -> None:
        """Write config.json and float16 weights."""
        save_network(self, self.config, folder)

    @classmethod
    def load(cls, folder: Path) -> Self:
        """Load the files of `save` strictly, as float32.

        Raises:
            WeightsError: The files are missing or damaged.
        """
        model = load_network(cls, folder, "shape network", recipe="recipes/tiny/shape.toml")
        return model.eval().requires_grad_(False)


def principal_shapes(vertices: np.ndarray, num_components: int) -> tuple[np.ndarray, np.ndarray]:
    """PCA of heads: the mean, and orthogonal components scaled by their standard deviations.

    Shapes:
        vertices: (people, vertices, 3)
        returns: (vertices, 3) and (num_components, vertices, 3), float32
    """
    flat = vertices.reshape(len(vertices), -1).astype(np.float64)
    mean = flat.mean(axis=0)
    _, singular, components = np.linalg.svd(flat - mean, full_matrices=False)
    # The sign of a component is arbitrary; its largest entry is made positive, so that all machines agree.
    components = components[:num_components]
    components = (
        components * np.sign(components[np.arange(len(components)), np.abs(components).argmax(axis=1)])[:, None]
    )
    scaled = components * (singular[:num_components] / np.sqrt(len(flat)))[:, None]
    shape = vertices.shape[1:]
    return mean.reshape(shape).astype(np.float32), scaled.reshape(-1, *shape).astype(np.float32)
