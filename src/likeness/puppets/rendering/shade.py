"""Shading of rasterized pixels: skin, hair, cloth. Compiled with numba.

Numba's cache checks this file only: after a change in `paint`, delete the cached `*.nb*` files.
"""

import numpy as np
from numba import njit

from likeness.puppets.rendering import paint, raster


@njit(cache=True, fastmath=True)
def shade(part, place, normal, face, expression, colors, direction, key, ambient, soft, picture):
    """Shade every pixel that is not empty; `colors` are those of hair, clothing, glasses frame and skin."""
    color = np.zeros(3, dtype=np.float32)
    for row in range(part.shape[0]):
        for column in range(part.shape[1]):
            kind = part[row, column]
            if kind == raster.EMPTY:
                continue
            x, y, z = place[row, column, 0], place[row, column, 1], place[row, column, 2]
            nx, ny, nz = normal[row, column, 0], normal[row, column, 1], normal[row, column, 2]
            length = np.sqrt(nx * nx + ny * ny + nz * nz) + 1e-9
            nx, ny, nz = nx / length, ny / length, nz / length
            # Thin sheets are two-sided.
            if nz < 0.0 and kind in (raster.HAIR, raster.HAIR_SHEET, raster.GLASSES):
                nx, ny, nz = -nx, -ny, -nz
            gloss, shadow = 0.05, 1.0
            if kind == raster.HEAD:
                gloss = paint.face_color(x, y, z, face, expression, soft, color)
                shadow = 1.0 - 0.30 * raster.ramp(-0.55, -0.95, y) * raster.ramp(0.55, 0.1, z)
            elif kind in (raster.EAR, raster.NECK, raster.HAND):
                color[:] = colors[3]
                if kind == raster.EAR:
                    color[1] *= 0.92
                    color[2] *= 0.90
                    shadow = 1.0 - 0.25 * raster.bell(y - 0.03, 0.09)
                if kind == raster.NECK:
                    shadow = 1.0 - 0.42 * raster.ramp(-1.30, -0.80, y)
            elif kind in (raster.HAIR, raster.HAIR_SHEET):
                around = np.arctan2(x, z)
                strand = np.sin(around * 41.0 + 3.0 * np.sin(y * 5.0)) * 0.5 + np.sin(around * 87.0 + y * 3.0) * 0.3
                band = raster.bell(ny - 0.55 + 0.05 * strand, 0.22)
                bright = 0.86 + 0.15 * strand + 0.34 * band
                for channel in range(3):
                    color[channel] = colors[0, channel] * bright + 0.03 * band
                shadow = 1.0 - 0.30 * raster.ramp(0.0, -1.2, y)
            elif kind in (raster.TORSO, raster.SLEEVE):
                color[:] = colors[1]
                if kind == raster.TORSO:
                    neck_line = -1.33 + 0.5 * x * x - 0.0
                    if y > neck_line and z > -0.1 and abs(x) < 0.5:
                        color[:] = colors[1] * 0.72
                    shadow = (1.0 - 0.30 * raster.bell(x, 0.55) * raster.ramp(-1.65, -1.2, y)) * (
                        0.95 + 0.06 * np.sin(x * 9.0 + y * 4.0)
                    )
            else:
                color[:] = colors[2]
                gloss = 0.5
            # Wrapped diffuse key light, Blinn-Phong highlight, and ambient light from above.
            facing = nx * direction[0] + ny * direction[1] + nz * direction[2]
            wrapped = max(0.0, (facing + 0.28) / 1.28)
            half_x, half_y, half_z = direction[0], direction[1], direction[2] + 1.0
            half = np.sqrt(half_x * half_x + half_y * half_y + half_z * half_z)
            glint = max(0.0, (nx * half_x + ny * half_y + nz * half_z) / half) ** 24 * gloss
            sky = 0.86 + 0.18 * ny - 0.10 * (1.0 - abs(nz))
            for channel in range(3):
                value = (
                    color[channel] * shadow * (key[channel] * wrapped + ambient[channel] * sky)
                    + 0.35 * glint * key[channel]
                )
                picture[row, column, channel] = min(1.0, value)
