"""Check whether a face performs an action: rules on head pose, landmarks and mouth over a clip.

Each rule compares the clip with itself (last frames with first frames, or motion there and back), so that camera,
person and resting pose do not matter. Left and right are those of the image. Rules exist for actions that five
landmarks show; a wink or a wave is not among them.
"""

from collections.abc import Callable
from itertools import pairwise

import numpy as np

from likeness.errors import ConfigError
from likeness.evaluation.puppet_checks.face_track import FaceTrack
from likeness.evaluation.puppet_checks.smile import smile_change

MIN_FRAMES = 6
"""With fewer frames with a face, no action counts as seen."""
END_FRAMES = 4
"""Frames with a face at either end of a clip that are compared."""
TURN_DEG = 10.0
TILT_DEG = 8.0
CLOSER_RATIO = 1.2
SMILE = 0.17
NOD_HEIGHT = 0.035
"""How far the face moves down and up in a nod, in image heights."""
SHAKE_DEG = 12.0
"""How far the head turns to one side and back in a shake."""


def is_seen(action: str, track: FaceTrack) -> bool:
    """Say whether the face of `track` does `action`, by its puppet name such as `turn_left`.

    Raises:
        ConfigError: There is no rule for this action.
    """
    if action not in RULES:
        raise ConfigError(f"There is no rule for the action `{action}`. Actions with rules: {', '.join(RULES)}.")
    if track.is_found.sum() < MIN_FRAMES:
        return False
    return bool(RULES[action](track))


def change(values: np.ndarray) -> float:
    """Median of the last frames with a face, less that of the first."""
    found = values[np.isfinite(values)]
    return float(np.median(found[-END_FRAMES:]) - np.median(found[:END_FRAMES]))


def excursions(values: np.ndarray, least: float) -> list[float]:
    """Split a motion at its turning points.

    Returns:
        What it goes up (positive) and down from each turning point to the next, smaller ones than `least` left out.
    """
    found = values[np.isfinite(values)]
    smooth = np.median(np.stack([found[:-2], found[1:-1], found[2:]]), axis=0)  # One wrong frame is no motion.
    turning_points = [smooth[0]]
    extreme = smooth[0]
    direction = 0.0
    for value in smooth[1:]:
        if direction and direction * (value - extreme) >= 0:
            extreme = value
        elif abs(value - extreme) >= least:
            turning_points.append(extreme)
            direction, extreme = np.sign(value - extreme), value
    turning_points.append(extreme)
    return [float(size) for size in np.diff(turning_points) if abs(size) >= least]


def _turns_left(track: FaceTrack) -> bool:
    return change(track.pose_deg[:, 0]) < -TURN_DEG


def _turns_right(track: FaceTrack) -> bool:
    return change(track.pose_deg[:, 0]) > TURN_DEG


def _tilts(track: FaceTrack) -> bool:
    return abs(change(track.pose_deg[:, 2])) > TILT_DEG


def _comes_closer(track: FaceTrack) -> bool:
    return change(np.log(track.size_px)) > np.log(CLOSER_RATIO)


def _nods(track: FaceTrack) -> bool:
    heights = track.landmarks[:, :, 1].mean(axis=1) / track.height_px  # Larger is lower in the picture.
    sizes = excursions(heights, NOD_HEIGHT)
    return any(down > 0 > up for down, up in pairwise(sizes))


def _shakes(track: FaceTrack) -> bool:
    return len(excursions(track.pose_deg[:, 0], SHAKE_DEG)) > 1


def _smiles(track: FaceTrack) -> bool:
    heads = track.heads[track.is_found]
    pairs = [(start, end) for start in heads[:3] for end in heads[-3:]]
    return float(np.median([smile_change(start, end) for start, end in pairs])) > SMILE


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
