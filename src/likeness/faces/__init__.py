"""Picture to `Face`: detect, five landmarks, head pose, aligned crop, embedding. Not for identity tokens."""

from likeness.faces.choose import ENGINE_NAMES, default_engine, load_engine
from likeness.faces.dlib_engine import DlibEngine
from likeness.faces.engines import FaceEngine, Search, distances
from likeness.faces.geometry import HEAD_TEMPLATE, crop_head, fit_similarity, head_pose, warp
from likeness.faces.layouts import EYE_CENTERS, EYE_CORNERS, LAYOUTS, Layout, layout_named
from likeness.faces.onnx_engine import OnnxEngine
from likeness.faces.read import MIN_SIDE_PX, compare, find_faces, prominence, read_face

__all__ = [
    "ENGINE_NAMES",
    "EYE_CENTERS",
    "EYE_CORNERS",
    "HEAD_TEMPLATE",
    "LAYOUTS",
    "MIN_SIDE_PX",
    "DlibEngine",
    "FaceEngine",
    "Layout",
    "OnnxEngine",
    "Search",
    "compare",
    "crop_head",
    "default_engine",
    "distances",
    "find_faces",
    "fit_similarity",
    "head_pose",
    "layout_named",
    "load_engine",
    "prominence",
    "read_face",
    "warp",
]
