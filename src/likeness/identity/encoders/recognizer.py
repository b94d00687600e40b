"""A small differentiable approximation of dlib's recognizer for the identity loss. No reported figure uses it.

Its input is dlib's aligned face (the five landmarks mapped to dlib's mean face, with a padding of a quarter), its
output an approximation of dlib's 128-dimensional embedding.
"""

from pathlib import Path
from typing import Protocol, Self

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from likeness.identity.encoders.alignment import align_faces
from likeness.identity.encoders.convolution import downsampling_layers
from likeness.identity.network_files import load_network, save_network

_PADDING = 0.25
_MEAN_FACE = ((0.1206, 0.2137), (0.3341, 0.2291), (0.6461, 0.2290), (0.8596, 0.2135), (0.4901, 0.6278))
"""dlib's five points in the order of `records.LANDMARK_NAMES`."""
TEMPLATE = (torch.tensor(_MEAN_FACE) + _PADDING) / (1 + 2 * _PADDING)
"""The same as shares of the side of an aligned crop."""


def align(pictures: Tensor, landmarks: Tensor, size_px: int) -> Tensor:
    """Crop aligned faces, differentiable in the pictures.

    Shapes:
        pictures: (batch, channels, height, width)
        landmarks: (batch, 5, 2) px
        returns: (batch, channels, size_px, size_px)
    """
    # The network was trained on crops of this fit.
    return align_faces(pictures, landmarks, TEMPLATE, size_px, residuals="picture")


def contrastive_loss(embeddings: Tensor, target: Tensor, *, temperature: float = 0.1) -> Tensor:
    """InfoNCE (arXiv:1807.03748v2, Eq. 4) with the density ratio exp(cosine / temperature).

    Row i of `embeddings` belongs to row i of `target`; all other rows are negatives, even of the same person.

    Shapes:
        embeddings, target: (batch, embedding_width)
        returns: (), the mean; log(batch) if no row can be distinguished
    """
    cosines = F.normalize(embeddings, dim=1) @ F.normalize(target, dim=1).T
    return F.cross_entropy(cosines / temperature, torch.arange(len(target), device=target.device))


class IdentityRecognizer(Protocol):
    """A frozen face recognizer with gradients to the picture: the distilled one, or ArcFace.

    Persons are compared by the cosine of standardized embeddings.
    """

    @property
    def embedding_width(self) -> int: ...

    @property
    def template(self) -> Tensor:
        """(5, 2): where an aligned crop has the landmarks, as shares of its side."""
        ...

    def embed(self, pictures: Tensor, landmarks: Tensor, *, is_mirrored: bool = False) -> Tensor:
        """Embeddings in the space of the references' embeddings.

        Shapes:
            pictures: (batch, 3, height, width) in [-1, 1]
            landmarks: (batch, 5, 2) px
            returns: (batch, embedding_width)
        """
        ...

    def standardize(self, embedding: Tensor) -> Tensor:
        """Remove what all people share, where the recognizer needs that; ArcFace's embeddings are returned as they are.

        Raw embeddings of dlib share a mean that hides the differences between people.
        """
        ...


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

    @property
    def embedding_width(self) -> int:
        return len(self.mean)

    @property
    def template(self) -> Tensor:
        """Where an aligned crop has dlib's five landmarks."""
        return TEMPLATE

    def embed(self, pictures: Tensor, landmarks: Tensor, *, is_mirrored: bool = False) -> Tensor:
        """Embeddings of pictures (batch, 3, height, width) in [-1, 1] with known landmarks."""
        crops = align(pictures, landmarks, self.size_px)
        return self(crops.flip(-1) if is_mirrored else crops) * self.spread + self.mean

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
