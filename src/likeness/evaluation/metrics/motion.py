"""Motion metrics: of the face, by landmarks and by flow, and of the whole frame."""

from functools import partial

import numpy as np

from likeness.evaluation.features.flow import dynamic_threshold_px, is_dynamic
from likeness.evaluation.metrics.base import FACE_PAIRS, FACES, FANTASY_ID, HERE, MAGIC_MIRROR, OPENS2V, PAIRS, Metric
from likeness.evaluation.metrics.identity import mean_found
from likeness.evaluation.metrics.inputs import MetricInputs, pick_rows
from likeness.evaluation.metrics.landmark_motion import (
    frame_motion_between_frames,
    frame_motion_from_reference,
    largest,
    motion_between_frames,
    motion_from_reference,
)

SAMPLED = "pairs at about 8 frames a second"


def face_flow(inputs: MetricInputs, array: str = "face_px") -> np.ndarray:
    """Mean flow in the chosen face's box to the next frame, in pixels.

    Args:
        inputs: Inputs of the video.
        array: Array of the flow feature: all motion, or without that of the crop or of the camera.

    Shapes:
        returns: (frames,), NaN where there is no face, and in the last frame
    """
    return pick_rows(inputs.features["flow"][array], inputs.rows)


def relative_face_flow(inputs: MetricInputs, array: str = "face_px") -> np.ndarray:
    """`face_flow` in percent of the width of the face's box, independent of the video's resolution."""
    boxes = pick_rows(inputs.features["faces"]["box"], inputs.rows)
    return 100 * face_flow(inputs, array) / (boxes[:, 2] - boxes[:, 0])


def _frame_motion_from_reference(inputs: MetricInputs) -> float:
    sizes_px = inputs.references.sizes_px
    if sizes_px is None:
        return float("nan")
    own_px = np.array([inputs.width_px, inputs.height_px])
    return mean_found(frame_motion_from_reference(inputs.landmarks, own_px, inputs.references.landmarks, sizes_px))


def _largest_frame_motion(inputs: MetricInputs) -> float:
    return largest(frame_motion_between_frames(inputs.landmarks, np.array([inputs.width_px, inputs.height_px])))


def dynamic(inputs: MetricInputs, feature: str) -> float:
    """VBench's dynamic degree by the flow of `feature`: 1 or 0, NaN without a pair of frames."""
    fast_px = inputs.features[feature]["fast_px"]
    if not len(fast_px):
        return float("nan")
    threshold_px = dynamic_threshold_px(inputs.height_px, inputs.width_px, inputs.fps)
    return float(is_dynamic(fast_px, threshold_px, len(fast_px) + 1))


def _motion_score(inputs: MetricInputs) -> float:
    signed_px = inputs.features["flow"]["signed_px"]
    return abs(float(signed_px.mean())) if len(signed_px) else float("nan")


_landmark_metric = partial(Metric, direction="higher", required_features=("faces",))
_face_flow_metric = partial(
    Metric,
    unit="% of the face's width a frame",
    direction="higher",
    averaged=f"{FACES}, to the next frame",
    required_features=("faces", "flow"),
)
_frame_flow_metric = partial(Metric, direction="higher", averaged=SAMPLED, source=HERE, required_features=("flow",))

MOTION_METRICS = (
    _landmark_metric(
        name="fm_ref",
        title="FM_ref",
        unit="face sizes",
        averaged=FACES,
        source=MAGIC_MIRROR,
        compute_for_video=lambda inputs: mean_found(
            motion_from_reference(inputs.landmarks, inputs.references.landmarks)
        ),
    ),
    _landmark_metric(
        name="fm_inter",
        title="FM_inter",
        unit="face sizes",
        averaged=f"the largest of the {FACE_PAIRS}",
        source=MAGIC_MIRROR,
        compute_for_video=lambda inputs: largest(motion_between_frames(inputs.landmarks)),
    ),
    _landmark_metric(
        name="fm_inter_mean",
        title="FM_inter, mean",
        unit="face sizes",
        averaged=FACE_PAIRS,
        source=HERE,
        compute_for_video=lambda inputs: mean_found(motion_between_frames(inputs.landmarks)),
    ),
    _landmark_metric(
        name="fm_ref_frame",
        title="FM_ref, coordinates of the frame",
        unit="frame sizes",
        averaged=FACES,
        source=f"{MAGIC_MIRROR}, its normalization",
        compute_for_video=_frame_motion_from_reference,
    ),
    _landmark_metric(
        name="fm_inter_frame",
        title="FM_inter, coordinates of the frame",
        unit="longer sides of the frame",
        averaged=f"the largest of the {FACE_PAIRS}",
        source=f"{MAGIC_MIRROR}, its normalization",
        compute_for_video=_largest_frame_motion,
    ),
    _face_flow_metric(
        name="face_flow",
        title="FM, Farneback on the face",
        unit="px a frame",
        source=FANTASY_ID,
        compute_for_video=lambda inputs: mean_found(face_flow(inputs)),
    ),
    _face_flow_metric(
        name="face_flow_relative",
        title="FM in face widths",
        source=HERE,
        compute_for_video=lambda inputs: mean_found(relative_face_flow(inputs)),
    ),
    _face_flow_metric(
        name="face_flow_crop",
        title="FM of the cropped face",
        source=f"{FANTASY_ID}, faces cropped as in its section 4.1",
        compute_for_video=lambda inputs: mean_found(relative_face_flow(inputs, "face_crop_px")),
    ),
    _face_flow_metric(
        name="face_flow_camera",
        title="FM without the camera's motion",
        averaged=f"{FACES} with enough background, to the next frame",
        source=HERE,
        compute_for_video=lambda inputs: mean_found(relative_face_flow(inputs, "face_camera_px")),
    ),
    _frame_flow_metric(
        name="dynamic_degree_farneback",
        title="Dynamic degree by Farneback, not VBench's",
        unit="share",
        compute_for_video=lambda inputs: dynamic(inputs, "flow"),
    ),
    _frame_flow_metric(
        name="fast_flow_farneback",
        title="Fastest 5 % of the flow, Farneback",
        unit="px a frame",
        direction="neither",
        compute_for_video=lambda inputs: mean_found(inputs.features["flow"]["fast_px"]),
    ),
    _frame_flow_metric(
        name="motion_score",
        title="Motion score",
        unit="px a frame",
        averaged=PAIRS,
        source=OPENS2V,
        compute_for_video=_motion_score,
    ),
)
