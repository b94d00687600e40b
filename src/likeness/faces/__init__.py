"""Picture to `Face`: detect, five landmarks, head pose, aligned crop, embedding. Not for identity tokens."""

from likeness.faces.dlib_engine import DlibEngine
from likeness.faces.engines import FaceEngine
from likeness.faces.geometry import HEAD_TEMPLATE, crop_head, fit_similarity, head_pose, warp
from likeness.faces.read import MIN_SIDE_PX, compare, default_engine, find_faces, prominence, read_face

__all__ = [
    "HEAD_TEMPLATE",
    "MIN_SIDE_PX",
    "DlibEngine",
    "FaceEngine",
    "compare",
    "crop_head",
    "default_engine",
    "find_faces",
    "fit_similarity",
    "head_pose",
    "prominence",
    "read_face",
    "warp",
]
