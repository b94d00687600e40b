"""Is it the same person: figures on the embeddings of one video's faces and of its references.

A frame without a face has NaN. Whether it is skipped or counts as nothing is part of each figure's definition, because
skipping flatters: a system that shows the face once, well, would beat one that shows it always.
"""

from collections.abc import Callable

import numpy as np

from likeness.evaluation.metrics.base import FACE_PAIRS, FACES, FRAMES, HERE, MAGIC_MIRROR, Metric
from likeness.evaluation.metrics.inputs import MetricInputs

FACESIM_FRAMES = 32
"""Frames that OpenS2V looks at, evenly spaced, its first and last among them."""


def cosines_to(embeddings: np.ndarray, reference: np.ndarray) -> np.ndarray:
    """Cosine of each row to one vector, NaN where a row is NaN or nothing.

    Shapes:
        embeddings: (frames, width)
        reference: (width,)
        returns: (frames,)
    """
    norms = np.linalg.norm(embeddings, axis=1) * np.linalg.norm(reference)
    with np.errstate(divide="ignore", invalid="ignore"):
        return np.where(norms > 0, embeddings @ reference / norms, np.nan)


def distances_to(embeddings: np.ndarray, reference: np.ndarray) -> np.ndarray:
    """Euclidean distance of each row to one vector; shapes as in `cosines_to`."""
    return np.linalg.norm(embeddings - reference, axis=1)


def pair_cosines(embeddings: np.ndarray, references: np.ndarray) -> np.ndarray:
    """Mean over the references of each row's cosine to it.

    Shapes:
        references: (references, width)
        returns: (frames,)
    """
    return np.mean([cosines_to(embeddings, reference) for reference in references], axis=0)


def mean_found(values: np.ndarray) -> float:
    """Mean over the frames with a face; NaN where there is none."""
    found = values[np.isfinite(values)]
    return float(found.mean()) if len(found) else float("nan")


def mean_all(values: np.ndarray) -> float:
    """Mean over all frames, a frame without a face counting 0."""
    return float(np.where(np.isfinite(values), values, 0.0).mean()) if len(values) else float("nan")


def decay(cosines: np.ndarray) -> float:
    """Mean of the first half less that of the second; the middle frame of an odd number is in neither.

    Halves are of all frames, so that frames without a face do not move the middle.
    """
    half = len(cosines) // 2
    return mean_found(cosines[:half]) - mean_found(cosines[len(cosines) - half :]) if half else float("nan")


def fitted_drop(cosines: np.ndarray) -> float:
    """Fall of the least-squares line from the first frame of the video to its last."""
    places = np.flatnonzero(np.isfinite(cosines))
    if len(places) < 2:
        return float("nan")
    slope = np.polyfit(places.astype(np.float64), cosines[places], 1)[0]
    return float(-slope * (len(cosines) - 1))


def match_rate(distances: np.ndarray, threshold: float) -> float:
    """Share of all frames whose face is nearer than the threshold."""
    return float((distances < threshold).mean()) if len(distances) else float("nan")


def rank1_rates(embeddings: np.ndarray, gallery: np.ndarray, person: int) -> tuple[float, float]:
    """Share of frames whose face is nearest to its own mean reference among all: of all frames, of those with a face.

    Shapes:
        embeddings: (frames, width)
        gallery: (people, width)
    """
    has_face = np.isfinite(embeddings).all(axis=1)
    found = embeddings[has_face]
    if not len(found):
        return 0.0, float("nan")
    distances = np.linalg.norm(found[:, None] - gallery[None], axis=2)  # (frames, people)
    hits = distances.argmin(axis=1) == person
    return float(hits.sum() / len(embeddings)), float(hits.mean())


def consecutive_cosines(embeddings: np.ndarray) -> np.ndarray:
    """Cosine of each frame to the next, NaN where either has no face.

    Shapes:
        returns: (frames - 1,)
    """
    first, second = embeddings[:-1], embeddings[1:]
    norms = np.linalg.norm(first, axis=1) * np.linalg.norm(second, axis=1)
    with np.errstate(divide="ignore", invalid="ignore"):
        return np.where(norms > 0, (first * second).sum(axis=1) / norms, np.nan)


def copy_gap(embeddings: np.ndarray, references: np.ndarray) -> float:
    """How much nearer the faces are to one reference than to the person's others.

    Mean over the frames with a face of the cosine to the nearest reference, less the mean cosine to the others. Who is
    like the person in general is about equally near to all of them; a copy of one picture is not.
    """
    if len(references) < 2:
        return float("nan")
    cosines = np.stack([cosines_to(embeddings, reference) for reference in references], axis=1)
    cosines = cosines[np.isfinite(cosines).all(axis=1)]  # (frames, references)
    if not len(cosines):
        return float("nan")
    nearest = cosines.max(axis=1)
    others = (cosines.sum(axis=1) - nearest) / (len(references) - 1)
    return float((nearest - others).mean())


def face_similarity(cosines: np.ndarray, *, skips_zero: bool) -> float:
    """OpenS2V's FaceSim: mean over up to 32 evenly spaced frames, negative cosines counting 0, faceless ones skipped.

    A video without a face scores 0, as there. `skips_zero` drops frames that score exactly 0 (FaceSim-Cur does).
    """
    places = np.linspace(0, len(cosines) - 1, FACESIM_FRAMES, dtype=int)
    scores = cosines[places]
    scores = np.maximum(scores[np.isfinite(scores)], 0.0)
    if skips_zero:
        scores = scores[scores > 0]
    return float(scores.mean()) if len(scores) else 0.0


def _cosines(view: MetricInputs) -> np.ndarray:
    return cosines_to(view.embeddings, view.references.mean)


def _distances(view: MetricInputs) -> np.ndarray:
    return distances_to(view.embeddings, view.references.mean)


def _pairs(view: MetricInputs) -> np.ndarray:
    return pair_cosines(view.embeddings, view.references.embeddings)


def _rank1(view: MetricInputs, which: int) -> float:
    if view.person is None:
        return float("nan")
    return rank1_rates(view.embeddings, view.gallery, view.person)[which]


def _metric(name: str, title: str, unit: str, averaged: str, of_video: Callable[[MetricInputs], float]) -> Metric:
    is_published = name.startswith("average_id_similarity") or name == "similarity_decay"
    return Metric(
        name=name,
        title=title,
        unit=unit,
        direction="lower" if name in _LOWER else "neither" if name in _NEITHER else "higher",
        averaged=averaged,
        source=MAGIC_MIRROR if is_published else HERE,
        needs=("faces",),
        of_video=of_video,
    )


_LOWER = ("id_distance", "similarity_decay", "similarity_drop", "copy_gap")
_NEITHER = ("several_faces_rate",)

IDENTITY_METRICS = (
    _metric(
        "average_id_similarity",
        "Average ID Similarity",
        "cosine",
        FACES,
        lambda view: mean_found(_cosines(view)),
    ),
    _metric(
        "average_id_similarity_all",
        "Average ID Similarity, faceless frames 0",
        "cosine",
        FRAMES,
        lambda view: mean_all(_cosines(view)),
    ),
    _metric(
        "average_id_similarity_pairs",
        "Average ID Similarity, mean over references",
        "cosine",
        FACES,
        lambda view: mean_found(_pairs(view)),
    ),
    _metric("id_distance", "ID distance", "dlib distance", FACES, lambda view: mean_found(_distances(view))),
    _metric("match_rate", "Match rate", "share", FRAMES, lambda view: match_rate(_distances(view), view.threshold)),
    _metric("face_rate", "Face rate", "share", FRAMES, lambda view: float(view.has_face.mean())),
    _metric(
        "several_faces_rate",
        "Frames with several faces",
        "share",
        FRAMES,
        lambda view: float((view.num_faces > 1).mean()),
    ),
    _metric("rank1_rate", "Rank-1", "share", FRAMES, lambda view: _rank1(view, 0)),
    _metric("rank1_rate_found", "Rank-1 of the faces", "share", FACES, lambda view: _rank1(view, 1)),
    _metric("similarity_decay", "Similarity decay", "cosine", FACES, lambda view: decay(_cosines(view))),
    _metric(
        "similarity_drop",
        "Similarity drop, fitted",
        "cosine",
        FACES,
        lambda view: fitted_drop(_cosines(view)),
    ),
    _metric(
        "copy_gap",
        "Copy gap",
        "cosine",
        FACES,
        lambda view: copy_gap(view.embeddings, view.references.embeddings),
    ),
    _metric(
        "interframe_similarity_dlib",
        "Inter-frame similarity, dlib",
        "cosine",
        FACE_PAIRS,
        lambda view: mean_found(consecutive_cosines(view.embeddings)),
    ),
)
