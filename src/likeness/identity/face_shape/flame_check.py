"""Checks that vertices in FLAME's topology are a head for FantasyID: in meters, upright, facing the camera."""

import numpy as np
from numpy.typing import NDArray

from likeness.errors import ConfigError

NUM_VERTICES = 5023
NOSE, BACK, CROWN, NECK, RIGHT, LEFT = 3564, 3522, 3567, 3285, 3226, 3327
"""FLAME's vertex indices: tip of the nose, back of the head, crown, front of the neck's end, and the two ends of the
shoulder line, the first with the larger x."""
MEAN_RADIUS_M = 0.082
"""RMS distance of the mean head's vertices from their center. The five heads published with FantasyID have 0.083 to
0.087."""
MAX_DEPTH_M = 0.3
"""Largest absolute z; the published heads have z between -0.18 and 0.14."""
_UNITS = {"centimeters": 100.0, "millimeters": 1000.0, "inches": 1 / 0.0254}
_AXES_ADVICE = "x points to the picture's right, y up, z towards the camera, as DECA writes `verts`. Export it so."


def check_head(vertices: NDArray[np.floating], source: str) -> None:
    """Refuse vertices in another unit, with flipped or exchanged axes, or with another origin.

    Args:
        vertices: (5023, 3), posed or neutral.
        source: Where they came from, for messages.

    Raises:
        ConfigError: The vertices are not valid; the message says why.
    """
    points = np.asarray(vertices, np.float64)
    radius = float(np.sqrt(((points - points.mean(axis=0)) ** 2).sum(axis=1).mean()))
    if not 0.6 < radius / MEAN_RADIUS_M < 1.7:
        units = [name for name, factor in _UNITS.items() if 0.6 < radius / MEAN_RADIUS_M / factor < 1.7]
        guess = f"These look like {units[0]}: divide by {_UNITS[units[0]]:g}. " if units else ""
        raise ConfigError(
            f"The vertices of {source} lie {radius:.3g} from their center on average; a head in meters has "
            f"{MEAN_RADIUS_M:g}. {guess}Export them in meters."
        )
    forward, up, right = (
        points[NOSE] - points[BACK],
        points[CROWN] - points[NECK],
        points[RIGHT] - points[LEFT],
    )
    if np.dot(np.cross(right, up), forward) < 0:  # A left-handed head.
        raise ConfigError(f"The head in {source} is mirrored: one of its axes is flipped. {_AXES_ADVICE}")
    problems = [
        problem
        for problem, applies in (
            ("looks away from the camera", forward[2] <= 0),
            ("stands upside down", up[1] <= 0),
            ("has its right and left exchanged", right[0] <= 0),
        )
        if applies
    ]
    if problems:
        raise ConfigError(f"The head in {source} {' and '.join(problems)}. {_AXES_ADVICE}")
    low, high = float(points[:, 2].min()), float(points[:, 2].max())
    if max(-low, high) > MAX_DEPTH_M:
        raise ConfigError(
            f"Depth in {source} goes from {low:.2f} to {high:.2f} m; FLAME's origin is inside the head, so at most "
            f"{MAX_DEPTH_M:g} m from zero were expected. Save `verts`, not `trans_verts`, and do not shift the head."
        )
