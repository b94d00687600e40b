"""Score videos: features and references to metric inputs, metrics, and means of each system."""

import logging
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

import numpy as np

from likeness.errors import LikenessError
from likeness.evaluation.features.cache import MeasuredVideo
from likeness.evaluation.features.engines import Engines, choose_engines
from likeness.evaluation.features.landmarks import landmarks_at
from likeness.evaluation.features.networks.features import embed_prompt
from likeness.evaluation.inputs.video_items import VideoItem
from likeness.evaluation.metrics.base import Metric
from likeness.evaluation.metrics.identity import consecutive_cosines, cosines_to, distances_to
from likeness.evaluation.metrics.inputs import (
    MetricInputs,
    ReferenceSet,
    WhichFace,
    choose_faces,
    first_face,
    gallery_of,
    pick_rows,
)
from likeness.evaluation.metrics.landmark_motion import motion_between_frames, motion_from_reference
from likeness.evaluation.metrics.motion import face_flow, relative_face_flow
from likeness.evaluation.results.records import (
    EvaluationResult,
    Summary,
    SystemResult,
    VideoResult,
    finite_or_none,
    finite_or_none_list,
    summarize,
)

logger = logging.getLogger(__name__)


def score(
    items: Sequence[VideoItem],
    measured: Sequence[MeasuredVideo],
    references: Mapping[str, ReferenceSet] | None,
    *,
    metrics: Sequence[Metric],
    left_out: Mapping[str, str],
    which_face: WhichFace,
    engines: Engines,
) -> EvaluationResult:
    """Score every video, then every system. `evaluate` prepares the arguments."""
    names, gallery = gallery_of(references or {})
    all_inputs: list[MetricInputs | None] = []
    videos = []
    for item, known in zip(items, measured, strict=True):
        own = None if references is None or item.identity is None else references[item.identity]
        person = names.index(item.identity) if item.identity is not None else None
        try:
            inputs = None
            if known.features is not None:
                reads_text = item.prompt is not None and "viclip" in known.features
                text = embed_prompt(item.prompt or "") if reads_text else None
                inputs = build_metric_inputs(known, own, gallery, person, which_face, text, engines=engines)
            result = _video_result(item, known, inputs, metrics)
        except LikenessError:
            raise
        except Exception as error:  # One video must not end the evaluation of the others.
            logger.debug("%s", item.path, exc_info=True)
            reason = (
                f"{item.path}: its metrics cannot be computed ({type(error).__name__}: {error}); please report this."
            )
            inputs = None
            result = _video_result(item, replace(known, error=reason, features=None), None, metrics)
        all_inputs.append(inputs)
        videos.append(result)
    return EvaluationResult(
        metrics={metric.name: metric.record for metric in metrics},
        left_out=left_out,
        videos=tuple(videos),
        systems=tuple(
            _system_result(name, videos, all_inputs, metrics) for name in dict.fromkeys(v.system for v in videos)
        ),
        settings={
            "which_face": which_face,
            "references": "first face of the video" if references is None else "pictures",
            "num_references": {name: len(own.embeddings) for name, own in (references or {}).items()},
            "engine": engines.identity,
            "landmark_engine": engines.landmarks,
            "landmarks": ", ".join(engines.landmark_engine.layout.landmark_names),
            "threshold": engines.identity_engine.threshold,
        },
    )


def build_metric_inputs(
    known: MeasuredVideo,
    references: ReferenceSet | None,
    gallery: np.ndarray,
    person: int | None,
    which_face: WhichFace,
    text: np.ndarray | None = None,
    *,
    engines: Engines | None = None,
) -> MetricInputs:
    """The inputs of one video's metrics. Without `references` its first face is used, without `engines` the default."""
    assert known.features is not None
    assert known.info is not None
    faces = known.features["faces"]
    engine = (engines or choose_engines()).identity_engine
    detections = known.features.get("landmarks")
    if references is None:
        size_px = (known.info.width_px, known.info.height_px)
        references = first_face(faces, engine.metric, detections=detections, size_px=size_px)
    rows = choose_faces(faces, known.info.num_frames, which_face, references.mean)
    return MetricInputs(
        features=known.features,
        references=references,
        embeddings=pick_rows(faces["embedding"], rows),
        landmarks=pick_rows(faces["landmarks"], rows)
        if detections is None
        else landmarks_at(pick_rows(faces["box"], rows), detections),
        rows=rows,
        num_faces=np.bincount(faces["frame"], minlength=known.info.num_frames),
        gallery=gallery,
        person=person if len(gallery) > 1 else None,
        threshold=engine.threshold,
        fps=known.info.fps,
        height_px=known.info.height_px,
        width_px=known.info.width_px,
        text=text,
    )


def curves(inputs: MetricInputs) -> dict[str, list[float | None]]:
    """Curves over a video's frames; values of pairs belong to the first frame, and the last one is None."""
    values: dict[str, np.ndarray] = {"num_faces": inputs.num_faces}
    values["fm_inter"] = _to_frames(motion_between_frames(inputs.landmarks), inputs.num_frames)
    values["interframe_cosine"] = _to_frames(consecutive_cosines(inputs.embeddings), inputs.num_frames)
    values["cosine"] = cosines_to(inputs.embeddings, inputs.references.mean)
    values["distance"] = distances_to(inputs.embeddings, inputs.references.mean)
    values["fm_ref"] = motion_from_reference(inputs.landmarks, inputs.references.landmarks)
    if "flow" in inputs.features:
        values["face_flow"] = face_flow(inputs)
        values["face_flow_crop"] = relative_face_flow(inputs, "face_crop_px")
        values["face_flow_camera"] = relative_face_flow(inputs, "face_camera_px")
        values["flow_px"] = _to_frames(inputs.features["flow"]["magnitude_px"], inputs.num_frames)
    return {name: finite_or_none_list(curve) for name, curve in values.items()}


def _to_frames(pairs: np.ndarray, num_frames: int) -> np.ndarray:
    return np.concatenate([pairs, np.full(num_frames - len(pairs), np.nan)])


def _video_result(
    item: VideoItem, known: MeasuredVideo, inputs: MetricInputs | None, metrics: Sequence[Metric]
) -> VideoResult:
    scores: dict[str, float | None] = {}
    for metric in metrics:
        if metric.compute_for_video is None or inputs is None:
            continue
        lacks = metric.needs_prompt and inputs.text is None
        scores[metric.name] = None if lacks else finite_or_none(metric.compute_for_video(inputs))
    size: dict[str, Any] = {"num_frames": 0, "fps": 0.0, "width_px": 0, "height_px": 0}
    if known.info is not None:
        size = {name: getattr(known.info, name) for name in size}
    return VideoResult(
        name=item.resolved_name,
        path=str(item.path),
        system=item.system,
        identity=item.identity,
        prompt=item.prompt,
        sha256=known.sha256,
        scores=scores,
        frames={} if inputs is None else curves(inputs),
        error=known.error,
        **size,
    )


def _system_result(
    name: str, videos: Sequence[VideoResult], all_inputs: Sequence[MetricInputs | None], metrics: Sequence[Metric]
) -> SystemResult:
    own = [index for index, video in enumerate(videos) if video.system == name]
    seen = [inputs for index in own if (inputs := all_inputs[index]) is not None]
    scores: dict[str, Summary] = {}
    for metric in metrics:
        if metric.compute_for_system is None:
            scores[metric.name] = summarize([videos[index].scores.get(metric.name) for index in own])
        else:
            value = finite_or_none(metric.compute_for_system(seen)) if seen else None
            scores[metric.name] = Summary(mean=value, standard_deviation=None, num_videos=len(seen))
    return SystemResult(
        name=name,
        num_videos=len(own),
        num_failed=sum(videos[index].error is not None for index in own),
        scores=scores,
    )
