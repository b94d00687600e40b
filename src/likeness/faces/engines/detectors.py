"""SCRFD and YuNet: face detectors in ONNX files, decoded as in their reference implementations.

Both predict a score, a box and five landmarks for each cell of three grids with strides 8, 16 and 32. SCRFD
(arXiv:2105.04714v1) is in InsightFace's packs; YuNet (`face_detection_yunet_2023mar`) is in OpenCV Zoo.
"""

from pathlib import Path
from typing import Protocol

import numpy as np

from likeness.errors import WeightsError
from likeness.faces.engines.onnx_session import OnnxModel
from likeness.faces.geometry.layouts import EYE_CENTERS
from likeness.media import resize
from likeness.records import Detection

STRIDES = (8, 16, 32)
DETECTOR_INPUT_PX = 640
"""Side of the detector's square input. Fixed, because the result depends on it (InsightFace 2 merges two sizes)."""
_MIN_REPORTED_SCORE = 0.2
"""Detections from this score on are returned, so that an error can name the best score found."""


class Detector(Protocol):
    """Detects boxes and five landmarks."""

    min_score: float

    def __init__(self, path: Path) -> None: ...

    def detect(self, picture: np.ndarray) -> list[Detection]: ...


class Scrfd:
    """SCRFD with landmarks (`det_10g`, `scrfd_10g_bnkps`).

    Input: `(1, 3, side, side)` RGB, (value - 127.5) / 128. Outputs, one per stride each: scores `(cells * 2, 1)`,
    distances to the four edges `(cells * 2, 4)` and landmark offsets `(cells * 2, 10)`, in units of the stride, with
    two anchors per cell.
    """

    min_score = 0.5
    """InsightFace's `det_thresh`."""
    _max_iou = 0.4
    _anchors = 2

    def __init__(self, path: Path) -> None:
        self._model = OnnxModel(path)
        if len(self._model.output_names) != 3 * len(STRIDES):
            raise WeightsError(
                f"{path} has {len(self._model.output_names)} outputs; SCRFD with landmarks has nine. "
                "Pull its weights again."
            )
        self._side_px = _input_side_px(self._model, path)

    def detect(self, picture: np.ndarray) -> list[Detection]:
        canvas, scale = letterbox(picture, self._side_px)
        batch = ((canvas.astype(np.float32) - 127.5) / 128).transpose(2, 0, 1)[None]
        outputs = self._model.run(batch)
        levels = []
        for level, stride in enumerate(STRIDES):
            scores, edges, offsets = outputs[level::3]
            cells = np.repeat(_cells(self._side_px // stride), self._anchors, axis=0) * stride
            edges = edges.reshape(-1, 4) * stride
            boxes = np.concatenate([cells - edges[:, :2], cells + edges[:, 2:]], axis=1)
            landmarks = cells[:, None] + offsets.reshape(-1, 5, 2) * stride
            levels.append((scores.reshape(-1), boxes, landmarks))
        # InsightFace includes both edge pixels in box sizes.
        return _detections(levels, scale, max_iou=self._max_iou, edge_px=1)


class YuNet:
    """YuNet (`face_detection_yunet_2023mar`).

    Input: `(1, 3, side, side)` BGR, 0 to 255. Outputs per stride: `cls_*` and `obj_*` `(1, cells, 1)`, with the score
    as their geometric mean; `bbox_*` `(1, cells, 4)`, offset of the center and logarithm of the size; `kps_*` `(1,
    cells, 10)`, offsets of the landmarks.
    """

    min_score = 0.6
    """OpenCV Zoo's `confThreshold`."""
    _max_iou = 0.3

    def __init__(self, path: Path) -> None:
        self._model = OnnxModel(path)
        needed = {f"{kind}_{stride}" for kind in ("cls", "obj", "bbox", "kps") for stride in STRIDES}
        missing = needed.difference(self._model.output_names)
        if missing:
            raise WeightsError(
                f"{path} lacks the outputs {', '.join(sorted(missing))} of YuNet. Pull its weights again."
            )
        self._side_px = _input_side_px(self._model, path)

    def detect(self, picture: np.ndarray) -> list[Detection]:
        canvas, scale = letterbox(picture, self._side_px)
        batch = canvas[..., ::-1].transpose(2, 0, 1)[None]
        outputs = dict(zip(self._model.output_names, self._model.run(batch), strict=True))
        levels = []
        for stride in STRIDES:
            class_scores, objectness, box, keypoints = (
                outputs[f"{kind}_{stride}"] for kind in ("cls", "obj", "bbox", "kps")
            )
            cells = _cells(self._side_px // stride)
            scores = np.sqrt(np.clip(class_scores, 0, 1) * np.clip(objectness, 0, 1)).reshape(-1)
            box = box.reshape(-1, 4)
            centers, halves = (cells + box[:, :2]) * stride, np.exp(box[:, 2:]) * stride / 2
            boxes = np.concatenate([centers - halves, centers + halves], axis=1)
            levels.append((scores, boxes, (cells[:, None] + keypoints.reshape(-1, 5, 2)) * stride))
        return _detections(levels, scale, max_iou=self._max_iou, edge_px=0)


def letterbox(picture: np.ndarray, side_px: int) -> tuple[np.ndarray, float]:
    """Place `picture` at the upper left of a black square; a larger picture is shrunk, a smaller one is not enlarged.

    Returns:
        (side_px, side_px, 3) uint8, and the scale of the picture in it.
    """
    height, width = picture.shape[:2]
    scale = min(1.0, side_px / max(height, width))
    resized = resize(picture, max(1, round(width * scale)), max(1, round(height * scale)), is_quick=True)
    canvas = np.zeros((side_px, side_px, 3), np.uint8)
    canvas[: resized.shape[0], : resized.shape[1]] = resized
    return canvas, scale


def non_maximum_suppression(boxes: np.ndarray, scores: np.ndarray, *, max_iou: float, edge_px: int = 0) -> list[int]:
    """Indices by descending score, without boxes that overlap a better one by more than `max_iou`."""
    sizes = boxes[:, 2:] - boxes[:, :2] + edge_px
    order, kept = np.argsort(-scores, kind="stable"), []
    while order.size:
        best, rest = order[0], order[1:]
        kept.append(int(best))
        # Intersection over union of the best box with all remaining ones.
        intersection = np.minimum(boxes[best, 2:], boxes[rest, 2:]) - np.maximum(boxes[best, :2], boxes[rest, :2])
        intersection = np.maximum(intersection + edge_px, 0).prod(axis=1)
        union = sizes[best].prod() + sizes[rest].prod(axis=1) - intersection
        order = rest[intersection <= max_iou * union]
    return kept


def _detections(
    levels: list[tuple[np.ndarray, np.ndarray, np.ndarray]], scale: float, *, max_iou: float, edge_px: int
) -> list[Detection]:
    """Join the levels' (scores, boxes, landmarks), suppress duplicates, scale back to pixels of the picture."""
    scores, boxes, landmarks = (np.concatenate(parts) for parts in zip(*levels, strict=True))
    is_candidate = scores >= _MIN_REPORTED_SCORE
    # Box edges and landmarks are divided alike, as in the reference implementations.
    scores, boxes, landmarks = scores[is_candidate], boxes[is_candidate] / scale, landmarks[is_candidate] / scale
    return [
        Detection(
            box=(float(boxes[i, 0]), float(boxes[i, 1]), float(boxes[i, 2]), float(boxes[i, 3])),
            landmarks=landmarks[i].astype(np.float32),
            score=float(scores[i]),
            layout=EYE_CENTERS.name,
        )
        for i in non_maximum_suppression(boxes, scores, max_iou=max_iou, edge_px=edge_px)
    ]


def _cells(count: int) -> np.ndarray:
    """(count * count, 2) float32: column and row of each cell of a square grid, row by row."""
    rows, columns = np.mgrid[:count, :count]
    return np.stack([columns.ravel(), rows.ravel()], axis=1).astype(np.float32)


def _input_side_px(model: OnnxModel, path: Path) -> int:
    """The detector's input size: the one that the file fixes, or `DETECTOR_INPUT_PX`."""
    shape = model.input_shape
    sides = {side for side in shape[2:] if isinstance(side, int)}
    if len(shape) != 4 or len(sides) > 1:
        raise WeightsError(f"{path} takes {shape}; (1, 3, side, side) is needed. Pull its weights again.")
    return sides.pop() if sides else DETECTOR_INPUT_PX
