"""Rasterizer with a depth buffer; it stores body part, rest coordinates and normal per pixel. Compiled with numba."""

from math import exp, floor

import numpy as np
from numba import njit

HEAD, EAR, NECK, TORSO, HAIR, HAIR_SHEET, GLASSES, HAND, SLEEVE, EMPTY = range(10)
# Settings of a hair line, in order: front, temple, side, nape, crown opening, part, wave, edge noise.
NUM_HAIR = 8


@njit(cache=True, fastmath=True)
def hair_inside(x, y, z, hair):
    """Distance of a scalp point inside the hair line, in head units; negative on bare skin."""
    around = np.arctan2(abs(x), z + 1e-6) * 57.2958  # Degrees from the front; the edge height is piecewise linear.
    if around < 38.0:
        edge = hair[0]
    elif around < 62.0:
        edge = hair[0] + (hair[1] - hair[0]) * (around - 38.0) / 24.0
    elif around < 84.0:
        edge = hair[1] + (hair[2] - hair[1]) * (around - 62.0) / 22.0
    elif around < 100.0:
        edge = hair[2]
    elif around < 125.0:
        edge = hair[2] + (hair[3] - hair[2]) * (around - 100.0) / 25.0
    else:
        edge = hair[3]
    edge += hair[7] * (np.sin(23.0 * x + 5.0) + 0.6 * np.sin(51.0 * x + 17.0 * z)) * 0.018
    if around < 60.0:
        edge += hair[5] * x * 0.55
    inside = y - edge
    if hair[4] > 0.0:
        opening = hair[4] - (y - 0.35) * 0.0 - np.sqrt(x * x + (z - 0.25) * (z - 0.25)) * 1.0
        if y > 0.45 and -opening < inside:
            inside = -opening
    return inside


@njit(cache=True, fastmath=True)
def hair_depths(points, hair):
    """`hair_inside` of (points, 3), as (points,)."""
    inside = np.empty(len(points), dtype=np.float64)
    for index in range(len(points)):
        inside[index] = hair_inside(points[index, 0], points[index, 1], points[index, 2], hair)
    return inside


@njit(cache=True, fastmath=True)
def vertex_normals(vertices, triangles):
    """Area-weighted normals, (vertices, 3)."""
    normals = np.zeros_like(vertices)
    for index in range(triangles.shape[0]):
        a, b, c = triangles[index, 0], triangles[index, 1], triangles[index, 2]
        ux, uy, uz = (
            vertices[b, 0] - vertices[a, 0],
            vertices[b, 1] - vertices[a, 1],
            vertices[b, 2] - vertices[a, 2],
        )
        vx, vy, vz = (
            vertices[c, 0] - vertices[a, 0],
            vertices[c, 1] - vertices[a, 1],
            vertices[c, 2] - vertices[a, 2],
        )
        nx, ny, nz = uy * vz - uz * vy, uz * vx - ux * vz, ux * vy - uy * vx
        for corner in (a, b, c):
            normals[corner, 0] += nx
            normals[corner, 1] += ny
            normals[corner, 2] += nz
    for index in range(normals.shape[0]):
        length = np.sqrt(normals[index, 0] ** 2 + normals[index, 1] ** 2 + normals[index, 2] ** 2) + 1e-12
        for axis in range(3):
            normals[index, axis] /= length
    return normals


@njit(cache=True, fastmath=True)
def rasterize(screen, depth, normals, rest, triangles, parts, hair, part, place, normal):
    """Fill the pixel buffers with the nearest surface.

    Shapes:
        screen: (vertices, 2) in pixels; depth: (vertices,), larger is nearer
        normals, rest: (vertices, 3); triangles: (triangles, 3); parts: (triangles,)
        part: (height, width) int8; place, normal: (height, width, 3), written
    """
    height, width = part.shape
    nearest = np.full((height, width), -1e9, dtype=np.float32)
    for index in range(triangles.shape[0]):
        a, b, c = triangles[index, 0], triangles[index, 1], triangles[index, 2]
        ax, ay, bx, by, cx, cy = (
            screen[a, 0],
            screen[a, 1],
            screen[b, 0],
            screen[b, 1],
            screen[c, 0],
            screen[c, 1],
        )
        area = (bx - ax) * (cy - ay) - (by - ay) * (cx - ax)
        kind = parts[index]
        if abs(area) < 1e-9 or (area > 0 and kind in (HEAD, EAR, NECK)):
            continue  # Back faces: the picture's y axis points down, so front faces have a negative area.
        left, right = max(0, floor(min(ax, bx, cx))), min(width - 1, int(max(ax, bx, cx)) + 1)
        top, bottom = max(0, floor(min(ay, by, cy))), min(height - 1, int(max(ay, by, cy)) + 1)
        scale = 1.0 / area
        for row in range(top, bottom + 1):
            py = row + 0.5
            for column in range(left, right + 1):
                px = column + 0.5
                # Barycentric weights of the pixel center.
                wa = ((bx - px) * (cy - py) - (by - py) * (cx - px)) * scale
                wb = ((cx - px) * (ay - py) - (cy - py) * (ax - px)) * scale
                wc = 1.0 - wa - wb
                if wa < 0.0 or wb < 0.0 or wc < 0.0:
                    continue
                near = wa * depth[a] + wb * depth[b] + wc * depth[c]
                if near <= nearest[row, column]:
                    continue
                x = wa * rest[a, 0] + wb * rest[b, 0] + wc * rest[c, 0]
                y = wa * rest[a, 1] + wb * rest[b, 1] + wc * rest[c, 1]
                z = wa * rest[a, 2] + wb * rest[b, 2] + wc * rest[c, 2]
                if kind == HAIR and hair_inside(x, y, z, hair) < 0.0:
                    continue
                nearest[row, column] = near
                part[row, column] = kind
                place[row, column, 0], place[row, column, 1], place[row, column, 2] = x, y, z
                for axis in range(3):
                    normal[row, column, axis] = wa * normals[a, axis] + wb * normals[b, axis] + wc * normals[c, axis]


@njit(cache=True, fastmath=True)
def average_down(picture, factor):
    """Box-filter a (height, width, channels) float picture by an integer factor."""
    height, width = picture.shape[0] // factor, picture.shape[1] // factor
    smaller = np.zeros((height, width, picture.shape[2]), dtype=np.float32)
    scale = 1.0 / (factor * factor)
    for row in range(height):
        for column in range(width):
            for down in range(factor):
                for right in range(factor):
                    for channel in range(picture.shape[2]):
                        smaller[row, column, channel] += (
                            picture[row * factor + down, column * factor + right, channel] * scale
                        )
    return smaller


@njit(cache=True, fastmath=True)
def bell(value, width):
    """exp(-(value / width)^2)."""
    return exp(-(value / width) * (value / width))


@njit(cache=True, fastmath=True)
def ramp(low, high, value):
    """Smoothstep from 0 at `low` to 1 at `high`."""
    place = (value - low) / (high - low)
    place = min(max(place, 0.0), 1.0)
    return place * place * (3.0 - 2.0 * place)
