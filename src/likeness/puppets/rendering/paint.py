"""Face colors: eyes, brows, lips, beard and wrinkles, painted in rest coordinates. Compiled with numba."""

import numpy as np
from numba import njit

from likeness.puppets.rendering.raster import bell, ramp

# Places in the array of face settings.
(
    EYE_X, EYE_Y, EYE_WIDTH, EYE_OPENING, EYE_TILT, LID_CREASE,
    BROW_Y, BROW_THICKNESS, BROW_ARCH, BROW_SLANT, BROW_INNER,
    NOSE_Y, NOSE_WIDTH, MOUTH_Y, MOUTH_WIDTH, UPPER_LIP, LOWER_LIP, LIP_CURVE,
    SKIN, BROW_COLOR, IRIS_COLOR, LIP_COLOR, BEARD_COLOR,
) = (*range(18), 18, 21, 24, 27, 30)  # fmt: skip
AGE, FRECKLES, ROSINESS, EYELINER, BEARD_STYLE, BEARD_DENSITY, NUM_FACE = 33, 34, 35, 36, 37, 38, 39
# Places in the array of one frame's expression.
SMILE, JAW, BROWS, CLOSED_LEFT, CLOSED_RIGHT, GAZE_X, GAZE_Y, TEETH, NUM_EXPRESSION = range(9)


@njit(cache=True, fastmath=True, inline="never")
def _mix(color, red, green, blue, amount):
    color[0] += (red - color[0]) * amount
    color[1] += (green - color[1]) * amount
    color[2] += (blue - color[2]) * amount


@njit(cache=True, fastmath=True)
def _darken(color, amount):
    color[0] *= 1.0 - amount
    color[1] *= 1.0 - 1.08 * amount
    color[2] *= 1.0 - 1.10 * amount


@njit(cache=True, fastmath=True)
def _paint_skin(x, y, face, expression, color):
    """Blush, folds, freckles, and shadows of details finer than the mesh."""
    ax, age = abs(x), face[AGE]
    rosy = 0.05 + 0.16 * face[ROSINESS]
    blush = bell(ax - 0.42, 0.16) * bell(y + 0.17, 0.14) + 0.8 * bell(x, 0.09) * bell(y - face[NOSE_Y] - 0.05, 0.09)
    _mix(color, min(1.0, color[0] * 1.08), color[1] * 0.72, color[2] * 0.70, min(0.6, rosy * blush * 1.6))
    _darken(color, 0.28 * bell(ax - face[EYE_X] + 0.03, 0.19) * bell(y - face[EYE_Y] - 0.04, 0.10))
    _darken(color, 0.20 * bell(ax - face[EYE_X] + 0.12, 0.08) * bell(y - face[EYE_Y] - 0.02, 0.10))
    under = face[NOSE_Y]
    light = 0.9 * bell(x, 0.055) * ramp(under - 0.02, under + 0.06, y) * ramp(0.30, 0.05, y) + 0.55 * bell(
        ax - 0.30, 0.13
    ) * bell(y + 0.13, 0.09)
    light += 0.5 * bell(x, 0.30) * bell(y - 0.56, 0.13)
    _mix(color, 1.0, 0.93, 0.85, 0.15 * light)
    _darken(color, 0.30 * bell(ax, face[NOSE_WIDTH] + 0.02) * bell(y - under + 0.045, 0.035))
    _darken(color, 0.70 * bell(ax - 0.50 * face[NOSE_WIDTH], 0.036) * bell(y - under - 0.002, 0.022))
    _darken(color, 0.22 * bell(ax - face[NOSE_WIDTH] - 0.03, 0.022) * bell(y - under - 0.02, 0.05))
    _darken(color, 0.16 * bell(x, 0.16) * bell(y - face[MOUTH_Y] + 0.135, 0.030))
    # Nasolabial folds; deeper with age and smiling.
    fold_x = face[NOSE_WIDTH] + 0.03 + (under - y + 0.02) * 0.55
    fold = (
        bell(ax - fold_x, 0.020)
        * ramp(under + 0.05, under - 0.02, y)
        * ramp(face[MOUTH_Y] - 0.12, face[MOUTH_Y] + 0.02, y)
    )
    _darken(color, min(0.5, (0.04 + 0.36 * age + 0.22 * expression[SMILE]) * fold))
    if age > 0.3:
        lines = 0.5 + 0.5 * np.cos((y - 0.44) * 75.0 + 2.0 * x * x)
        _darken(
            color,
            (age - 0.3)
            * 0.42
            * lines**4
            * bell(x, 0.36)
            * ramp(face[BROW_Y] + 0.08, face[BROW_Y] + 0.14, y)
            * ramp(0.80, 0.62, y),
        )
        spread = np.arctan2(y - face[EYE_Y], ax - face[EYE_X] - face[EYE_WIDTH] * 0.6)
        feet = (
            (0.5 + 0.5 * np.cos(spread * 14.0)) ** 3
            * bell(ax - face[EYE_X] - face[EYE_WIDTH] - 0.075, 0.06)
            * bell(y - face[EYE_Y], 0.09)
        )
        _darken(color, (age - 0.3) * 0.45 * feet)
        _darken(
            color,
            (age - 0.2) * 0.34 * bell(ax - face[EYE_X] + 0.02, 0.11) * bell(y - face[EYE_Y] + 0.125, 0.022),
        )
    if face[FRECKLES] > 0.05:
        spots = np.sin(x * 83.0 + 11.0 * np.sin(y * 37.0)) * np.sin(y * 91.0 + 7.0 * np.sin(x * 45.0))
        _darken(
            color,
            0.40 * face[FRECKLES] * ramp(0.35, 0.8, spots) * bell(ax - 0.28, 0.26) * bell(y + 0.08, 0.16),
        )


@njit(cache=True, fastmath=True)
def _paint_beard(x, y, z, face, color):
    style, ax = int(face[BEARD_STYLE]), abs(x)
    if style == 0:
        return
    mouth, width = face[MOUTH_Y], face[MOUTH_WIDTH]
    mustache = bell(y - mouth - 0.105 + 0.25 * ax * ax, 0.052) * ramp(width + 0.10, width - 0.02, ax)
    side_edge = -0.36 + 1.1 * max(0.0, ax - 0.40)
    jaw = ramp(side_edge + 0.06, side_edge - 0.10, y) * ramp(-0.15, 0.02, z) + ramp(0.50, 0.58, ax) * ramp(
        0.12, -0.05, y
    ) * ramp(-0.08, 0.02, z) * ramp(0.42, 0.30, z)
    goatee = bell(ax, 0.20) * ramp(mouth - 0.09, mouth - 0.17, y)
    around = bell(ax - width - 0.05, 0.05) * ramp(mouth + 0.14, mouth + 0.05, y) * ramp(mouth - 0.35, mouth - 0.2, y)
    if style == 1:
        amount = 0.42 * max(mustache, min(1.0, jaw))
    elif style == 2:
        amount = mustache * 1.15
    elif style == 3:
        amount = max(mustache, max(goatee, around))
    else:
        amount = max(mustache * 1.1, min(1.0, jaw * 1.2))
    grain = 0.90 + 0.14 * np.sin(x * 120.0 + 30.0 * y) * np.sin(y * 95.0)
    amount = min(0.95, amount * face[BEARD_DENSITY] * (1.0 if style == 1 else 1.25))
    _mix(color, face[BEARD_COLOR] * grain, face[BEARD_COLOR + 1] * grain, face[BEARD_COLOR + 2] * grain, amount)


@njit(cache=True, fastmath=True)
def _paint_brow(x, y, face, soft, color):
    ax = abs(x)
    along = (ax - face[BROW_INNER]) / 0.40
    if along < -0.15 or along > 1.15:
        return
    place = min(max(along, 0.0), 1.0)
    center = (
        face[BROW_Y]
        + face[BROW_ARCH] * (1.0 - (2.0 * place - 1.15) ** 2)
        + face[BROW_SLANT] * (place - 0.5) * 0.4
        - 0.03
    )
    thick = face[BROW_THICKNESS] * (1.0 - 0.62 * place**2)
    cover = ramp(thick + soft, thick - soft, abs(y - center)) * ramp(-0.10, 0.03, along) * ramp(1.10, 0.90, along)
    _mix(color, face[BROW_COLOR], face[BROW_COLOR + 1], face[BROW_COLOR + 2], 0.92 * cover)


@njit(cache=True, fastmath=True)
def _paint_eye(x, y, face, expression, soft, color):
    """Returns the gloss of the point, 1 on the eyeball."""
    side = 1.0 if x > 0.0 else -1.0
    across = (abs(x) - face[EYE_X]) / face[EYE_WIDTH]
    if abs(across) > 1.6 or abs(y - face[EYE_Y]) > 0.24:
        return 0.0
    closed = expression[CLOSED_RIGHT] if side > 0 else expression[CLOSED_LEFT]
    squint = 1.0 - 0.22 * expression[SMILE]
    bow = max(0.0, 1.0 - across * across)
    middle = face[EYE_Y] + face[EYE_TILT] * across * face[EYE_WIDTH]
    lower = middle - face[EYE_OPENING] * 0.72 * bow**0.75 * squint
    upper = middle + face[EYE_OPENING] * (1.0 + 0.22 * expression[BROWS]) * bow**0.62
    upper += (lower + 0.004 - upper) * closed
    liner = 0.60 + 0.40 * face[EYELINER]
    crease = face[EYE_OPENING] * bow**0.5 + face[LID_CREASE] * max(0.0, 1.15 - across * across)
    _darken(color, 0.30 * bell(y - middle - crease, 0.014) * ramp(1.3, 0.9, abs(across)) * (1.0 - 0.6 * closed))
    inside = ramp(-soft, soft, y - lower) * ramp(soft, -soft, y - upper) * ramp(1.04, 0.97, abs(across))
    inside *= 1.0 - ramp(0.75, 1.0, closed)
    if inside > 0.0:
        gaze_x, gaze_y = face[EYE_X] * side + 0.055 * expression[GAZE_X], middle + 0.004 + 0.035 * expression[GAZE_Y]
        radius = 0.078 * (0.75 + 0.25 * face[EYE_WIDTH] / 0.15)
        distance = np.sqrt((x - gaze_x) ** 2 + (y - gaze_y) ** 2)
        white = 0.93 - 0.16 * bell(y - upper, 0.030) - 0.14 * across * across
        _mix(color, white, white * 0.98, white * 0.97, inside)
        ring = 0.55 + 0.45 * ramp(1.0, 0.72, distance / radius)
        _mix(
            color,
            face[IRIS_COLOR] * ring * 1.25,
            face[IRIS_COLOR + 1] * ring * 1.25,
            face[IRIS_COLOR + 2] * ring * 1.25,
            inside * ramp(radius + soft, radius - soft, distance),
        )
        _mix(color, 0.03, 0.03, 0.035, inside * ramp(0.46 * radius + soft, 0.46 * radius - soft, distance))
        glint = np.sqrt((x - gaze_x + 0.022) ** 2 + (y - gaze_y - 0.026) ** 2)
        _mix(color, 1.0, 1.0, 1.0, 0.9 * inside * ramp(0.022 + soft * 0.5, 0.012, glint))
        _darken(color, 0.45 * inside * bell(y - upper, 0.020))
    lash = bell(y - upper, 0.013 + 0.008 * face[EYELINER] + 0.4 * soft) * ramp(1.12, 0.95, abs(across))
    _mix(color, 0.07, 0.05, 0.05, min(0.95, liner * 1.1) * lash)
    _darken(color, 0.42 * liner * bell(y - lower, 0.010 + 0.3 * soft) * ramp(1.08, 0.9, abs(across)))
    return inside


@njit(cache=True, fastmath=True)
def _paint_mouth(x, y, face, expression, soft, color):
    width = face[MOUTH_WIDTH] * (1.0 + 0.14 * expression[SMILE] - 0.12 * expression[JAW] * (1.0 - expression[SMILE]))
    across = x / width
    if abs(across) > 1.25 or abs(y - face[MOUTH_Y]) > 0.26:
        return
    bow = max(0.0, 1.0 - across * across)
    line = face[MOUTH_Y] + (face[LIP_CURVE] + 0.030 * expression[SMILE]) * (across * across - 0.35)
    gap = bow**0.6 * (0.040 * min(1.0, 1.6 * expression[JAW]) + 0.030 * expression[TEETH])
    top_gap, low_gap = line + 0.35 * gap * expression[TEETH], line - gap
    cupid = 1.0 - 0.28 * bell(across, 0.16) + 0.12 * bell(abs(across) - 0.26, 0.16)
    top = top_gap + face[UPPER_LIP] * bow**0.8 * cupid * (1.0 - 0.25 * expression[SMILE])
    low = low_gap - face[LOWER_LIP] * bow**0.65 * (1.0 - 0.15 * expression[SMILE])
    lips = ramp(-soft, soft, top - y) * ramp(-soft, soft, y - low) * ramp(1.03, 0.95, abs(across))
    light = 1.10 if y < line else 0.90
    light *= 1.0 + 0.16 * bell(y - (low_gap + low) * 0.5, 0.018) * bow
    _mix(color, face[LIP_COLOR] * light, face[LIP_COLOR + 1] * light, face[LIP_COLOR + 2] * light, 0.88 * lips)
    _mix(
        color,
        0.20,
        0.06,
        0.06,
        0.85 * bell(y - line, 0.008 + 0.5 * soft) * ramp(1.12, 0.98, abs(across)) * ramp(0.02, 0.0, gap),
    )
    _darken(color, 0.40 * bell(abs(across) - 1.02, 0.07) * bell(y - line, 0.022))
    if gap > 0.002:
        inside = ramp(-soft * 0.6, soft * 0.6, top_gap - y) * ramp(-soft * 0.6, soft * 0.6, y - low_gap)
        _mix(color, 0.17, 0.04, 0.05, inside)
        teeth_low = top_gap - (top_gap - low_gap) * (0.42 + 0.45 * expression[TEETH])
        teeth = inside * ramp(-soft * 0.4, soft * 0.4, y - teeth_low) * ramp(0.92, 0.78, abs(across))
        shade = 0.92 - 0.20 * across * across
        _mix(
            color, shade, shade * 0.98, shade * 0.93, teeth * min(1.0, 0.35 + expression[TEETH] + 0.6 * expression[JAW])
        )


@njit(cache=True, fastmath=True)
def face_color(x, y, z, face, expression, soft, color):
    """Paint one point of the face.

    Args:
        x: Rest coordinate, picture right.
        y: Rest coordinate, up.
        z: Rest coordinate, towards the camera.
        face: The person's face, from `people.face_settings`.
        expression: Expression of this frame.
        soft: Half the width of a soft edge, rest units; about half a pixel.
        color: (3,), written.

    Returns:
        Gloss: 1 on an eyeball, less on skin.
    """
    color[0], color[1], color[2] = face[SKIN], face[SKIN + 1], face[SKIN + 2]
    if z < 0.02:
        return 0.12
    _paint_skin(x, y, face, expression, color)
    _paint_beard(x, y, z, face, color)
    _paint_mouth(x, y, face, expression, soft, color)
    glossy = _paint_eye(x, y, face, expression, soft, color)
    _paint_brow(x, y, face, soft, color)
    return 0.24 - 0.10 * face[SKIN] + 0.5 * glossy
