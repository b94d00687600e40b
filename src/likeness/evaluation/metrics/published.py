"""Metrics on published networks: RS, IFS, FaceSim, face FID, Inception Score, text alignment, RAFT."""

from collections.abc import Sequence
from functools import partial

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


def reference_similarity(inputs: MetricInputs) -> float:
    """FantasyID's RS: cosine of each frame's face to each reference, mean over both."""
    embeddings = inputs.features["arcface"]["embedding"].astype(np.float64)
    references = inputs.references.arrays["arcface"]
    return mean_found(np.mean([cosines_to(embeddings, reference) for reference in references], axis=0))


def facesim_arc(inputs: MetricInputs) -> float:
    """OpenS2V's FaceSim-Arc against the first reference; its benchmark has only one."""
    embeddings = inputs.features["arcface"]["embedding"].astype(np.float64)
    return face_similarity(cosines_to(embeddings, inputs.references.arrays["arcface"][0]), skips_zero=False)


def face_fid(all_inputs: Sequence[MetricInputs]) -> float:
    """Frechet distance of all chosen faces of the videos to all references of the people in them."""
    faces = [inputs.features["face_inception"]["features"][inputs.rows[inputs.has_face]] for inputs in all_inputs]
    sets = {id(inputs.references): inputs.references.arrays["face_inception"] for inputs in all_inputs}
    return frechet_distance(np.concatenate(faces), np.concatenate(list(sets.values())))


def face_distance_inception(inputs: MetricInputs) -> float:
    """Squared distance of the faces' features to those of the first reference."""
    features = pick_rows(inputs.features["face_inception"]["features"], inputs.rows)
    return mean_squared_distance(features, inputs.references.arrays["face_inception"][0])


def _all_frames(all_inputs: Sequence[MetricInputs]) -> float:
    return inception_score(np.concatenate([inputs.features["inception"]["probabilities"] for inputs in all_inputs]))


def _text(inputs: MetricInputs) -> float:
    assert inputs.text is not None, "a metric that needs a prompt got inputs without one"
    return float(inputs.features["viclip"]["embedding"] @ inputs.text)


_arcface_metric = partial(Metric, unit="cosine", direction="higher", required_features=("arcface",))
_face_fid_metric = partial(
    Metric,
    unit="squared feature distance",
    direction="lower",
    required_features=("faces", "face_inception"),
    needs_references=True,
)

PUBLISHED_METRICS = (
    _arcface_metric(
        name="reference_similarity",
        title="RS",
        averaged=FACES,
        source=FANTASY_ID,
        compute_for_video=reference_similarity,
        needs_references=True,
    ),
    _arcface_metric(
        name="interframe_similarity",
        title="IFS",
        averaged=FACE_PAIRS,
        source=FANTASY_ID,
        compute_for_video=lambda inputs: mean_found(consecutive_cosines(inputs.features["arcface"]["embedding"])),
    ),
    _arcface_metric(
        name="facesim_arc",
        title="FaceSim-Arc",
        unit="cosine, at least 0",
        averaged=f"up to 32 {FACES}",
        source=OPENS2V,
        compute_for_video=facesim_arc,
        needs_references=True,
    ),
    _face_fid_metric(
        name="face_fid",
        title="Face FID, set against set",
        averaged=SET,
        source=FANTASY_ID,
        compute_for_system=face_fid,
    ),
    _face_fid_metric(
        name="face_distance_inception",
        title="Face FID, one reference",
        averaged=f"up to 16 {FACES}",
        source=CONSISID,
        compute_for_video=face_distance_inception,
    ),
    Metric(
        name="dynamic_degree",
        title="Dynamic degree",
        unit="share",
        direction="higher",
        averaged=SAMPLED,
        source=VBENCH,
        required_features=("raft",),
        compute_for_video=lambda inputs: dynamic(inputs, "raft"),
    ),
    Metric(
        name="text_video_consistency",
        title="Text alignment",
        unit="cosine",
        direction="higher",
        averaged="one vector of 8 frames",
        source=VBENCH,
        required_features=("viclip",),
        compute_for_video=_text,
        needs_prompt=True,
    ),
    Metric(
        name="inception_score",
        title="Inception Score",
        unit="1",
        direction="higher",
        averaged=SET,
        source=EVALCRAFTER,
        required_features=("inception",),
        compute_for_system=_all_frames,
    ),
)
