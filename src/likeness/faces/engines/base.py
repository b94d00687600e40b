"""The protocol of a face engine. dlib's is the default; any object with these members works."""

from typing import NamedTuple, Protocol, runtime_checkable

import numpy as np

from likeness.faces.geometry.layouts import LandmarkLayout
from likeness.records import Detection, EmbeddingMetric


class DetectionPass(NamedTuple):
    """One run of the detector over a resized picture."""

    side_px: int
    """Longer side of the resized picture."""
    max_scale: float
    """Upper bound of the scale factor."""
    min_scale: float = 0.0
    """The pass is skipped if the scale factor is smaller: it would find nothing new."""


@runtime_checkable
class FaceEngine(Protocol):
    """Detects faces and computes their embeddings."""

    @property
    def name(self) -> str:
        """Embeddings are comparable only between engines of the same name."""
        ...

    @property
    def embedding_width(self) -> int: ...

    @property
    def threshold(self) -> float:
        """Two faces with a smaller distance (by `metric`) count as one person."""
        ...

    @property
    def metric(self) -> EmbeddingMetric:
        """`cosine` normalizes embeddings before the Euclidean distance, `distance` does not."""
        ...

    @property
    def min_score(self) -> float:
        """Smallest score of a detection that counts as a face."""
        ...

    @property
    def layout(self) -> LandmarkLayout:
        """The five landmarks that this engine detects and aligns by."""
        ...

    @property
    def detection_passes(self) -> tuple[DetectionPass, ...]:
        """Tried in this order until a face is found."""
        ...

    def detect(self, picture: np.ndarray) -> list[Detection]:
        """All detections in a uint8 RGB picture, including those below `min_score`."""
        ...

    def embed(self, picture: np.ndarray, landmarks: np.ndarray) -> np.ndarray:
        """(embedding_width,) float32 of the face at (5, 2) landmarks of `layout`, without detection.

        Raises:
            FaceError: the landmarks clearly have another layout.
        """
        ...


@runtime_checkable
class ThoroughEngine(Protocol):
    """An engine with a second, slower search for references in which the first one found nothing."""

    def detect_thoroughly(self, picture: np.ndarray) -> list[Detection]:
        """Faces that `detect` misses, each with a score of at least `min_score`."""
        ...


def rescale(detection: Detection, scale: float) -> Detection:
    """Map a detection back from a picture resized by `scale`; landmarks are pixel centers, hence the half pixel."""
    left, top, right, bottom = (edge / scale for edge in detection.box)
    landmarks = ((detection.landmarks + 0.5) / scale - 0.5).astype(np.float32)
    return Detection(
        box=(left, top, right, bottom), landmarks=landmarks, score=detection.score, layout=detection.layout
    )


def distances(embeddings: np.ndarray, reference: np.ndarray, metric: EmbeddingMetric) -> np.ndarray:
    """Distance of each embedding to `reference`; NaN stays NaN.

    Shapes:
        embeddings: (faces, width)
        reference: (width,)
        returns: (faces,)
    """
    if metric == "cosine":
        embeddings = embeddings / np.maximum(np.linalg.norm(embeddings, axis=-1, keepdims=True), 1e-12)
        reference = reference / max(float(np.linalg.norm(reference)), 1e-12)
    return np.linalg.norm(embeddings - reference, axis=-1)
