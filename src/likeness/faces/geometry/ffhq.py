"""FFHQ alignment: the 512 px head crop that the released FantasyID reads.

A `Face` holds a head crop on this package's template. One fixed similarity maps it to FFHQ's, so no detection is
needed. Pixels outside the original picture have the fill color of the `Face`.
"""

import logging

import numpy as np

from likeness.faces.geometry.align import fit_similarity, warp
from likeness.faces.geometry.layouts import EYE_CENTERS
from likeness.records import Face

logger = logging.getLogger(__name__)

SIDE_PX = 512
TEMPLATE = np.array(
    [
        [192.98138, 239.94708],
        [318.90277, 240.1936],
        [256.63416, 314.01935],
        [201.26117, 371.41043],
        [313.08905, 371.15118],
    ]
)
"""Eye centers, tip of the nose and corners of the mouth on FFHQ's square of 512 pixels."""


def align_ffhq(face: Face, side_px: int = SIDE_PX) -> np.ndarray:
    """The head of a face on FFHQ's template, (side_px, side_px, 3) uint8 RGB.

    The face's large crop is used. If there is none (a saved character), the small crop is enlarged, with a warning.
    """
    head = face.detail
    if head is None:
        head = face.crop
        logger.warning(
            "The head crop of %s has %d pixels a side instead of %d, so the first frame is less sharp. "
            "Give the picture itself for more detail.",
            face.source,
            head.shape[0],
            side_px,
        )
    matrix = fit_similarity(EYE_CENTERS.template * head.shape[0], TEMPLATE * (side_px / SIDE_PX))
    return warp(head, matrix, side_px)
