"""From a picture to `Face` records: detection, five landmarks, head pose, aligned crop, embedding.

Identity tokens for the video model are made of them in `likeness.identity`.
"""

from likeness.faces.engines.base import DetectionPass, FaceEngine, distances
from likeness.faces.engines.dlib_engine import DlibEngine
from likeness.faces.engines.onnx_engine import OnnxEngine
from likeness.faces.engines.registry import ENGINE_NAMES, default_engine, load_engine
from likeness.faces.geometry.align import HEAD_TEMPLATE, crop_head, fit_similarity, head_pose, warp
from likeness.faces.geometry.layouts import EYE_CENTERS, EYE_CORNERS, LAYOUTS, LandmarkLayout, get_layout
from likeness.faces.read import FRAME_DETECTION_PX, MIN_SIDE_PX, compare, find_faces, prominence, read_face

__all__ = [
    "ENGINE_NAMES",
    "EYE_CENTERS",
    "EYE_CORNERS",
    "FRAME_DETECTION_PX",
    "HEAD_TEMPLATE",
    "LAYOUTS",
    "MIN_SIDE_PX",
    "DetectionPass",
    "DlibEngine",
    "FaceEngine",
    "LandmarkLayout",
    "OnnxEngine",
    "compare",
    "crop_head",
    "default_engine",
    "distances",
    "find_faces",
    "fit_similarity",
    "get_layout",
    "head_pose",
    "load_engine",
    "prominence",
    "read_face",
    "warp",
]
