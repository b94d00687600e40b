"""A person's face as the array of numbers that the painter reads."""

import numpy as np
from numpy.typing import NDArray

from likeness.puppets.people.anatomy import PuppetPerson
from likeness.puppets.rendering.paint import (
    AGE,
    BEARD_COLOR,
    BEARD_DENSITY,
    BEARD_STYLE,
    BROW_COLOR,
    EYELINER,
    FRECKLES,
    IRIS_COLOR,
    LIP_COLOR,
    NUM_FACE,
    ROSINESS,
    SKIN,
)


def face_settings(person: PuppetPerson, positions: dict[str, float]) -> NDArray[np.float32]:
    """Pack what `rendering.paint.face_color` reads of a person into one array, (NUM_FACE,).

    Args:
        person: The person.
        positions: From `shape.feature_positions`; the first 18 values are copied in their order.
    """
    settings = np.zeros(NUM_FACE, dtype=np.float32)
    settings[:18] = list(positions.values())[:18]
    skin, hair = person.skin, person.hair_color
    settings[SKIN : SKIN + 3] = skin
    settings[BROW_COLOR : BROW_COLOR + 3] = hair * person["brow_darkness"] * (0.72 if hair.mean() > 0.5 else 1.0)
    settings[IRIS_COLOR : IRIS_COLOR + 3] = [person["iris_red"], person["iris_green"], person["iris_blue"]]
    red = np.array([0.70, 0.22, 0.24], dtype=np.float32) * (0.45 + 0.65 * float(skin.mean()))
    lip = 0.35 + 0.45 * person["lip_redness"]
    settings[LIP_COLOR : LIP_COLOR + 3] = skin * (1 - lip) + red * lip
    settings[BEARD_COLOR : BEARD_COLOR + 3] = hair * 0.85
    settings[AGE], settings[FRECKLES] = person["age"], person["freckles"] * float(skin.mean() > 0.55)
    settings[ROSINESS], settings[EYELINER] = person["skin_rosiness"], person["eyeliner"]
    settings[BEARD_STYLE], settings[BEARD_DENSITY] = person["beard_style"], person["beard_density"]
    return settings
