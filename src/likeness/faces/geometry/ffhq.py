"""The head as FFHQ shows it: how the released FantasyID wants its reference, a square of 512 pixels.

A `Face` holds the head on a template of our own; between the two lies one fixed similarity, so no picture is searched
for a face again. What the picture did not show is filled as in the `Face`.
"""

import logging

import numpy as np

from likeness.faces.geometry.align import fit_similarity, warp
from likeness.faces.geometry.layouts import EYE_CENTERS
from likeness.records import Face

logger = logging.getLogger(__name__)

SIDE_PX = 512
TEMPLATE = np.array(
    [[192.98138, 239.94708], [318.90277, 240.1936], [256.63416, 314.01935], [201.26117, 371.41043], [313.08905, 371.15118]]
)  # fmt: skip
"""Eye centers, tip of the nose and corners of the mouth on FFHQ's square of 512 pixels."""


def align_ffhq(face: Face, side_px: int = SIDE_PX) -> np.ndarray:
    """The head of a face on FFHQ's template, (side_px, side_px, 3) uint8 RGB.

    It is made of the face's large crop. A face without one (a saved character) gives its small crop, enlarged; a warning
    says so.
    """
    head = face.detail
    if head is None:
        head = face.crop
        logger.warning(
            "Of %s a head of %d pixels is known, where %d are wanted, so the video begins less sharp. Give the picture "
            "itself for more.",
            face.source,
            head.shape[0],
            side_px,
        )
    matrix = fit_similarity(EYE_CENTERS.template * head.shape[0], TEMPLATE * (side_px / SIDE_PX))
    return warp(head, matrix, side_px)
