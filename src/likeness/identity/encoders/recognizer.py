"""A small differentiable approximation of dlib's recognizer for the identity loss. No reported figure uses it.

Its input is dlib's aligned face (the five landmarks mapped to dlib's mean face, with a padding of a quarter), its
output an approximation of dlib's 128-dimensional embedding.
"""

from pathlib import Path
from typing import Self

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from likeness.identity.encoders.convolution import downsampling_layers
from likeness.identity.network_files import load_network, save_network

_PADDING = 0.25
_MEAN_FACE = ((0.1206, 0.2137), (0.3341, 0.2291), (0.6461, 0.2290), (0.8596, 0.2135), (0.4901, 0.6278))
"""dlib's five points in the order of `records.LANDMARK_NAMES`."""


def align(pictures: Tensor, landmarks: Tensor, size_px: int) -> Tensor:
    """Crop aligned faces, differentiable in the pictures.

    Shapes:
        pictures: (batch, channels, height, width)
        landmarks: (batch, 5, 2) px
        returns: (batch, channels, size_px, size_px)
    """
    template = (torch.tensor(_MEAN_FACE) + _PADDING) / (1 + 2 * _PADDING)
    unit = torch.view_as_complex(2 * template - 1)  # grid_sample's coordinates run from -1 to 1.
    size = torch.tensor([pictures.shape[-1], pictures.shape[-2]])
    points = torch.view_as_complex((2 * (landmarks.float() + 0.5) / size - 1).contiguous())
    centered = unit - unit.mean()
    # Least-squares similarity in complex numbers: points = turn * unit + shift.
    turn = (centered.conj() * (points - points.mean(dim=1, keepdim=True))).sum(dim=1) / centered.abs().square().sum()
    shift = points.mean(dim=1) - turn * unit.mean()
    rows = [
        torch.stack([turn.real, -turn.imag, shift.real], -1),
        torch.stack([turn.imag, turn.real, shift.imag], -1),
    ]
    grid = F.affine_grid(
        torch.stack(rows, dim=1), [len(pictures), pictures.shape[1], size_px, size_px], align_corners=False
    )
    return F.grid_sample(pictures, grid.to(pictures.dtype), padding_mode="border", align_corners=False)


def contrastive_loss(found: Tensor, target: Tensor, *, temperature: float = 0.1) -> Tensor:
    """InfoNCE (arXiv:1807.03748v2, Eq. 4) with the density ratio exp(cosine / temperature).

    Row i of `found` belongs to row i of `target`; all other rows are negatives, even of the same person.

    Shapes:
        found, target: (batch, embedding_width)
        returns: (), the mean; log(batch) if no row can be distinguished
    """
    cosines = F.normalize(found, dim=1) @ F.normalize(target, dim=1).T
    return F.cross_entropy(cosines / temperature, torch.arange(len(target)))


class Recognizer(nn.Module):
    """A convolutional network from an aligned face to a standardized embedding.

    Shapes:
        faces: (batch, 3, size_px, size_px) in [-1, 1]
        returns: (batch, embedding_width), each component minus its mean over people, divided by its standard deviation
    """

    mean: Tensor
    spread: Tensor

    def __init__(
        self, embedding_width: int = 128, widths: tuple[int, ...] = (24, 48, 96, 160), size_px: int = 64
    ) -> None:
        super().__init__()
        self.config = {"embedding_width": embedding_width, "widths": list(widths), "size_px": size_px}
        self.size_px = size_px
        self.register_buffer("mean", torch.zeros(embedding_width))
        self.register_buffer("spread", torch.ones(embedding_width))
        layers = downsampling_layers((*widths, widths[-1]))
        side = size_px // 2 ** (len(widths) + 1)
        layers += [
            nn.Flatten(),
            nn.Linear(widths[-1] * side * side, 512),
            nn.GELU(),
            nn.Linear(512, embedding_width),
        ]
        self.layers = nn.Sequential(*layers)

    def forward(self, faces: Tensor) -> Tensor:
        return self.layers(faces)

    def embed(self, pictures: Tensor, landmarks: Tensor) -> Tensor:
        """Embeddings of pictures (batch, 3, height, width) in [-1, 1] with known landmarks."""
        return self(align(pictures, landmarks, self.size_px)) * self.spread + self.mean

    def fit_standardization(self, embeddings: Tensor) -> None:
        """Set mean and standard deviation of each component from (count, embedding_width) examples."""
        self.mean.copy_(embeddings.mean(dim=0))
        self.spread.copy_(embeddings.std(dim=0).clamp(min=1e-6))

    def standardize(self, embedding: Tensor) -> Tensor:
        return (embedding - self.mean) / self.spread

    def save(self, folder: Path) -> None:
        """Write config.json and float16 weights."""
        save_network(self, self.config, folder)

    @classmethod
    def load(cls, folder: Path) -> Self:
        """Load the files of `save` strictly, as float32."""
        return load_network(cls, folder, "recognizer", recipe="recipes/tiny/recognizer.toml")
