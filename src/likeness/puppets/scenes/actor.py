"""Poses one puppet, projects it and draws it over a picture."""

from dataclasses import dataclass
from functools import lru_cache
from typing import Any

import numpy as np
from numpy.typing import NDArray

from likeness.puppets.people.anatomy import PuppetPerson
from likeness.puppets.people.body_parts import Part, build_body_parts, hair_line
from likeness.puppets.people.face_settings import face_settings
from likeness.puppets.people.shape import EXPRESSIONS, HeadShape, build_head
from likeness.puppets.rendering import maps, raster
from likeness.puppets.rendering.shade import shade
from likeness.puppets.scenes.setting import CLOTHING_COLORS, Light

_PIVOT = np.array([0.0, -0.75, -0.25], dtype=np.float32)
_SUPER_SAMPLES = 2
_HEAD_SIZE = 0.37  # Picture heights per head unit.


@dataclass(frozen=True, eq=False)
class Body:
    """The meshes of a person in rest pose.

    Shapes:
        face: (NUM_FACE,), from `face_settings`; hair: (NUM_HAIR,), from `hair_line`
        rest: (vertices, 3), rest coordinates of the head, then of all parts
        triangles: (triangles, 3); kinds: (triangles,), body part numbers of `raster`
    """

    head: HeadShape
    parts: list[Part]
    face: NDArray[np.float32]
    hair: NDArray[np.float32]
    rest: NDArray[np.float32]
    triangles: NDArray[np.int32]
    kinds: NDArray[np.int8]


@lru_cache(maxsize=64)
def build_body(person: PuppetPerson) -> Body:
    head = build_head(person)
    parts = build_body_parts(person, head)
    rests, triangles, kinds, offset = (
        [head.rest],
        [head.triangles],
        [np.full(len(head.triangles), raster.HEAD)],
        len(head.rest),
    )
    for part in parts:
        rests.append(part.rest)
        triangles.append(part.triangles + offset)
        kinds.append(np.full(len(part.triangles), part.kind))
        offset += len(part.rest)
    return Body(
        head, parts, face_settings(person, head.feature_positions), hair_line(person),
        np.concatenate(rests), np.concatenate(triangles).astype(np.int32), np.concatenate(kinds).astype(np.int8),
    )  # fmt: skip


def _rotation(yaw_deg: float, pitch_deg: float, roll_deg: float) -> NDArray[np.float32]:
    yaw, pitch, roll = np.radians([yaw_deg, -pitch_deg, -roll_deg])
    turn = np.array([[np.cos(yaw), 0, np.sin(yaw)], [0, 1, 0], [-np.sin(yaw), 0, np.cos(yaw)]])
    nod = np.array([[1, 0, 0], [0, np.cos(pitch), -np.sin(pitch)], [0, np.sin(pitch), np.cos(pitch)]])
    tilt = np.array([[np.cos(roll), -np.sin(roll), 0], [np.sin(roll), np.cos(roll), 0], [0, 0, 1]])
    return (tilt @ turn @ nod).astype(np.float32)


def _pose(body: Body, tracks: dict[str, float], side: float) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
    """All vertices of one frame, (vertices, 3), and the five landmarks, (5, 3)."""
    strengths = np.array([tracks[name] for name in EXPRESSIONS], dtype=np.float32)
    face = body.head.vertices + np.tensordot(strengths, body.head.expressions, axes=1)
    turn = _rotation(tracks["yaw_deg"], tracks["pitch_deg"], tracks["roll_deg"])
    lean = _rotation(0.22 * tracks["yaw_deg"], 0.0, 0.1 * tracks["roll_deg"])
    wave = _rotation(0.0, 0.0, tracks["wave"])
    shift = np.array([side * 1.02, -2.2 + 1.75 * tracks["hand"], 0.55], dtype=np.float32)
    mirror = np.array([side, 1, 1], dtype=np.float32)
    elbow = np.array([0.05, -1.0, 0], dtype=np.float32)
    posed: list[NDArray[Any]] = [(face - _PIVOT) @ turn.T + _PIVOT]
    for part in body.parts:
        if part.moves_with == "head":
            posed.append((part.vertices - _PIVOT) @ turn.T + _PIVOT)
        elif part.moves_with == "body":
            posed.append(part.vertices @ lean.T)
        else:
            posed.append((((part.vertices - elbow) @ wave.T + elbow) * mirror + shift).astype(np.float32))
    points = np.einsum("lk,lkc->lc", body.head.landmark_weights, face[body.head.landmark_indices])
    return np.concatenate(posed).astype(np.float32), ((points - _PIVOT) @ turn.T + _PIVOT).astype(np.float32)


def _project(
    points: NDArray[np.float32], zoom: float, shift_px: tuple[float, float], size_px: int
) -> NDArray[np.float32]:
    distance = 7.5
    scale = _HEAD_SIZE * size_px * zoom * distance / (distance - points[:, 2:3])
    center = np.array([0.5 * size_px + shift_px[0], 0.40 * size_px + shift_px[1]], dtype=np.float32)
    offset = np.array([0.0, 0.12], dtype=np.float32)
    return (center + (points[:, :2] - offset) * np.array([1, -1], dtype=np.float32) * scale).astype(np.float32)


def _expression_values(tracks: dict[str, float]) -> NDArray[np.float32]:
    names = ("smile", "jaw", "brows", "closed_left", "closed_right", "gaze_x", "gaze_y", "teeth")
    return np.array([tracks[name] for name in names], dtype=np.float32)


@dataclass(frozen=True, eq=False)
class Drawn:
    """Ground truth of one person in one frame.

    Shapes:
        part: (height, width) of the enlarged picture: the body part at each pixel
        landmarks: (5, 2) in pixels of the frame
        maps: (`maps.CHANNELS`, height / 4, width / 4) of the frame
    """

    part: NDArray[np.int8]
    landmarks: NDArray[np.float32]
    maps: NDArray[np.uint8]


@dataclass(frozen=True, eq=False, kw_only=True)
class Actor:
    """What stays constant for a person over a clip: body, colors, position and light.

    Shapes:
        colors: (4, 3): hair, clothing, frame of the glasses, skin
    """

    body: Body
    light: Light
    colors: NDArray[np.float32]
    zoom: float
    shift: tuple[float, float]
    """Offset from the middle of a square picture, to the right and downwards, in picture heights."""
    side: float
    """Side of the waving hand, -1 or 1."""

    def draw(self, tracks: dict[str, float], picture: NDArray[np.float32]) -> Drawn:
        """Draw over a picture from `enlarge`."""
        fine = len(picture)
        vertices, points = _pose(self.body, tracks, self.side)
        zoom, shift = self.zoom * tracks["zoom"], (self.shift[0] * fine, self.shift[1] * fine)
        screen = _project(vertices, zoom, shift, fine)
        normals = raster.vertex_normals(vertices, self.body.triangles)
        part = np.full(picture.shape[:2], raster.EMPTY, dtype=np.int8)
        place, normal = np.zeros_like(picture), np.zeros_like(picture)
        raster.rasterize(
            screen,
            vertices[:, 2].copy(),
            normals,
            self.body.rest,
            self.body.triangles,
            self.body.kinds,
            self.body.hair,
            part,
            place,
            normal,
        )
        soft = np.float32(0.5 / (_HEAD_SIZE * fine * zoom))
        shade(
            part,
            place,
            normal,
            self.body.face,
            _expression_values(tracks),
            self.colors,
            self.light.direction,
            self.light.key,
            self.light.ambient,
            soft,
            picture,
        )
        return Drawn(
            part,
            _project(points, zoom, shift, fine) / np.float32(_SUPER_SAMPLES),
            maps.dense_maps(part, place, normal, self.body.face, _SUPER_SAMPLES),
        )


def actor_colors(person: PuppetPerson, clothing: str, rng: np.random.Generator) -> NDArray[np.float32]:
    """The colors of an `Actor`; the brightness of the clothes varies at random."""
    cloth = np.array(CLOTHING_COLORS[clothing]) * rng.uniform(0.9, 1.08)
    frame_tone = np.array([0.06, 0.06, 0.07]) if person["glasses_tone"] < 0.6 else np.array([0.42, 0.24, 0.12])
    return np.stack([person.hair_color, cloth, frame_tone, person.skin]).astype(np.float32)


def sample_zoom(person: PuppetPerson, rng: np.random.Generator) -> float:
    """Sample the zoom; wide hair is shown smaller so that it fits."""
    return rng.uniform(0.95, 1.06) * (0.90 if person.hair_style == "afro" else 1.0)


def enlarge(backdrop: NDArray[np.float32]) -> NDArray[np.float32]:
    """Enlarge a backdrop (height, width, 3) for supersampling: several pixels per frame pixel."""
    return np.repeat(np.repeat(backdrop, _SUPER_SAMPLES, axis=0), _SUPER_SAMPLES, axis=1)


def to_frame(picture: NDArray[np.float32]) -> NDArray[np.uint8]:
    return (raster.average_down(picture, _SUPER_SAMPLES) * 255 + 0.5).astype(np.uint8)


def face_mask(part: NDArray[np.int8]) -> NDArray[np.bool_]:
    """Head, ears, hair and glasses, in pixels of the frame."""
    is_face = np.isin(part, (raster.HEAD, raster.EAR, raster.HAIR, raster.HAIR_SHEET, raster.GLASSES))
    return is_face[::_SUPER_SAMPLES, ::_SUPER_SAMPLES]
