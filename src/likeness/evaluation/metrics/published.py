"""Metrics that look through large published networks: RS, IFS, FaceSim, face FID, Inception Score, text, RAFT."""

from collections.abc import Sequence

import numpy as np

from likeness.evaluation.metrics.base import (
    CONSISID,
    EVALCRAFTER,
    FACE_PAIRS,
    FACES,
    FANTASY_ID,
    OPENS2V,
    SET,
    VBENCH,
    Metric,
)
from likeness.evaluation.metrics.distributions import frechet_distance, inception_score, mean_squared_distance
from likeness.evaluation.metrics.identity import consecutive_cosines, cosines_to, face_similarity, mean_found
from likeness.evaluation.metrics.inputs import MetricInputs, pick_rows
from likeness.evaluation.metrics.motion import SAMPLED, dynamic


def reference_similarity(view: MetricInputs) -> float:
    """FantasyID's RS: cosine of each frame's face to each reference, mean over both."""
    embeddings = view.features["arcface"]["embedding"].astype(np.float64)
    references = view.references.arrays["arcface"]
    return mean_found(np.mean([cosines_to(embeddings, reference) for reference in references], axis=0))


def facesim_arc(view: MetricInputs) -> float:
    """OpenS2V's FaceSim-Arc against the first reference, which is all that its benchmark has."""
    embeddings = view.features["arcface"]["embedding"].astype(np.float64)
    return face_similarity(cosines_to(embeddings, view.references.arrays["arcface"][0]), skips_zero=False)


def face_fid(views: Sequence[MetricInputs]) -> float:
    """Frechet distance of all chosen faces of the videos to all references of the people in them."""
    faces = [view.features["face_inception"]["features"][view.rows[view.has_face]] for view in views]
    sets = {id(view.references): view.references.arrays["face_inception"] for view in views}
    return frechet_distance(np.concatenate(faces), np.concatenate(list(sets.values())))


def face_distance_inception(view: MetricInputs) -> float:
    """Squared distance of the faces' features to those of the first reference."""
    features = pick_rows(view.features["face_inception"]["features"], view.rows)
    return mean_squared_distance(features, view.references.arrays["face_inception"][0])


def _all_frames(views: Sequence[MetricInputs]) -> float:
    return inception_score(np.concatenate([view.features["inception"]["probabilities"] for view in views]))


def _text(view: MetricInputs) -> float:
    assert view.text is not None, "a metric that needs a prompt met a view without"
    return float(view.features["viclip"]["embedding"] @ view.text)


PUBLISHED_METRICS = (
    Metric(
        name="reference_similarity",
        title="RS",
        unit="cosine",
        direction="higher",
        averaged=FACES,
        source=FANTASY_ID,
        needs=("arcface",),
        of_video=reference_similarity,
        needs_pictures=True,
    ),
    Metric(
        name="interframe_similarity",
        title="IFS",
        unit="cosine",
        direction="higher",
        averaged=FACE_PAIRS,
        source=FANTASY_ID,
        needs=("arcface",),
        of_video=lambda view: mean_found(consecutive_cosines(view.features["arcface"]["embedding"])),
    ),
    Metric(
        name="facesim_arc",
        title="FaceSim-Arc",
        unit="cosine, at least 0",
        direction="higher",
        averaged=f"up to 32 {FACES}",
        source=OPENS2V,
        needs=("arcface",),
        of_video=facesim_arc,
        needs_pictures=True,
    ),
    Metric(
        name="face_fid",
        title="Face FID, set against set",
        unit="squared feature distance",
        direction="lower",
        averaged=SET,
        source=FANTASY_ID,
        needs=("faces", "face_inception"),
        of_system=face_fid,
        needs_pictures=True,
    ),
    Metric(
        name="face_distance_inception",
        title="Face FID, one reference",
        unit="squared feature distance",
        direction="lower",
        averaged=f"up to 16 {FACES}",
        source=CONSISID,
        needs=("faces", "face_inception"),
        of_video=face_distance_inception,
        needs_pictures=True,
    ),
    Metric(
        name="dynamic_degree",
        title="Dynamic degree",
        unit="share",
        direction="higher",
        averaged=SAMPLED,
        source=VBENCH,
        needs=("raft",),
        of_video=lambda view: dynamic(view, "raft"),
    ),
    Metric(
        name="text_video_consistency",
        title="Text alignment",
        unit="cosine",
        direction="higher",
        averaged="one vector of 8 frames",
        source=VBENCH,
        needs=("viclip",),
        of_video=_text,
        needs_prompt=True,
    ),
    Metric(
        name="inception_score",
        title="Inception Score",
        unit="1",
        direction="higher",
        averaged=SET,
        source=EVALCRAFTER,
        needs=("inception",),
        of_system=_all_frames,
    ),
)
