"""What a face engine is. dlib's is the default; others join by having these members."""

from typing import NamedTuple, Protocol, runtime_checkable

import numpy as np

from likeness.faces.geometry.layouts import LandmarkLayout
from likeness.records import Detection, Metric


class DetectionPass(NamedTuple):
    """One look at a picture, enlarged or shrunk."""

    side_px: int
    """Size to which the longer side is brought."""
    max_scale: float
    """But the picture is never enlarged more than this."""
    min_scale: float = 0.0
    """At less than this the look would find nothing new, and is left out."""


@runtime_checkable
class FaceEngine(Protocol):
    """Finds faces and says who they are."""

    @property
    def name(self) -> str:
        """Embeddings compare only between faces read by an engine of the same name."""
        ...

    @property
    def embedding_width(self) -> int: ...

    @property
    def threshold(self) -> float:
        """Euclidean distance of embeddings, as `metric` takes it, under which two faces count as one person."""
        ...

    @property
    def metric(self) -> Metric:
        """Whether embeddings are brought to unit length before their distance is taken."""
        ...

    @property
    def min_score(self) -> float:
        """Detections below this score are guesses."""
        ...

    @property
    def layout(self) -> LandmarkLayout:
        """Which five landmarks this engine finds, and is aligned by."""
        ...

    @property
    def detection_passes(self) -> tuple[DetectionPass, ...]:
        """Sizes at which a picture is searched, one after the other, until a face is found."""
        ...

    def detect(self, picture: np.ndarray) -> list[Detection]:
        """All detections in a uint8 RGB picture, guesses included."""
        ...

    def embed(self, picture: np.ndarray, landmarks: np.ndarray) -> np.ndarray:
        """(embedding_width,) float32 of the face at (5, 2) landmarks of `layout`; no detection takes place.

        Raises:
            FaceError: the landmarks are plainly of another layout.
        """
        ...


def rescale(detection: Detection, scale: float) -> Detection:
    """Bring a detection from a picture resized by `scale` back. Box edges scale as they are, pixel centers do not."""
    left, top, right, bottom = (edge / scale for edge in detection.box)
    landmarks = ((detection.landmarks + 0.5) / scale - 0.5).astype(np.float32)
    return Detection(
        box=(left, top, right, bottom), landmarks=landmarks, score=detection.score, layout=detection.layout
    )


def distances(embeddings: np.ndarray, reference: np.ndarray, metric: Metric) -> np.ndarray:
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
