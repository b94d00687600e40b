"""Identity metrics: embeddings of one video's faces compared with those of its references.

A frame without a face is NaN. Each metric defines whether such frames are skipped or count as 0: skipping favors a
system that shows the face rarely but well.
"""

from collections.abc import Callable

import numpy as np

from likeness.evaluation.metrics.base import FACE_PAIRS, FACES, FRAMES, HERE, MAGIC_MIRROR, Metric
from likeness.evaluation.metrics.inputs import MetricInputs

FACESIM_FRAMES = 32
"""Frames that OpenS2V samples, evenly spaced, including first and last."""


def cosines_to(embeddings: np.ndarray, reference: np.ndarray) -> np.ndarray:
    """Cosine of each row to one vector, NaN where a row is NaN or zero.

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
    """Decrease of the least-squares line from the first to the last frame."""
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
    """How much closer the faces are to one reference than to the others of the same person.

    Mean over the frames with a face of the cosine to the nearest reference, minus the mean cosine to the others. A copy
    of one picture is much closer to it; a general likeness is about equally close to all.
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


def _cosines(inputs: MetricInputs) -> np.ndarray:
    return cosines_to(inputs.embeddings, inputs.references.mean)


def _distances(inputs: MetricInputs) -> np.ndarray:
    return distances_to(inputs.embeddings, inputs.references.mean)


def _pairs(inputs: MetricInputs) -> np.ndarray:
    return pair_cosines(inputs.embeddings, inputs.references.embeddings)


def _rank1(inputs: MetricInputs, which: int) -> float:
    if inputs.person is None:
        return float("nan")
    return rank1_rates(inputs.embeddings, inputs.gallery, inputs.person)[which]


def _metric(
    name: str, title: str, unit: str, averaged: str, compute_for_video: Callable[[MetricInputs], float]
) -> Metric:
    is_published = name.startswith("average_id_similarity") or name == "similarity_decay"
    return Metric(
        name=name,
        title=title,
        unit=unit,
        direction="lower" if name in _LOWER else "neither" if name in _NEITHER else "higher",
        averaged=averaged,
        source=MAGIC_MIRROR if is_published else HERE,
        required_features=("faces",),
        compute_for_video=compute_for_video,
    )


_LOWER = ("id_distance", "similarity_decay", "similarity_drop", "copy_gap")
_NEITHER = ("several_faces_rate",)

IDENTITY_METRICS = (
    _metric(
        "average_id_similarity",
        "Average ID Similarity",
        "cosine",
        FACES,
        lambda inputs: mean_found(_cosines(inputs)),
    ),
    _metric(
        "average_id_similarity_all",
        "Average ID Similarity, faceless frames 0",
        "cosine",
        FRAMES,
        lambda inputs: mean_all(_cosines(inputs)),
    ),
    _metric(
        "average_id_similarity_pairs",
        "Average ID Similarity, mean over references",
        "cosine",
        FACES,
        lambda inputs: mean_found(_pairs(inputs)),
    ),
    _metric("id_distance", "ID distance", "dlib distance", FACES, lambda inputs: mean_found(_distances(inputs))),
    _metric(
        "match_rate", "Match rate", "share", FRAMES, lambda inputs: match_rate(_distances(inputs), inputs.threshold)
    ),
    _metric("face_rate", "Face rate", "share", FRAMES, lambda inputs: float(inputs.has_face.mean())),
    _metric(
        "several_faces_rate",
        "Frames with several faces",
        "share",
        FRAMES,
        lambda inputs: float((inputs.num_faces > 1).mean()),
    ),
    _metric("rank1_rate", "Rank-1", "share", FRAMES, lambda inputs: _rank1(inputs, 0)),
    _metric("rank1_rate_found", "Rank-1 of the faces", "share", FACES, lambda inputs: _rank1(inputs, 1)),
    _metric("similarity_decay", "Similarity decay", "cosine", FACES, lambda inputs: decay(_cosines(inputs))),
    _metric(
        "similarity_drop",
        "Similarity drop, fitted",
        "cosine",
        FACES,
        lambda inputs: fitted_drop(_cosines(inputs)),
    ),
    _metric(
        "copy_gap",
        "Copy gap",
        "cosine",
        FACES,
        lambda inputs: copy_gap(inputs.embeddings, inputs.references.embeddings),
    ),
    _metric(
        "interframe_similarity_dlib",
        "Inter-frame similarity, dlib",
        "cosine",
        FACE_PAIRS,
        lambda inputs: mean_found(consecutive_cosines(inputs.embeddings)),
    ),
)
