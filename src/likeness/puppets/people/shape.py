"""From identity numbers to the head's surface, its expressions and the positions of facial features.

Formulas use *rest coordinates*: positions on the mean head, x to the picture's right, y up, z towards the camera, the
head about two units tall. Facial features are Gaussian bumps in rest coordinates, so all people share one topology.
"""

from dataclasses import dataclass
from functools import cache

import numpy as np
from numpy.typing import NDArray

from likeness.puppets.people.anatomy import PuppetPerson
from likeness.puppets.rendering.mesh import Triangles, Vertices, head_topology

EXPRESSIONS = ("smile", "jaw", "brows")


@dataclass(frozen=True, eq=False)
class HeadShape:
    """A person's head.

    Shapes:
        vertices: (vertices, 3), neutral pose and expression
        rest: (vertices, 3), the same points on the mean head
        triangles: (triangles, 3)
        expressions: (3, vertices, 3), displacement at full strength, in the order of `EXPRESSIONS`
        landmark_indices, landmark_weights: (5, 4), the vertices nearest to each of the five landmarks
    """

    vertices: Vertices
    rest: Vertices
    triangles: Triangles
    expressions: NDArray[np.float32]
    landmark_indices: NDArray[np.int64]
    landmark_weights: NDArray[np.float32]
    feature_positions: dict[str, float]


@cache
def mean_head() -> tuple[Vertices, Vertices, Triangles]:
    """The head without features: rest coordinates, directions, triangles."""
    directions, triangles = head_topology()
    x, y, z = directions.astype(np.float64).T
    height = 0.10 + 1.02 * y
    lower = _smoothstep(0.05, -0.95, height)
    width = 0.74 * x * (1 - 0.12 * lower)
    front, back = np.clip(z, 0, 1), np.clip(-z, 0, 1)
    depth = 0.80 * front**0.88 - 0.98 * back * (1 - 0.45 * _smoothstep(-0.1, -0.8, height))
    depth += 0.30 * _smoothstep(-0.15, -0.85, height) * _smoothstep(0.0, 0.55, z)
    return np.stack([width, height, depth], axis=1).astype(np.float32), directions, triangles


def feature_positions(person: PuppetPerson) -> dict[str, float]:
    """Positions and sizes of facial features in rest coordinates, for the mesh and for painting."""
    return {
        "eye_x": 0.305 + 0.022 * person["eye_spacing"],
        "eye_y": 0.12 + 0.022 * person["eye_height"],
        "eye_width": 0.158 * (1 + 0.10 * person["eye_size"]),
        "eye_opening": max(0.040, 0.073 * (1 + 0.13 * person["eye_size"] + 0.16 * person["eye_opening"])),
        "eye_tilt": 0.10 * person["eye_tilt"],
        "lid_crease": 0.05 + 0.012 * person["lid_crease"],
        "brow_y": 0.325 + 0.026 * person["brow_height"] + 0.018 * person["eye_height"],
        "brow_thickness": max(0.016, 0.038 * (1 + 0.30 * person["brow_thickness"])),
        "brow_arch": 0.045 + 0.028 * person["brow_arch"],
        "brow_slant": 0.13 * person["brow_slant"],
        "brow_inner": 0.135 + 0.028 * person["brow_gap"],
        "nose_y": -0.215 - 0.040 * person["nose_length"],
        "nose_width": 0.125 * (1 + 0.15 * person["nostril_width"]),
        "mouth_y": -0.475 - 0.025 * person["mouth_height"] - 0.022 * person["nose_length"],
        "mouth_width": 0.235 * (1 + 0.12 * person["mouth_width"]),
        "upper_lip": max(0.014, 0.042 * (1 + 0.30 * person["upper_lip"])),
        "lower_lip": max(0.022, 0.055 * (1 + 0.26 * person["lower_lip"])),
        "lip_curve": 0.012 * person["lip_curve"],
    }


def build_head(person: PuppetPerson) -> HeadShape:
    """Build a person's head and the displacements of its expressions."""
    rest, directions, triangles = mean_head()
    positions = feature_positions(person)
    vertices = rest.astype(np.float64) + _features(person, positions, rest, directions)
    vertices = _proportions(person, vertices, rest)
    indices, weights = _landmarks(positions, rest, directions)
    return HeadShape(
        vertices.astype(np.float32),
        rest,
        triangles,
        _expressions(positions, rest, directions),
        indices,
        weights,
        positions,
    )


def _smoothstep(low: float, high: float, value: NDArray[np.floating]) -> NDArray[np.float64]:
    place = np.clip((value - low) / (high - low), 0, 1)
    return np.asarray(place * place * (3 - 2 * place), dtype=np.float64)


class _Field:
    """A displacement field of bumps on the front of the head, symmetric in x."""

    def __init__(self, rest: Vertices, directions: Vertices) -> None:
        self.x, self.y = np.abs(rest[:, 0]).astype(np.float64), rest[:, 1].astype(np.float64)
        self.side = np.sign(rest[:, 0]).astype(np.float64)
        self.front = _smoothstep(-0.1, 0.35, directions[:, 2])
        self.total = np.zeros((len(rest), 3))

    def bump(self, x: float, y: float, width: float, height: float) -> NDArray[np.float64]:
        return np.exp(-(((self.x - x) / width) ** 2) - ((self.y - y) / height) ** 2) * self.front

    def push(self, weight: NDArray[np.float64], out: float = 0.0, up: float = 0.0, forward: float = 0.0) -> None:
        self.total[:, 0] += weight * self.side * out
        self.total[:, 1] += weight * up
        self.total[:, 2] += weight * forward


def _features(
    person: PuppetPerson, positions: dict[str, float], rest: Vertices, directions: Vertices
) -> NDArray[np.float64]:
    field, age = _Field(rest, directions), person["age"]
    _push_nose(person, positions, field)
    # Eye sockets, eyeballs and brow ridge.
    eye_x, eye_y = positions["eye_x"], positions["eye_y"]
    field.push(field.bump(eye_x - 0.02, eye_y + 0.02, 0.17, 0.11), forward=-0.085 - 0.022 * person["eye_depth"])
    field.push(field.bump(eye_x, eye_y, 0.10, 0.065), forward=0.035)
    field.push(field.bump(0.25, positions["brow_y"], 0.26, 0.075), forward=0.035 + 0.022 * person["brow_ridge"])
    field.push(field.bump(0.05, positions["brow_y"] - 0.02, 0.09, 0.07), forward=0.02 + 0.012 * person["brow_ridge"])
    # Cheekbones and cheeks.
    cheek_y = -0.10 + 0.04 * person["cheekbone_height"]
    field.push(field.bump(0.46, cheek_y, 0.17, 0.13), out=0.030 * person["cheekbone_width"] + 0.01, forward=0.045)
    field.push(field.bump(0.40, -0.40, 0.20, 0.22), out=0.030 * person["cheek_fullness"] - 0.02 * age,
               forward=0.030 * person["cheek_fullness"] - 0.05 * age)  # fmt: skip
    # Mouth and lips.
    mouth_y, mouth_width = positions["mouth_y"], positions["mouth_width"]
    field.push(field.bump(0.0, mouth_y, 0.24, 0.15), forward=0.05)
    field.push(
        field.bump(0.0, mouth_y + 0.4 * positions["upper_lip"], 0.75 * mouth_width, 0.04),
        forward=0.25 * positions["upper_lip"] + 0.012,
    )
    field.push(
        field.bump(0.0, mouth_y - 0.6 * positions["lower_lip"], 0.62 * mouth_width, 0.04),
        forward=0.30 * positions["lower_lip"] + 0.012,
    )
    field.push(field.bump(0.0, mouth_y - 0.125, 0.17, 0.04), forward=-0.022)
    field.push(field.bump(mouth_width + 0.02, mouth_y, 0.045, 0.06), forward=-0.022)
    # Chin, jaw and forehead.
    chin = field.bump(0.0, -0.80, 0.17 + 0.04 * person["chin_width"], 0.12)
    field.push(chin, forward=0.06 + 0.035 * person["chin_forward"], up=-0.035 * person["chin_length"])
    field.push(field.bump(0.17, -0.82, 0.13, 0.12), out=0.035 * person["chin_width"])
    corner = np.exp(-(((field.y + 0.52) / 0.20) ** 2)) * _smoothstep(0.25, 0.55, field.x)
    field.push(corner, out=0.045 * person["jaw_width"] + 0.03 * person["jaw_corner"], up=-0.03 * person["jaw_corner"])
    jaw = np.exp(-(((field.y + 0.72) / 0.20) ** 2)) * _smoothstep(0.08, 0.40, field.x)
    field.push(jaw, out=0.040 * person["jaw_width"])
    forehead = np.exp(-(((field.y - 0.62) / 0.22) ** 2)) * field.front
    field.push(forehead, forward=0.03 - 0.035 * person["forehead_slope"])
    return field.total


def _push_nose(person: PuppetPerson, positions: dict[str, float], field: _Field) -> None:
    tip_y, height = positions["nose_y"] + 0.045, 0.20 * (1 + 0.16 * person["nose_height"])
    along = _smoothstep(0.17, tip_y, field.y) * _smoothstep(tip_y - 0.13, tip_y - 0.02, field.y)
    ridge = np.exp(-((field.x / (0.075 + 0.012 * person["nose_width"])) ** 2)) * along * field.front
    field.push(ridge, forward=0.62 * height)
    field.push(field.bump(0.0, 0.10, 0.06, 0.10), forward=0.045 + 0.025 * person["nose_bridge"])
    field.push(field.bump(0.0, 0.45 * tip_y + 0.03, 0.06, 0.08), forward=0.028 * person["nose_hook"])
    field.push(
        field.bump(0.0, tip_y, 0.085 + 0.012 * person["nose_tip"], 0.075),
        forward=0.50 * height,
        up=0.02 * person["nose_hook"] * -1,
    )
    field.push(
        field.bump(positions["nose_width"] * 0.92, positions["nose_y"] + 0.01, 0.052, 0.048),
        out=0.02,
        forward=0.085,
    )


def _proportions(person: PuppetPerson, vertices: NDArray[np.float64], rest: Vertices) -> NDArray[np.float64]:
    x, y, z = vertices.T
    upper, lower = _smoothstep(0.15, 0.75, rest[:, 1]), _smoothstep(0.25, -0.85, rest[:, 1])
    middle = np.exp(-((rest[:, 1] / 0.45) ** 2))
    x = x * (1 + 0.050 * person["skull_width"] * upper + 0.055 * person["face_width"] * np.maximum(middle, lower))
    y = (
        y
        + 0.060 * person["skull_height"] * upper
        - 0.065 * (person["face_length"] + 0.6 * person["chin_length"]) * lower
    )
    z = np.where(z < 0, z * (1 + 0.05 * person["skull_depth"]), z)
    return np.stack([x, y, z], axis=1)


def _expressions(positions: dict[str, float], rest: Vertices, directions: Vertices) -> NDArray[np.float32]:
    mouth_y = positions["mouth_y"]
    smile, jaw, brows = (_Field(rest, directions) for _ in EXPRESSIONS)
    smile.push(smile.bump(positions["mouth_width"], mouth_y, 0.11, 0.10), out=0.055, up=0.060, forward=-0.03)
    smile.push(smile.bump(0.38, -0.18, 0.17, 0.13), out=0.02, up=0.035, forward=0.045)
    below = _smoothstep(mouth_y - 0.006, mouth_y - 0.040, rest[:, 1]) * _smoothstep(-0.15, 0.15, directions[:, 2])
    across = np.clip(1.15 - (np.abs(rest[:, 0]) / (1.9 * positions["mouth_width"])) ** 2, 0, 1)
    near = np.exp(-((np.clip(mouth_y - rest[:, 1], 0, 1) / 0.9) ** 2))
    jaw.push(below * across * near, up=-0.20, forward=-0.04)
    brows.push(brows.bump(0.27, positions["brow_y"], 0.30, 0.11), up=0.085)
    return np.stack([smile.total, jaw.total, brows.total]).astype(np.float32)


def _landmarks(
    positions: dict[str, float], rest: Vertices, directions: Vertices
) -> tuple[NDArray[np.int64], NDArray[np.float32]]:
    # dlib's predictor puts eye corners of rendered eyes inside the lash line, a little above the corner.
    outer = positions["eye_x"] + 0.52 * positions["eye_width"]
    inner = positions["eye_x"] - 0.90 * positions["eye_width"]
    lift, raised = positions["eye_tilt"] * positions["eye_width"], positions["eye_y"] + 0.016
    wanted = np.array(
        [
            [-outer, raised + lift + 0.014],
            [-inner, raised - lift],
            [inner, raised - lift],
            [outer, raised + lift + 0.014],
            [0.0, positions["nose_y"] - 0.05],
        ]
    )
    distance = ((rest[None, :, :2] - wanted[:, None]) ** 2).sum(-1) + 10.0 * (directions[None, :, 2] < 0.1)
    indices = np.argsort(distance, axis=1)[:, :4]
    weights = 1 / (np.take_along_axis(distance, indices, axis=1) + 1e-4)
    return indices, (weights / weights.sum(1, keepdims=True)).astype(np.float32)
