"""The type of a feature: arrays measured on the pixels of one video. `registry` lists all features."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Literal

import numpy as np

from likeness.evaluation.features.engines import Engines, choose_engines
from likeness.records import EmbeddingMetric, Face

Arrays = Mapping[str, np.ndarray]
Features = Mapping[str, Arrays]
"""By feature, then by array."""


@dataclass(frozen=True, kw_only=True, slots=True)
class DecodedVideo:
    """The decoded frames of one video.

    Shapes:
        frames: (frames, height, width, 3) uint8
    """

    frames: np.ndarray
    fps: float
    """Average frame rate: number of frames over duration if the rate varies."""
    engines: Engines = field(default_factory=choose_engines)
    """Face engines that detect faces in the frames."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Feature:
    """One measurement on pixels."""

    name: str
    version: int
    """Increased whenever the arrays change; cached arrays of other versions are ignored."""
    compute: Callable[[DecodedVideo, Features], dict[str, np.ndarray]]
    """From the frames and the features in `depends_on`."""
    depends_on: tuple[str, ...] = ()
    weights: tuple[str, ...] = ()
    """Names in `likeness.weights`."""
    compute_for_reference: Callable[[np.ndarray, Face], np.ndarray] | None = None
    """The same feature of a reference, from the picture, (height, width, 3) uint8, and its face."""
    engine: Literal["identity", "landmarks"] = "identity"
    """The face engine that its arrays depend on."""

    def cache_key(self, engines: Engines) -> str:
        """Name, version and face engine, as part of the cache file's name."""
        engine = engines.identity if self.engine == "identity" else engines.landmarks
        return f"{self.name}-{self.version}-{engine.replace('/', '_')}"


def normalize_embeddings(embeddings: np.ndarray, metric: EmbeddingMetric) -> np.ndarray:
    """Scale embeddings so that Euclidean distances compare with the engine's threshold: unit vectors for `cosine`.

    Shapes:
        embeddings: (..., width)
    """
    if metric == "distance":
        return embeddings
    return embeddings / np.maximum(np.linalg.norm(embeddings, axis=-1, keepdims=True), 1e-12)
