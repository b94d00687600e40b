"""Dense ground truth of a frame: coverage by body parts, normals, positions on the head, facial features.

Predicting these maps from noisy latents is an auxiliary task of training that speeds up learning of layout
(representation alignment, arXiv:2410.06940, with the renderer in place of a pretrained encoder). Compiled with numba.
"""

import numpy as np
from numba import njit
from numpy.typing import NDArray

from likeness.puppets.rendering import paint, raster
from likeness.puppets.rendering.raster import bell

CELL_PX = 4
"""Side of a cell of the maps in pixels of the frame."""
PARTS = ("head", "ear", "neck", "clothing", "hair", "glasses", "hand")
FEATURES = ("left_eye", "right_eye", "brows", "nose", "mouth")
CHANNELS = (*PARTS, "normal_x", "normal_y", "normal_z", "place_x", "place_y", "place_z", *FEATURES)
"""Coverage by each part; normals and rest coordinates, each times its coverage; facial features."""

_CHANNEL_OF_PART = np.array([0, 1, 2, 3, 4, 4, 5, 6, 3], dtype=np.int64)  # Indexed by the part numbers of `raster`.
_NORMAL, _PLACE, _FEATURE = len(PARTS), len(PARTS) + 3, len(PARTS) + 6
_REACH = np.float32(1.6)  # Largest rest coordinate on the head, in head units.


def dense_maps(
    part: NDArray[np.int8],
    place: NDArray[np.float32],
    normal: NDArray[np.float32],
    face: NDArray[np.float32],
    samples: int,
) -> NDArray[np.uint8]:
    """The maps of one rendered frame.

    Shapes:
        part: (height, width) from `raster.rasterize`, `samples` pixels per frame pixel
        place, normal: (height, width, 3); face: (NUM_FACE,)
        returns: (CHANNELS, cells, cells); coverage and features are 0 to 255, normals and places 127.5 + 127.5 * value
    """
    cell = CELL_PX * samples
    sums = np.zeros((len(CHANNELS), part.shape[0] // cell, part.shape[1] // cell), dtype=np.float32)
    _accumulate(part, place, normal, face, cell, _CHANNEL_OF_PART, sums)
    sums /= np.float32(cell * cell)
    sums[_NORMAL:_FEATURE] = 0.5 + 0.5 * sums[_NORMAL:_FEATURE]
    return (sums.clip(0, 1) * 255 + 0.5).astype(np.uint8)


@njit(cache=True, fastmath=True)
def _accumulate(part, place, normal, face, cell, channels, sums):
    for row in range(sums.shape[1] * cell):
        for column in range(sums.shape[2] * cell):
            kind = part[row, column]
            if kind == raster.EMPTY:
                continue
            y, x = row // cell, column // cell
            sums[channels[kind], y, x] += 1.0
            nx, ny, nz = normal[row, column, 0], normal[row, column, 1], normal[row, column, 2]
            scale = 1.0 / (np.sqrt(nx * nx + ny * ny + nz * nz) + 1e-9)
            if nz < 0.0:
                scale = -scale
            sums[_NORMAL, y, x] += nx * scale
            sums[_NORMAL + 1, y, x] += ny * scale
            sums[_NORMAL + 2, y, x] += nz * scale
            if kind in (raster.HEAD, raster.EAR, raster.HAIR, raster.HAIR_SHEET, raster.GLASSES):
                for axis in range(3):
                    sums[_PLACE + axis, y, x] += place[row, column, axis] / _REACH
            if kind == raster.HEAD and place[row, column, 2] > 0.0:
                across, up = place[row, column, 0], place[row, column, 1]
                eyes = bell(up - face[paint.EYE_Y], 0.07)
                sums[_FEATURE, y, x] += eyes * bell(across + face[paint.EYE_X], 0.13)
                sums[_FEATURE + 1, y, x] += eyes * bell(across - face[paint.EYE_X], 0.13)
                brows = bell(up - face[paint.BROW_Y], 0.05)
                sums[_FEATURE + 2, y, x] += brows * bell(abs(across) - face[paint.EYE_X], 0.16)
                sums[_FEATURE + 3, y, x] += bell(up - face[paint.NOSE_Y], 0.09) * bell(across, 0.11)
                mouth = bell(up - face[paint.MOUTH_Y], 0.07)
                sums[_FEATURE + 4, y, x] += mouth * bell(across, face[paint.MOUTH_WIDTH])
