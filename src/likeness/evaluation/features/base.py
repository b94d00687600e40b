"""What a feature is: arrays measured on the pixels of one video. Which there are stands in `features`."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Literal

import numpy as np

from likeness.evaluation.features.engines import Engines, choose_engines
from likeness.records import Face, Metric

Arrays = Mapping[str, np.ndarray]
Features = Mapping[str, Arrays]
"""By feature, then by array."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Footage:
    """The decoded frames of one video.

    Shapes:
        frames: (frames, height, width, 3) uint8
    """

    frames: np.ndarray
    fps: float
    """Average rate; of a video with a variable rate, frames over duration."""
    engines: Engines = field(default_factory=choose_engines)
    """Who looks for faces in them."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Feature:
    """One thing that is measured on pixels."""

    name: str
    version: int
    """Rises whenever the arrays change; cached arrays of other versions are not read."""
    compute: Callable[[Footage, Features], dict[str, np.ndarray]]
    """From the frames and the features in `builds_on`."""
    builds_on: tuple[str, ...] = ()
    weights: tuple[str, ...] = ()
    """Names in `likeness.weights`."""
    of_reference: Callable[[np.ndarray, Face], np.ndarray] | None = None
    """What it makes of a reference: from the picture, (height, width, 3) uint8, and its face."""

    engine: Literal["identity", "landmarks"] = "identity"
    """The engine that its arrays depend on."""

    def kind(self, engines: Engines) -> str:
        """Name, version and face engine, under which arrays are kept."""
        engine = engines.identity if self.engine == "identity" else engines.landmarks
        return f"{self.name}-{self.version}-{engine.replace('/', '_')}"


def comparable(embeddings: np.ndarray, metric: Metric) -> np.ndarray:
    """Embeddings between which Euclidean distance means what the engine's threshold means: unit vectors for `cosine`.

    Shapes:
        embeddings: (..., width)
    """
    if metric == "distance":
        return embeddings
    return embeddings / np.maximum(np.linalg.norm(embeddings, axis=-1, keepdims=True), 1e-12)
