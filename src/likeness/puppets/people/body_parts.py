"""Meshes of everything except the head: ears, hair, glasses, neck, clothes and a waving hand."""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from likeness.puppets.people.anatomy import PuppetPerson
from likeness.puppets.people.shape import HeadShape
from likeness.puppets.rendering.mesh import Mesh, ellipsoid, join, sheet_triangles, tube
from likeness.puppets.rendering.raster import (
    EAR,
    GLASSES,
    HAIR,
    HAIR_SHEET,
    HAND,
    NECK,
    NUM_HAIR,
    SLEEVE,
    TORSO,
    hair_depths,
)


@dataclass(frozen=True, eq=False)
class Part:
    """A mesh of one material that moves with the head, the body or the hand.

    Shapes:
        vertices, rest: (vertices, 3); triangles: (triangles, 3)
    """

    kind: int
    moves_with: str
    vertices: NDArray[np.float32]
    rest: NDArray[np.float32]
    triangles: NDArray[np.int32]


def _part(kind: int, moves_with: str, mesh: Mesh, rest: NDArray[np.float32] | None = None) -> Part:
    return Part(kind, moves_with, mesh[0], mesh[0] if rest is None else rest, mesh[1])


def build_body_parts(person: PuppetPerson, head: HeadShape) -> list[Part]:
    """All meshes of a person except the head itself."""
    return [*_ears(person, head), *_body(person), *_hair(person, head), *_glasses(person, head), *_hand()]


def hair_line(person: PuppetPerson) -> NDArray[np.float32]:
    """Settings of `raster.hair_inside`."""
    style, line = person.hair_style, person["hairline"]
    front, temple, side, nape = 0.66 + 0.10 * line, 0.50 + 0.10 * line, -0.02, -0.45
    opening, part, noise = 0.0, 0.0, 1.0
    if style == "receding":
        front, temple, side, opening, noise = 1.05, 0.80, 0.10, 0.52 + 0.12 * person["hair_part"], 0.5
    elif style == "buzz":
        front, temple, side, noise = front - 0.02, temple + 0.02, 0.05, 0.2
    elif style == "fringe":
        front, temple, noise = 0.49 + 0.07 * line, 0.40, 1.5
    elif style == "side part":
        part, noise = (0.9 if person["hair_part"] > 0.5 else -0.9) * 0.5, 0.6
    elif style in ("long", "bob"):
        part, side, nape = (person["hair_part"] - 0.5) * 0.9, -0.15, -0.7
        if person["hair_wave"] > 0.6:
            front, temple = 0.46, 0.38
    elif style in ("afro", "curly"):
        front, noise = front - 0.04, 2.2
    if person.group == "baby":
        front, temple, side = front + 0.12, temple + 0.16, side + 0.2
    line_settings = np.zeros(NUM_HAIR, dtype=np.float32)
    line_settings[:8] = [front, temple, side, nape, opening, part, person["hair_wave"], noise]
    return line_settings


def _hair(person: PuppetPerson, head: HeadShape) -> list[Part]:
    style = person.hair_style
    if style == "bald":
        return []
    volume, rest = person["hair_volume"], head.rest
    outward = head.rest - np.array([0, 0.1, 0], dtype=np.float32)
    outward /= np.linalg.norm(outward, axis=1, keepdims=True)
    top = np.clip((rest[:, 1] - 0.3) / 0.7, 0, 1)
    base = {
        "buzz": 0.022,
        "receding": 0.05,
        "afro": 0.26 + 0.20 * volume,
        "curly": 0.13 + 0.12 * volume,
        "short": 0.06 + 0.05 * volume,
    }
    thickness = np.full(len(rest), base.get(style, 0.075 + 0.05 * volume))
    if style in ("short", "side part", "fringe"):
        thickness += top * (0.03 + 0.16 * volume) * np.clip(rest[:, 2] + 0.55, 0, 1)
    if style in ("afro", "curly"):
        lumps = np.sin(rest @ np.array([17.0, 9.0, 13.0])) * np.sin(rest @ np.array([-8.0, 19.0, 11.0]))
        thickness += (0.05 if style == "curly" else 0.02) * lumps
    if style == "bun":
        thickness -= 0.03
    line = hair_line(person)
    inside = hair_depths(rest, line)
    thickness = np.where(thickness > 0.03, 0.03 + (thickness - 0.03) * np.clip(inside / 0.22, 0, 1) ** 0.6, thickness)
    cap = _part(
        HAIR,
        "head",
        ((head.vertices + outward * thickness[:, None]).astype(np.float32), _hairy_triangles(head)),
        rest,
    )
    return [cap, *_loose_hair(person, head)]


def _hairy_triangles(head: HeadShape) -> NDArray[np.int32]:
    """Triangles that a hair line can cover; the others are dropped for speed."""
    height = head.rest[:, 1] - np.where(head.rest[:, 2] > 0.35, 0.3, -0.75)
    return head.triangles[(height[head.triangles] > -0.1).any(axis=1)]


def _loose_hair(person: PuppetPerson, head: HeadShape) -> list[Part]:
    style, volume, length = person.hair_style, person["hair_volume"], person["hair_length"]
    width, top = float(np.abs(head.vertices[:, 0]).max()), float(head.vertices[:, 1].max())
    if style == "bun":
        center = (0.0, top + 0.12, -0.25) if length > 0.5 else (0.0, 0.75, -0.95)
        return [_part(HAIR_SHEET, "head", ellipsoid(center, (0.30, 0.26, 0.30)))]
    if style == "ponytail":
        side = 0.62 if length > 0.5 else -0.62
        return [
            _part(HAIR_SHEET, "head", ellipsoid((side, 0.65, -0.72), (0.26, 0.24, 0.26))),
            _part(HAIR_SHEET, "head", ellipsoid((side * 1.45, 0.0, -0.60), (0.20, 0.68, 0.20))),
        ]
    if style not in ("long", "bob"):
        return []
    rows, columns = 14, 33
    end = (-0.62 - 0.16 * length) if style == "bob" else (-1.15 - 0.6 * length)
    opening = np.radians(60 + 8 * person["hairline"])
    around, down = np.meshgrid(np.linspace(opening, 2 * np.pi - opening, columns), np.linspace(0, 1, rows))
    height = 0.72 + (end - 0.72) * down
    swell = (
        1
        + 0.10 * volume
        + 0.16 * np.sin(np.pi * np.clip(down * 1.2, 0, 1)) * (0.4 + volume) * (0.9 if style == "bob" else 0.6)
    )
    close = np.sqrt(np.clip(1 - (np.clip(height - 0.1, 0, 1) / 1.12) ** 2, 0.25, 1))
    wave = 0.03 * person["hair_wave"] * np.sin(down * 16 + 3 * around)
    x = np.sin(around) * ((width + 0.05) * swell * close + wave)
    z = np.cos(around) * (0.92 * swell * close + wave) - 0.06
    sheet = np.stack([x, height, z], axis=-1).reshape(-1, 3).astype(np.float32)
    rest = np.stack([np.sin(around) * 0.8, height, np.cos(around) * 0.8], axis=-1).reshape(-1, 3).astype(np.float32)
    return [_part(HAIR_SHEET, "head", (sheet, sheet_triangles(rows, columns)), rest)]


def _ears(person: PuppetPerson, head: HeadShape) -> list[Part]:
    size, angle = 1 + 0.14 * person["ear_size"], 0.03 * person["ear_angle"]
    level = np.abs(head.rest[:, 1] - 0.05) < 0.12
    width = float(np.abs(head.vertices[level, 0]).max())
    parts = []
    for side in (-1.0, 1.0):
        outer = ellipsoid(
            (side * (width + 0.035 + angle), 0.03, -0.12),
            (0.085 + abs(angle) * 0.4, 0.20 * size, 0.14 * size),
        )
        parts.append(_part(EAR, "head", outer))
    return parts


def _glasses(person: PuppetPerson, head: HeadShape) -> list[Part]:
    if person.glasses_style == "none":
        return []
    positions = head.feature_positions
    size = 0.185 + 0.035 * person["glasses_size"]
    tall = size * (0.92 if person.glasses_style == "round" else 0.76)
    near = np.hypot(np.abs(head.rest[:, 0]) - positions["eye_x"], head.rest[:, 1] - positions["eye_y"]) < 0.2
    front = float(head.vertices[near & (head.rest[:, 2] > 0), 2].max()) + 0.035
    angles = np.linspace(0, 2 * np.pi, 22, endpoint=False)
    power = 1.0 if person.glasses_style == "round" else 0.48
    ring_x = np.sign(np.cos(angles)) * np.abs(np.cos(angles)) ** power
    ring_y = np.sign(np.sin(angles)) * np.abs(np.sin(angles)) ** power
    eye_x, eye_y, meshes = positions["eye_x"] + 0.01, positions["eye_y"] - 0.025, []
    width = float(np.abs(head.vertices[:, 0]).max())
    for side in (-1.0, 1.0):
        ring = np.stack(
            [side * eye_x + size * ring_x, eye_y + tall * ring_y, front - 0.10 * np.abs(size * ring_x)],
            axis=1,
        )
        meshes.append(tube(ring, 0.014, closed=True))
        start = np.array([side * (eye_x + size), eye_y + 0.05, front - 0.03])
        end = np.array([side * (width + 0.02), 0.10, -0.05])
        meshes.append(tube(np.linspace(start, end, 4), 0.018))
    bridge = np.array(
        [
            [-(eye_x - size), eye_y + 0.05, front],
            [0, eye_y + 0.075, front + 0.03],
            [eye_x - size, eye_y + 0.05, front],
        ]
    )
    meshes.append(tube(bridge, 0.018))
    return [_part(GLASSES, "head", join(meshes))]


def _body(person: PuppetPerson) -> list[Part]:
    neck = 0.33 * (1 + 0.11 * person["neck_width"])
    shoulders = 1.22 * (1 + 0.09 * person["shoulder_width"])
    torso = join([
        ellipsoid((0, -2.05, -0.25), (shoulders, 0.92, 0.55), rings=14, segments=22),
        ellipsoid((0, -1.36, -0.2), (neck * 1.7, 0.24, 0.40), rings=8, segments=16),
    ])  # fmt: skip
    return [
        _part(NECK, "body", ellipsoid((0, -0.98, -0.18), (neck, 0.72, neck * 1.02), rings=9, segments=16)),
        _part(TORSO, "body", torso),
    ]


def _hand() -> list[Part]:
    """A right hand at the origin, palm towards the camera, fingers up."""
    palm = ellipsoid((0, 0, 0), (0.20, 0.23, 0.08), rings=7, segments=10)
    fingers = [
        ellipsoid((x, 0.34 - 0.5 * abs(x - 0.02), 0.0), (0.052, 0.19, 0.05), rings=6, segments=7)
        for x in (-0.15, -0.05, 0.05, 0.15)
    ]
    thumb = ellipsoid((-0.24, 0.08, 0.02), (0.11, 0.055, 0.05), rings=6, segments=7)
    sleeve = ellipsoid((0.05, -0.72, -0.05), (0.19, 0.62, 0.17), rings=8, segments=10)
    return [_part(HAND, "hand", join([palm, *fingers, thumb])), _part(SLEEVE, "hand", sleeve)]
