"""Views of videos that never were: embeddings, landmarks and flow put together by hand."""

import numpy as np

from likeness.evaluation.metrics.inputs import MetricInputs, ReferenceSet

SQUARE = np.array([[-1.0, -1.0], [1.0, -1.0], [1.0, 1.0], [-1.0, 1.0], [0.0, 0.0]])
"""Five landmarks whose size, the root mean square distance from their mean, is sqrt(8 / 5)."""
SQUARE_SIZE = np.sqrt(8 / 5)


def make_references(embeddings, landmarks=None, **arrays) -> ReferenceSet:
    embeddings = np.asarray(embeddings, dtype=np.float64)
    landmarks = np.tile(SQUARE, (len(embeddings), 1, 1)) if landmarks is None else landmarks
    return ReferenceSet(embeddings=embeddings, landmarks=landmarks, arrays=arrays)


def make_inputs(
    embeddings=None, references=None, landmarks=None, features=None, person=None, gallery=None, **more
) -> MetricInputs:
    """A view of one face a frame; a row of NaN has none."""
    embeddings = np.ones((3, 2)) if embeddings is None else np.asarray(embeddings, dtype=np.float64)
    has_face = np.isfinite(embeddings).all(axis=1)
    landmarks = np.tile(SQUARE, (len(embeddings), 1, 1)) if landmarks is None else landmarks
    rows = np.where(has_face, np.cumsum(has_face) - 1, -1)
    settings = {"threshold": 0.6, "fps": 8.0, "height_px": 256, "width_px": 256} | more
    return MetricInputs(
        features=features or {},
        references=references,
        embeddings=embeddings,
        landmarks=np.where(has_face[:, None, None], landmarks, np.nan),
        rows=rows,
        num_faces=has_face.astype(int),
        gallery=np.zeros((0, 0)) if gallery is None else np.asarray(gallery, dtype=np.float64),
        person=person,
        **settings,
    )
