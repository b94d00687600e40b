"""What a face engine is. dlib's is the default; others join by having these members."""

from typing import Protocol, runtime_checkable

import numpy as np

from likeness.records import Detection


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
        """Euclidean distance of embeddings under which two faces count as one person."""
        ...

    @property
    def min_score(self) -> float:
        """Detections below this score are guesses."""
        ...

    def detect(self, picture: np.ndarray) -> list[Detection]:
        """All detections in a uint8 RGB picture, guesses included."""
        ...

    def embed(self, picture: np.ndarray, landmarks: np.ndarray) -> np.ndarray:
        """(embedding_width,) float32 of the face at (5, 2) landmarks; no detection takes place."""
        ...
