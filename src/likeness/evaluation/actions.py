"""Does the face do what the prompt says: rules on head pose, landmarks and mouth of a clip's frames.

Each rule compares the clip with itself (its last frames with its first, or its motion with a wave), so that the camera, the
person and the resting pose do not matter. Left and right are the picture's. Rules exist for actions that five landmarks
can tell; a wink or a wave of the hand is not among them.
"""

from collections.abc import Callable

import numpy as np

from likeness.errors import ConfigError
from likeness.evaluation.smile import smile_change
from likeness.evaluation.tracking import FaceTrack

MIN_FRAMES = 6
"""With fewer frames in which a face was found, no action counts as seen."""
END_FRAMES = 4
"""Frames with a face at either end of a clip that are compared."""
TURN_DEG = 10.0
TILT_DEG = 8.0
CLOSER_RATIO = 1.2
SMILE = 0.17
NOD_PX = 0.025
"""Height of the vertical wave of a nod, in heights of the picture."""
SHAKE_DEG = 7.0
WAVE_SHARE = 0.5
"""Share of a motion, without its trend, that two cycles must explain."""


def is_seen(action: str, track: FaceTrack) -> bool:
    """Say whether the face of `track` does `action`, by its puppet name such as `turn_left`.

    Raises:
        ConfigError: There is no rule for this action.
    """
    if action not in RULES:
        raise ConfigError(
            f"There is no rule for the action `{action}`. Actions with rules: {', '.join(RULES)}."
        )
    if track.is_found.sum() < MIN_FRAMES:
        return False
    return RULES[action](track)


def change(values: np.ndarray) -> float:
    """Median of the last frames with a face, less that of the first."""
    found = values[np.isfinite(values)]
    return float(np.median(found[-END_FRAMES:]) - np.median(found[:END_FRAMES]))


def two_cycles(values: np.ndarray) -> tuple[float, float]:
    """Fit two cycles over the clip, of any phase, to a motion without its trend.

    Returns:
        The amplitude, and the share of the motion that the cycles explain.
    """
    is_found = np.isfinite(values)
    time = np.linspace(0, 1, len(values))[is_found]
    trend = np.column_stack([np.ones_like(time), time])
    waves = np.column_stack([np.cos(4 * np.pi * time), np.sin(4 * np.pi * time)])
    rest = _residual(trend, values[is_found])
    basis = np.column_stack([trend, waves])
    weights = np.linalg.lstsq(basis, values[is_found], rcond=None)[0]
    unexplained = values[is_found] - basis @ weights
    share = 1 - float((unexplained**2).sum() / max(float((rest**2).sum()), 1e-9))
    return float(np.hypot(*weights[2:])), share


def _turns_left(track: FaceTrack) -> bool:
    return change(track.pose_deg[:, 0]) < -TURN_DEG


def _turns_right(track: FaceTrack) -> bool:
    return change(track.pose_deg[:, 0]) > TURN_DEG


def _tilts(track: FaceTrack) -> bool:
    return abs(change(track.pose_deg[:, 2])) > TILT_DEG


def _comes_closer(track: FaceTrack) -> bool:
    return change(np.log(track.size_px)) > np.log(CLOSER_RATIO)


def _nods(track: FaceTrack) -> bool:
    amplitude, share = two_cycles(track.landmarks[:, :, 1].mean(axis=1) / track.height_px)
    return amplitude > NOD_PX and share > WAVE_SHARE


def _shakes(track: FaceTrack) -> bool:
    amplitude, share = two_cycles(track.pose_deg[:, 0])
    return amplitude > SHAKE_DEG and share > WAVE_SHARE


def _smiles(track: FaceTrack) -> bool:
    heads = track.heads[track.is_found]
    pairs = [(start, end) for start in heads[:3] for end in heads[-3:]]
    return float(np.median([smile_change(start, end) for start, end in pairs])) > SMILE


def _residual(basis: np.ndarray, values: np.ndarray) -> np.ndarray:
    return values - basis @ np.linalg.lstsq(basis, values, rcond=None)[0]


RULES: dict[str, Callable[[FaceTrack], bool]] = {
    "turn_left": _turns_left,
    "turn_right": _turns_right,
    "nod": _nods,
    "shake": _shakes,
    "tilt": _tilts,
    "smile": _smiles,
    "come_closer": _comes_closer,
}
"""Actions that can be checked, by their puppet names."""
