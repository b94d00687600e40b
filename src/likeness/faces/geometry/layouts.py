"""The landmark layouts of face engines: dlib has eye corners and nose base, ArcFace's family has other five points.

Both are (5, 2) arrays, so every detection carries the name of its layout. A `LandmarkLayout` holds everything that
depends on it: the points in a head crop, the points on a mean head, the outermost points of the eyes.
"""

from dataclasses import dataclass

import numpy as np

from likeness.errors import ConfigError, FaceError
from likeness.records import LANDMARK_NAMES


@dataclass(frozen=True, kw_only=True, slots=True, eq=False)
class LandmarkLayout:
    """Five landmarks of a face, in picture order."""

    name: str
    landmark_names: tuple[str, ...]
    template: np.ndarray
    """(5, 2): positions in a head crop of side 1."""
    head_points: np.ndarray
    """(5, 3): positions on a mean head in centimeters; x to the right of the picture, y down, z to the viewer."""
    eyes: tuple[int, int]
    """Indices of the leftmost and the rightmost point on the line through the eyes."""


EYE_CORNERS = LandmarkLayout(
    name="eye corners",
    landmark_names=LANDMARK_NAMES,
    # Eye centers 0.26 apart, so that hair and chin are inside.
    template=np.array([[0.325, 0.46], [0.415, 0.46], [0.585, 0.46], [0.675, 0.46], [0.5, 0.62]], dtype=np.float32),
    # Eye corners of MediaPipe's canonical face, base of the nose at dlib's mean shape.
    head_points=np.array(
        [
            [-4.4459, -2.6640, 3.1734],
            [-1.8564, -2.5852, 3.7579],
            [1.8564, -2.5852, 3.7579],
            [4.4459, -2.6640, 3.1734],
            [0.0, 2.27, 6.06],
        ]
    ),
    eyes=(0, 3),
)
"""dlib's five points, as in `likeness.records.LANDMARK_NAMES`."""

EYE_CENTERS = LandmarkLayout(
    name="eye centers",
    landmark_names=(
        "image-left eye, center",
        "image-right eye, center",
        "tip of the nose",
        "image-left corner of the mouth",
        "image-right corner of the mouth",
    ),
    # The frontal mean head under the similarity that maps its eye corners onto the other template, so that both
    # layouts give the same crop of a picture.
    template=np.array(
        [[0.38, 0.4547], [0.62, 0.4547], [0.5, 0.5976], [0.4065, 0.7201], [0.5935, 0.7201]], dtype=np.float32
    ),
    # MediaPipe's canonical face; an eye center is the mean of its corners.
    head_points=np.array(
        [
            [-3.1511, -2.6246, 3.4657],
            [3.1511, -2.6246, 3.4657],
            [0.0, 1.1269, 7.4756],
            [-2.4562, 4.3426, 4.2839],
            [2.4562, 4.3426, 4.2839],
        ]
    ),
    eyes=(0, 1),
)
"""The five points of RetinaFace, SCRFD and YuNet, by which faces are aligned for ArcFace and SFace."""

LAYOUTS = {layout.name: layout for layout in (EYE_CORNERS, EYE_CENTERS)}


def get_layout(name: str) -> LandmarkLayout:
    """The layout that a `Detection` or `Face` names.

    Raises:
        ConfigError: no layout has that name.
    """
    if name not in LAYOUTS:
        raise ConfigError(f"No landmark layout is called `{name}`. Use one of {', '.join(LAYOUTS)}.")
    return LAYOUTS[name]


def refuse_other_layout(landmarks: np.ndarray, layout: LandmarkLayout) -> None:
    """Refuse landmarks that clearly belong to another layout: the recognizer would get a misaligned crop.

    Points of a turned head fit no template well, but they fit the template of their layout far better than any other.

    Raises:
        FaceError: the points have another shape, or fit another layout twice as well.
    """
    landmarks = np.asarray(landmarks, dtype=np.float64)
    if landmarks.shape != (5, 2):
        raise FaceError(f"The landmarks have shape {landmarks.shape}; (5, 2) in {layout.name} is needed.")
    unexplained = {other.name: _unexplained_variance(landmarks, other.template) for other in LAYOUTS.values()}
    best = min(unexplained, key=lambda name: unexplained[name])
    if 2 * unexplained[best] < unexplained[layout.name]:
        raise FaceError(
            f"The landmarks are {best}, this engine needs {layout.name} ({'; '.join(layout.landmark_names)}). "
            "Give landmarks that the same engine detected."
        )


def _unexplained_variance(points: np.ndarray, template: np.ndarray) -> float:
    """Share of the variance of `points` that remains after the best similarity fit of `template`."""
    a, b = (
        np.ascontiguousarray(values - values.mean(0), np.float64).view(np.complex128)[:, 0]
        for values in (points, template)
    )
    spread = (np.abs(a) ** 2).sum() * (np.abs(b) ** 2).sum()
    return 1 - np.abs((a * b.conj()).sum()) ** 2 / max(spread, np.finfo(np.float64).tiny)
