"""A puppet's identity: a vector of numbers, sampled for one of seven groups.

Geometry is made of it in `shape` and `body_parts`, colors in `rendering.paint`, motion in `scenes.performance`.
"""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from likeness.errors import ConfigError

GROUPS = ("man", "woman", "elderly man", "elderly woman", "boy", "girl", "baby")

# Shape numbers are in standard deviations; the others are in [0, 1] unless a comment says otherwise.
SHAPE_NUMBERS = (
    "skull_width", "skull_height", "skull_depth", "forehead_slope",
    "face_width", "face_length", "jaw_width", "jaw_corner", "chin_length", "chin_width", "chin_forward",
    "cheekbone_width", "cheekbone_height", "cheek_fullness",
    "nose_length", "nose_width", "nose_height", "nose_bridge", "nose_hook", "nostril_width", "nose_tip",
    "eye_spacing", "eye_height", "eye_size", "eye_opening", "eye_tilt", "eye_depth", "lid_crease",
    "brow_height", "brow_thickness", "brow_arch", "brow_slant", "brow_ridge", "brow_gap",
    "mouth_width", "mouth_height", "upper_lip", "lower_lip", "lip_curve",
    "ear_size", "ear_angle", "neck_width", "shoulder_width",
)  # fmt: skip
COLOR_NUMBERS = (
    "skin_tone", "skin_warmth", "skin_rosiness", "hair_red", "hair_green", "hair_blue", "brow_darkness",
    "iris_red", "iris_green", "iris_blue", "lip_redness",
)  # fmt: skip
LOOK_NUMBERS = (
    "age", "freckles", "hair_style", "hair_volume", "hair_length", "hairline", "hair_part", "hair_wave",
    "beard_style", "beard_density", "glasses_style", "glasses_size", "glasses_tone", "eyeliner",
)  # fmt: skip
IDENTITY_NUMBERS = SHAPE_NUMBERS + COLOR_NUMBERS + LOOK_NUMBERS
NUM_IDENTITY = len(IDENTITY_NUMBERS)
_INDEX = {name: index for index, name in enumerate(IDENTITY_NUMBERS)}

HAIR_STYLES = (
    "bald",
    "receding",
    "buzz",
    "short",
    "side part",
    "fringe",
    "bob",
    "long",
    "bun",
    "afro",
    "curly",
    "ponytail",
)
BEARD_STYLES = ("none", "stubble", "mustache", "goatee", "full")
GLASSES_STYLES = ("none", "round", "square")

SKIN_TONES = np.array(
    [
        [255, 224, 205], [246, 205, 178], [236, 188, 152], [219, 166, 124],
        [196, 138, 98], [164, 110, 76], [130, 86, 60], [100, 66, 48],
    ],
    dtype=np.float32,
) / 255.0  # fmt: skip
HAIR_COLORS = {
    "black": (0.09, 0.08, 0.09), "dark brown": (0.20, 0.13, 0.09), "brown": (0.36, 0.22, 0.13),
    "auburn": (0.45, 0.19, 0.11), "red": (0.68, 0.28, 0.10), "blond": (0.82, 0.65, 0.36),
    "platinum": (0.90, 0.84, 0.68), "gray": (0.58, 0.58, 0.60), "white": (0.88, 0.88, 0.89),
}  # fmt: skip
IRIS_COLORS = (
    (0.30, 0.18, 0.09),
    (0.22, 0.13, 0.07),
    (0.28, 0.46, 0.66),
    (0.30, 0.48, 0.30),
    (0.48, 0.40, 0.22),
    (0.42, 0.48, 0.52),
)


@dataclass(frozen=True, eq=False)
class PuppetPerson:
    """The identity of a synthetic person.

    Shapes:
        numbers: (NUM_IDENTITY,) float32, in the order of `IDENTITY_NUMBERS`
    """

    group: str
    numbers: NDArray[np.float32]

    def __getitem__(self, name: str) -> float:
        return float(self.numbers[_INDEX[name]])

    @property
    def hair_style(self) -> str:
        return HAIR_STYLES[int(self["hair_style"])]

    @property
    def beard_style(self) -> str:
        return BEARD_STYLES[int(self["beard_style"])]

    @property
    def glasses_style(self) -> str:
        return GLASSES_STYLES[int(self["glasses_style"])]

    @property
    def is_child(self) -> bool:
        return self.group in ("boy", "girl", "baby")

    @property
    def skin(self) -> NDArray[np.float32]:
        """Skin color, (3,) in [0, 1]."""
        place = np.clip(self["skin_tone"], 0, 1) * (len(SKIN_TONES) - 1.001)
        low = int(place)
        color = SKIN_TONES[low] + (place - low) * (SKIN_TONES[low + 1] - SKIN_TONES[low])
        warm = 0.035 * (self["skin_warmth"] - 0.5)
        return np.clip(color + np.array([warm, 0.0, -1.3 * warm], dtype=np.float32), 0.02, 1.0)

    @property
    def hair_color(self) -> NDArray[np.float32]:
        """Hair color, (3,) in [0, 1]."""
        return np.array([self["hair_red"], self["hair_green"], self["hair_blue"]], dtype=np.float32)

    @property
    def hair_color_name(self) -> str:
        """The nearest name in `HAIR_COLORS`."""
        return min(HAIR_COLORS, key=lambda name: float(np.abs(np.array(HAIR_COLORS[name]) - self.hair_color).sum()))


# Mean of some shape numbers in each group, in standard deviations.
_SHIFTS: dict[str, dict[str, float]] = {
    "man": {
        "jaw_width": 0.7, "jaw_corner": 0.8, "brow_thickness": 0.9, "brow_ridge": 0.8, "brow_height": -0.5,
        "neck_width": 0.9, "nose_width": 0.3, "nose_length": 0.3, "shoulder_width": 0.8, "upper_lip": -0.4,
        "chin_length": 0.3,
    },
    "woman": {
        "jaw_width": -0.6, "jaw_corner": -0.6, "brow_thickness": -0.5, "brow_arch": 0.7, "eye_size": 0.6,
        "upper_lip": 0.5, "lower_lip": 0.4, "neck_width": -0.8, "shoulder_width": -0.7, "nose_width": -0.4,
        "cheekbone_width": 0.3,
    },
    "boy": {
        "face_length": -1.0, "jaw_width": -0.5, "nose_length": -1.2, "nose_height": -0.9, "eye_size": 1.0,
        "cheek_fullness": 0.9, "chin_length": -0.8, "neck_width": -1.8, "shoulder_width": -1.6,
        "brow_thickness": -0.3, "skull_height": 0.6, "eye_height": -0.5,
    },
    "baby": {
        "face_length": -1.8, "jaw_width": -0.2, "nose_length": -1.9, "nose_height": -1.6, "eye_size": 1.4,
        "cheek_fullness": 2.0, "chin_length": -1.5, "neck_width": -2.4, "shoulder_width": -2.4,
        "brow_thickness": -1.4, "skull_height": 1.3, "skull_width": 0.8, "eye_height": -1.2,
        "nose_width": -0.4, "mouth_width": -0.9, "brow_height": 0.4,
    },
}  # fmt: skip
_SHIFTS["girl"] = {
    **_SHIFTS["boy"],
    "brow_thickness": -0.8,
    "brow_arch": 0.5,
    "upper_lip": 0.4,
    "eye_size": 1.2,
}
_SHIFTS["elderly man"] = {
    **_SHIFTS["man"],
    "cheek_fullness": -1.0,
    "nose_length": 0.9,
    "ear_size": 1.2,
    "upper_lip": -0.9,
    "eye_opening": -0.7,
}
_SHIFTS["elderly woman"] = {
    **_SHIFTS["woman"],
    "cheek_fullness": -0.6,
    "nose_length": 0.5,
    "ear_size": 0.8,
    "upper_lip": -0.6,
    "eye_opening": -0.6,
}

_HAIR_CHANCES: dict[str, tuple[float, ...]] = {  # in the order of HAIR_STYLES
    "man": (0.12, 0.10, 0.14, 0.24, 0.18, 0.04, 0.02, 0.05, 0.00, 0.05, 0.06, 0.00),
    "woman": (0.00, 0.00, 0.02, 0.10, 0.08, 0.12, 0.18, 0.24, 0.08, 0.06, 0.06, 0.06),
    "elderly man": (0.22, 0.38, 0.08, 0.16, 0.14, 0.00, 0.00, 0.02, 0.00, 0.00, 0.00, 0.00),
    "elderly woman": (0.00, 0.02, 0.00, 0.18, 0.10, 0.12, 0.20, 0.06, 0.16, 0.00, 0.16, 0.00),
    "boy": (0.00, 0.00, 0.16, 0.36, 0.16, 0.20, 0.02, 0.00, 0.00, 0.05, 0.05, 0.00),
    "girl": (0.00, 0.00, 0.00, 0.06, 0.06, 0.24, 0.20, 0.20, 0.06, 0.04, 0.04, 0.10),
    "baby": (0.40, 0.00, 0.40, 0.20, 0.00, 0.00, 0.00, 0.00, 0.00, 0.00, 0.00, 0.00),
}
_BEARD_CHANCES = {"man": (0.46, 0.16, 0.10, 0.10, 0.18), "elderly man": (0.50, 0.10, 0.14, 0.08, 0.18)}
_GLASSES_CHANCES = {
    "man": 0.22,
    "woman": 0.22,
    "elderly man": 0.3,
    "elderly woman": 0.3,
    "boy": 0.12,
    "girl": 0.12,
    "baby": 0.0,
}


def sample_person(seed: int, group: str | None = None) -> PuppetPerson:
    """Sample a person with numbers that are plausible for the group.

    Args:
        seed: The same seed gives the same person.
        group: One of `GROUPS`; sampled if None.

    Raises:
        ConfigError: `group` is not one of `GROUPS`.
    """
    rng = np.random.default_rng([seed, 7001])
    drawn = GROUPS[rng.choice(len(GROUPS), p=(0.26, 0.26, 0.12, 0.12, 0.09, 0.09, 0.06))]
    group = drawn if group is None else group
    if group not in GROUPS:
        raise ConfigError(f"Group `{group}` is unknown. Known groups: {', '.join(GROUPS)}.")
    values = {name: float(np.clip(rng.normal(), -2.0, 2.0)) for name in SHAPE_NUMBERS}
    spread = 0.7 if group in ("boy", "girl", "baby") else 0.9
    for name in SHAPE_NUMBERS:
        values[name] = values[name] * spread + _SHIFTS[group].get(name, 0.0)
    values |= _sample_colors(rng, group)
    values |= _sample_look(rng, group)
    return PuppetPerson(group, np.array([values[name] for name in IDENTITY_NUMBERS], dtype=np.float32))


def _sample_colors(rng: np.random.Generator, group: str) -> dict[str, float]:
    elderly, fair = group.startswith("elderly"), float(rng.random())
    skin_tone = float(np.clip(rng.beta(1.1, 1.1), 0, 1))
    if elderly:
        names, chances = ("white", "gray", "platinum", "brown", "black"), (0.42, 0.38, 0.06, 0.07, 0.07)
    elif skin_tone > 0.55 and fair < 0.85:
        names, chances = ("black", "dark brown", "brown", "auburn"), (0.62, 0.24, 0.09, 0.05)
    else:
        names = ("black", "dark brown", "brown", "auburn", "red", "blond", "platinum", "gray")
        chances = (0.17, 0.17, 0.19, 0.09, 0.12, 0.17, 0.06, 0.03)
    hair = np.array(HAIR_COLORS[names[rng.choice(len(names), p=chances)]])
    hair = np.clip(hair * rng.uniform(0.82, 1.18) + rng.normal(0, 0.015, 3), 0.03, 0.95)
    iris_pool = IRIS_COLORS[:2] if skin_tone > 0.6 else IRIS_COLORS
    iris = np.clip(np.array(iris_pool[rng.integers(len(iris_pool))]) * rng.uniform(0.85, 1.2), 0, 1)
    return {
        "skin_tone": skin_tone, "skin_warmth": rng.random(), "skin_rosiness": rng.random(),
        "hair_red": hair[0], "hair_green": hair[1], "hair_blue": hair[2], "brow_darkness": rng.uniform(0.55, 0.95),
        "iris_red": iris[0], "iris_green": iris[1], "iris_blue": iris[2],
        "lip_redness": rng.uniform(0.45, 1.0) if group in ("woman", "elderly woman") else rng.uniform(0.05, 0.5),
    }  # fmt: skip


def _sample_look(rng: np.random.Generator, group: str) -> dict[str, float]:
    ages = {"elderly man": (0.75, 1.0), "elderly woman": (0.7, 1.0), "man": (0.1, 0.6), "woman": (0.05, 0.5)}
    low, high = ages.get(group, (0.0, 0.0))
    style = int(rng.choice(len(HAIR_STYLES), p=np.array(_HAIR_CHANCES[group]) / sum(_HAIR_CHANCES[group])))
    beard = int(rng.choice(len(BEARD_STYLES), p=_BEARD_CHANCES[group])) if group in _BEARD_CHANCES else 0
    glasses = int(rng.integers(1, 3)) if rng.random() < _GLASSES_CHANCES[group] else 0
    return {
        "age": rng.uniform(low, high), "freckles": max(0.0, rng.uniform(-1.2, 1.0)), "hair_style": style,
        "hair_volume": rng.random(), "hair_length": rng.random(), "hairline": rng.random(), "hair_part": rng.random(),
        "hair_wave": rng.random(), "beard_style": beard, "beard_density": rng.uniform(0.6, 1.0),
        "glasses_style": glasses, "glasses_size": rng.random(), "glasses_tone": rng.random(),
        "eyeliner": rng.uniform(0.3, 1.0) if group in ("woman", "girl") else rng.uniform(0.0, 0.25),
    }  # fmt: skip
