"""Backdrops, light, and the colors and kinds of clothes."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

Picture = NDArray[Any]

CLOTHING_COLORS = {
    "red": (0.78, 0.10, 0.11), "orange": (0.93, 0.48, 0.08), "yellow": (0.93, 0.80, 0.14), "green": (0.12, 0.52, 0.20),
    "blue": (0.12, 0.27, 0.75), "purple": (0.46, 0.18, 0.62), "pink": (0.95, 0.52, 0.68), "white": (0.93, 0.93, 0.92),
    "black": (0.08, 0.08, 0.09), "gray": (0.48, 0.48, 0.50), "brown": (0.42, 0.26, 0.15), "teal": (0.08, 0.52, 0.53),
}  # fmt: skip
GARMENTS = ("sweater", "t-shirt", "shirt", "jacket", "hoodie")


@dataclass(frozen=True, eq=False)
class Light:
    """A key light and ambient light.

    Shapes:
        direction: (3,) towards the light; key, ambient: (3,) colors
    """

    direction: NDArray[np.float32]
    key: NDArray[np.float32]
    ambient: NDArray[np.float32]


def sample_light(rng: np.random.Generator) -> Light:
    direction = np.array([rng.normal(0, 0.55), rng.uniform(0.25, 0.9), rng.uniform(0.7, 1.2)])
    warmth = rng.normal(0, 0.04)
    key = rng.uniform(0.58, 0.78) * np.array([1 + warmth, 1.0, 1 - 1.3 * warmth])
    ambient = rng.uniform(0.40, 0.54) * np.array([1 - 0.5 * warmth, 1.0, 1 + 0.8 * warmth])
    direction /= np.linalg.norm(direction)
    return Light(direction.astype(np.float32), key.astype(np.float32), ambient.astype(np.float32))


def draw_setting(name: str, size_px: int, rng: np.random.Generator, *, width_px: int | None = None) -> Picture:
    """Draw a backdrop, slightly blurred, (height, width, 3) in [0, 1]; `width_px` stretches it."""
    columns, rows = np.linspace(0, 1, width_px or size_px), np.linspace(0, 1, size_px)
    y, x = np.meshgrid(rows, columns, indexing="ij")
    picture = _SETTINGS[name](x + rng.uniform(-0.2, 0.2), y, rng).astype(np.float32)
    picture *= np.float32(rng.uniform(0.85, 1.08))
    return np.clip(_blur(picture, max(1, size_px // 22)), 0, 1)


def _blur(picture: Picture, radius: int) -> Picture:
    for axis in (0, 1):
        edge = [(0, 0)] * 3
        edge[axis] = (radius, radius)
        padded = np.pad(picture, edge, mode="edge")
        size = picture.shape[axis]
        shifted = [np.take(padded, range(k, k + size), axis=axis) for k in range(2 * radius + 1)]
        picture = np.asarray(np.mean(shifted, axis=0), dtype=np.float32)
    return picture


def _blend(low: tuple[float, float, float], high: tuple[float, float, float], amount: Picture) -> Picture:
    return np.array(low) + (np.array(high) - np.array(low)) * np.clip(amount, 0, 1)[..., None]


def _where(mask: Picture, color: tuple[float, float, float], picture: Picture) -> Picture:
    return np.where(mask[..., None], np.array(color), picture)


def _studio(x: Picture, y: Picture, rng: np.random.Generator) -> Picture:
    color = rng.uniform(0.35, 0.85, 3)
    return color * (1.08 - 0.55 * np.hypot(x - 0.5, y - 0.4))[..., None]


def _park(x: Picture, y: Picture, rng: np.random.Generator) -> Picture:
    picture = _blend((0.45, 0.68, 0.92), (0.80, 0.90, 0.98), y * 2)
    crown = 0.38 + 0.10 * np.sin(x * 9 + rng.uniform(0, 6)) + 0.05 * np.sin(x * 23)
    picture = np.where(
        (y > crown)[..., None],
        _blend((0.10, 0.34, 0.10), (0.24, 0.50, 0.18), np.sin(x * 31) * np.sin(y * 27) * 0.5 + 0.5),
        picture,
    )
    return np.where((y > 0.72)[..., None], _blend((0.38, 0.62, 0.22), (0.30, 0.52, 0.18), (y - 0.72) * 4), picture)


def _beach(x: Picture, y: Picture, _rng: np.random.Generator) -> Picture:
    picture = _blend((0.36, 0.66, 0.95), (0.84, 0.93, 0.98), y * 2.1)
    picture = np.where((y > 0.46)[..., None], _blend((0.08, 0.42, 0.62), (0.20, 0.62, 0.70), (y - 0.46) * 4), picture)
    return _where(y > 0.70 + 0.02 * np.sin(x * 12), (0.90, 0.80, 0.58), picture)


def _street(x: Picture, y: Picture, rng: np.random.Generator) -> Picture:
    picture = _blend((0.62, 0.74, 0.88), (0.85, 0.88, 0.92), y)
    shift = rng.uniform(0, 1)
    for index, tone in enumerate(((0.55, 0.42, 0.36), (0.46, 0.46, 0.52), (0.66, 0.58, 0.46), (0.40, 0.36, 0.40))):
        left = (index * 0.32 + shift) % 1.28 - 0.28
        inside = (x > left) & (x < left + 0.30) & (y > 0.12 + 0.12 * ((index * 7 + 3) % 4) / 3)
        window = (np.sin((x - left) * 62) > 0.1) & (np.sin(y * 48) > 0.1)
        picture = _where(inside, tone, picture)
        picture = _where(inside & window, (0.28, 0.36, 0.46), picture)
    return _where(y > 0.86, (0.36, 0.36, 0.38), picture)


def _library(x: Picture, y: Picture, rng: np.random.Generator) -> Picture:
    row, column = np.floor(y * 4), np.floor(x * 15)
    code = np.sin(row * 12.99 + column * 78.23 + rng.uniform(0, 9)) * 43758.5
    hue = (code - np.floor(code))[..., None]
    picture = np.where(
        hue < 0.35,
        np.array([0.50, 0.18, 0.14]),
        np.where(
            hue < 0.6,
            np.array([0.18, 0.30, 0.34]),
            np.where(hue < 0.8, np.array([0.62, 0.50, 0.28]), np.array([0.24, 0.34, 0.20])),
        ),
    )
    picture = picture * (0.72 + 0.36 * hue)
    return _where((y * 4 - row) > 0.84, (0.32, 0.20, 0.11), picture)


def _brick_wall(x: Picture, y: Picture, _rng: np.random.Generator) -> Picture:
    row = np.floor(y * 9)
    column = x * 5 + 0.5 * (row % 2)
    mortar = (y * 9 - row < 0.16) | (column - np.floor(column) < 0.08)
    tone = 0.88 + 0.16 * np.sin(row * 3.1 + np.floor(column) * 5.7)
    return _where(mortar, (0.72, 0.67, 0.62), np.array([0.62, 0.28, 0.20]) * tone[..., None])


def _living_room(x: Picture, y: Picture, rng: np.random.Generator) -> Picture:
    picture = np.ones((*x.shape, 3)) * rng.choice([[0.84, 0.78, 0.68], [0.70, 0.76, 0.78], [0.78, 0.70, 0.70]])
    left = 0.05 if rng.random() < 0.5 else 0.68
    window = (x > left) & (x < left + 0.30) & (y > 0.08) & (y < 0.55)
    picture = _where(window, (0.86, 0.94, 1.0), picture)
    bars = window & ((np.abs(x - left - 0.15) < 0.014) | (np.abs(y - 0.31) < 0.014))
    picture = _where(bars, (0.96, 0.95, 0.93), picture)
    return _where(y > 0.74, (0.44, 0.34, 0.30), picture)


def _kitchen(x: Picture, y: Picture, rng: np.random.Generator) -> Picture:
    lines = (np.abs(np.sin(x * 22)) < 0.14) | (np.abs(np.sin(y * 22)) < 0.14)
    picture = _where(lines, (0.74, 0.78, 0.78), np.ones((*x.shape, 3)) * np.array([0.88, 0.92, 0.91]))
    picture = _where(y < 0.22, tuple(rng.choice([[0.50, 0.32, 0.20], [0.30, 0.46, 0.52], [0.70, 0.66, 0.58]])), picture)
    return _where(y > 0.80, (0.34, 0.34, 0.36), picture)


def _mountains(x: Picture, y: Picture, rng: np.random.Generator) -> Picture:
    picture = _blend((0.40, 0.62, 0.90), (0.90, 0.92, 0.95), y * 1.8)
    far = 0.34 + 0.12 * np.abs(((x * 2.1 + rng.uniform(0, 1)) % 1) - 0.5) * 2
    near = 0.54 + 0.14 * np.abs(((x * 1.7 + rng.uniform(0, 1)) % 1) - 0.5) * 2
    picture = np.where((y > far)[..., None], _blend((0.92, 0.94, 0.97), (0.42, 0.48, 0.58), (y - far) * 7), picture)
    return _where(y > near, (0.20, 0.34, 0.26), picture)


def _night_city(x: Picture, y: Picture, rng: np.random.Generator) -> Picture:
    picture = _blend((0.05, 0.06, 0.16), (0.16, 0.12, 0.24), y)
    for _ in range(14):
        color = np.array([[1.0, 0.75, 0.30], [1.0, 0.45, 0.35], [0.45, 0.70, 1.0], [0.95, 0.90, 0.75]][rng.integers(4)])
        spot = np.hypot(x - rng.uniform(0, 1), y - rng.uniform(0.15, 0.9))
        radius = rng.uniform(0.03, 0.08)
        picture = picture + np.clip((radius - spot) / 0.02, 0, 1)[..., None] * color * 0.55
    return picture


_SETTINGS: dict[str, Callable[[Picture, Picture, np.random.Generator], Picture]] = {
    "studio": _studio, "park": _park, "beach": _beach, "street": _street, "library": _library,
    "brick wall": _brick_wall, "living room": _living_room, "kitchen": _kitchen, "mountains": _mountains,
    "night city": _night_city,
}  # fmt: skip
SETTINGS = tuple(_SETTINGS)
