"""Colors of cheeks and clothing, for comparison with a prompt or a photograph.

Two pictures of one face differ mostly in exposure, so one gain on linear light first brings both to the same luminance.
The remaining difference is CIE Delta E 2000.
"""

import numpy as np
from skimage.color import deltaE_ciede2000, rgb2lab

from likeness.puppets import CLOTHING_COLORS

CHEEK_PATCH = 0.16
"""Side of the patch on a cheek, in distances between the outer eye corners."""

SHADING = 0.78
"""Brightness of rendered cloth as a share of its own color, under light from above."""
LIGHTNESS_WEIGHT = 0.7


def cheek_color(picture: np.ndarray, landmarks: np.ndarray) -> np.ndarray:
    """The median color of the brighter half of both cheeks' pixels, which beard and shadow affect least.

    Shapes:
        picture: (height, width, 3) uint8
        landmarks: (5, 2) px
        returns: (3,) float64, linear RGB in [0, 1]
    """
    left, right, nose = landmarks[0], landmarks[3], landmarks[4]
    across = right - left
    down = nose - (left + right) / 2
    half = max(0.5, CHEEK_PATCH * float(np.linalg.norm(across)) / 2)
    patches = []
    for side in (0.2, 0.8):  # Below the middle of each eye, at the height of the nose's wings.
        x, y = left + side * across + 0.85 * down
        rows, columns = _span(y, half, picture.shape[0]), _span(x, half, picture.shape[1])
        patches.append(picture[rows, columns].reshape(-1, 3))
    pixels = to_linear(np.concatenate(patches))
    luminances = luminance(pixels)
    return np.median(pixels[luminances >= np.median(luminances)], axis=0)


def skin_difference(photograph: np.ndarray, video: np.ndarray) -> float:
    """CIE Delta E 2000 of two linear colors, the photograph's exposure matched to the video's."""
    gain = float(luminance(video) / max(float(luminance(photograph)), 1e-6))
    matched = np.clip(photograph * gain, 0, 1)
    return float(deltaE_ciede2000(rgb2lab(to_encoded(matched)), rgb2lab(to_encoded(video))))


def luminance(linear: np.ndarray) -> np.ndarray:
    """CIE Y of linear sRGB, over the last axis."""
    return linear @ np.array([0.2126, 0.7152, 0.0722])


def to_linear(pixels: np.ndarray) -> np.ndarray:
    """SRGB bytes to linear light in [0, 1]."""
    encoded = np.asarray(pixels, dtype=np.float64) / 255
    return np.where(encoded <= 0.04045, encoded / 12.92, ((encoded + 0.055) / 1.055) ** 2.4)


def to_encoded(linear: np.ndarray) -> np.ndarray:
    """Linear light in [0, 1] to sRGB in [0, 1]."""
    linear = np.clip(linear, 0, 1)
    return np.where(linear <= 0.0031308, 12.92 * linear, 1.055 * linear ** (1 / 2.4) - 0.055)


def clothing_color(frames: np.ndarray) -> np.ndarray:
    """The median color of the clothing: the middle of the lowest rows, over all frames.

    Shapes:
        frames: (frames, height, width, 3) uint8
        returns: (3,) float64, CIE Lab
    """
    _, height, width, _ = frames.shape
    region = frames[:, round(0.93 * height) :, round(0.3 * width) : round(0.7 * width)]
    return rgb2lab(np.median(region.reshape(-1, 3), axis=0) / 255)


def name_clothing(frames: np.ndarray) -> str:
    """The nearest color name of `CLOTHING_COLORS`; lightness varies more than hue, so its weight is lower."""
    weights = np.array([LIGHTNESS_WEIGHT, 1.0, 1.0])
    palette = rgb2lab(SHADING * np.array(list(CLOTHING_COLORS.values())))
    distances = np.linalg.norm((palette - clothing_color(frames)) * weights, axis=1)
    return list(CLOTHING_COLORS)[int(distances.argmin())]


def _span(center: float, half: float, size: int) -> slice:
    start = int(np.clip(np.floor(center - half), 0, size - 1))
    return slice(start, int(np.clip(np.ceil(center + half), start + 1, size)))
