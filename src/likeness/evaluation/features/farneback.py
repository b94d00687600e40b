"""Dense optical flow between two gray images by Farneback's method (2003), with the settings of OpenS2V-Nexus."""

import cv2
import numpy as np

FARNEBACK = {
    "pyr_scale": 0.5,
    "levels": 3,
    "winsize": 15,
    "iterations": 3,
    "poly_n": 5,
    "poly_sigma": 1.2,
    "flags": 0,
}


def dense_flow(first: np.ndarray, second: np.ndarray) -> np.ndarray:
    """Displacement of each pixel from `first` to `second`.

    Shapes:
        first, second: (height, width) uint8
        returns: (height, width, 2) float32 px, x and y
    """
    empty = np.empty((*first.shape, 2), dtype=np.float32)
    return np.asarray(cv2.calcOpticalFlowFarneback(first, second, empty, **FARNEBACK))
