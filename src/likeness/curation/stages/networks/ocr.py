"""Text in pictures, found and read by RapidOCR (PP-OCR in onnxruntime), the networks that its wheel contains."""

from collections.abc import Callable
from functools import cache
from typing import Any

import cv2
import numpy as np

from likeness.curation.stages.networks.wheel_files import wheel_file

_FILES = {
    "det": ("PP-OCRv6_det_small.onnx", "090f04abcd9d9a7498bc4ebf677e4cb9bdce1fe4197ddb7e529f1ef44e1ff94f"),
    "rec": ("PP-OCRv6_rec_small.onnx", "6f327246b50388f3c176ae304bd95767ea6dc0c9ae92153ef8cbe210b3c14884"),
}

Text = tuple[str, float, np.ndarray]
"""What is read, its confidence, and the four corners, (4, 2) in pixels."""


def read_text(frame: np.ndarray, *, side_px: int) -> list[Text]:
    """Lines of text in a picture.

    Args:
        frame: (height, width, 3) uint8 RGB.
        side_px: Longer side to which the picture is scaled before text is searched.

    Raises:
        ResourceError: `rapidocr` is not installed.
        WeightsError: Its networks are not the expected ones.
    """
    height, width = frame.shape[:2]
    scale = side_px / max(height, width)
    resized = cv2.resize(frame, (round(width * scale), round(height * scale)), interpolation=cv2.INTER_CUBIC)
    found = _load(side_px)(np.ascontiguousarray(resized[..., ::-1]), use_cls=False)
    if found.boxes is None or not found.txts:
        return []
    return [
        (str(text), float(score), np.asarray(box, dtype=np.float32) / scale)
        for text, score, box in zip(found.txts, found.scores, found.boxes, strict=True)
    ]


@cache
def _load(side_px: int) -> Callable[..., Any]:
    paths = {
        part: wheel_file("rapidocr", f"models/{name}", sha256=sha256, project="rapidocr")
        for part, (name, sha256) in _FILES.items()
    }
    from rapidocr import RapidOCR

    return RapidOCR(
        params={
            "Global.log_level": "critical",
            "Global.use_cls": False,
            "Det.model_path": str(paths["det"]),
            "Det.limit_type": "max",
            "Det.limit_side_len": side_px,
            "Rec.model_path": str(paths["rec"]),
            "EngineConfig.onnxruntime.intra_op_num_threads": 1,
            "EngineConfig.onnxruntime.inter_op_num_threads": 1,
        }
    )
