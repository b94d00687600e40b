"""Perceptual hashes of frames, by which `duplicates` finds copies that were encoded or scaled again.

The hash is pHash as `imagehash` computes it: the lowest frequencies of the cosine transform of a small gray picture,
each compared with their median.
"""

import cv2
import numpy as np
from pydantic import Field

from likeness.config import Settings
from likeness.curation.stage import Candidate, Needs, SourceView, register
from likeness.curation.stages.frames import to_gray, with_arrays

_OVERSAMPLING = 4


class HashSettings(Settings):
    """What is hashed."""

    num_frames: int = Field(default=4, ge=1)
    """Frames of a span, at the centers of as many equal parts; 1 is enough for pictures."""
    side: int = Field(default=16, ge=4, le=64, multiple_of=4)
    """Frequencies in each direction; a hash has the square of it in bits."""


@register("hashes")
class Hashes:
    """Adds the hashes of a candidate, and where its face is."""

    name = "hashes"
    version = 1
    reads = ()
    writes = ("hashes", "place")
    needs = Needs()
    Settings = HashSettings

    def __init__(self, settings: HashSettings) -> None:
        self.settings = settings

    def __call__(self, candidates: list[Candidate], view: SourceView) -> list[Candidate]:
        size = np.array([view.width_px, view.height_px] * 2, dtype=np.float32)
        hashed = []
        for candidate in candidates:
            boxes = candidate.arrays.get("boxes")
            place = np.array([0, 0, 1, 1], np.float32) if boxes is None else np.median(boxes, axis=0) / size
            hashed.append(with_arrays(candidate, hashes=self._hash(candidate, view), place=place))
        return hashed

    def _hash(self, candidate: Candidate, view: SourceView) -> np.ndarray:
        count = self.settings.num_frames if candidate.num_frames > 1 else 1
        numbers = [candidate.first_frame + int((k + 0.5) * candidate.num_frames / count) for k in range(count)]
        longest_px = 16 * self.settings.side
        frames = [view.frames(number, 1, max_side_px=longest_px)[0] for number in numbers]
        return np.stack([perceptual_hash(frame, self.settings.side) for frame in frames])


def perceptual_hash(frame: np.ndarray, side: int = 16) -> np.ndarray:
    """PHash of a picture.

    Shapes:
        frame: (height, width, 3) uint8
        returns: (side**2 / 8,) uint8, packed bits
    """
    from scipy.fft import dct

    size = _OVERSAMPLING * side
    small = cv2.resize(to_gray(frame), (size, size), interpolation=cv2.INTER_AREA).astype(np.float64)
    low = np.asarray(dct(dct(small, axis=0), axis=1))[:side, :side]
    return np.packbits(low > np.median(low))
