"""Landmarks of the chosen faces by another engine than the one that says who they are."""

import numpy as np

from likeness.errors import FaceError
from likeness.evaluation.features.base import Arrays
from likeness.evaluation.features.engines import Engines
from likeness.faces import find_faces
from likeness.records import Face

MIN_OVERLAP = 0.2
"""Least intersection over union of two engines' boxes of one face: dlib's boxes end above the chin, SCRFD's do not."""


def overlap(box: np.ndarray, others: np.ndarray) -> np.ndarray:
    """Intersection over union of a box with each of others.

    Shapes:
        box: (4,) px
        others: (boxes, 4) px
        returns: (boxes,)
    """
    sides = np.minimum(box[2:], others[:, 2:]) - np.maximum(box[:2], others[:, :2])
    common = np.clip(sides, 0, None).prod(axis=1)
    areas = (others[:, 2:] - others[:, :2]).prod(axis=1) + (box[2:] - box[:2]).prod()
    return common / np.maximum(areas - common, 1e-12)


def landmarks_at(boxes: np.ndarray, detections: Arrays) -> np.ndarray:
    """Landmarks of the detection that overlaps each frame's box most.

    Shapes:
        boxes: (frames, 4) px, NaN where there is no face
        detections: arrays of the feature `landmarks`
        returns: (frames, 5, 2) px, NaN where there is no face, or the landmark engine found none there
    """
    landmarks = np.full((len(boxes), 5, 2), np.nan)
    for frame in np.flatnonzero(np.isfinite(boxes).all(axis=1)):
        rows = np.flatnonzero(detections["frame"] == frame)
        if len(rows):
            overlaps = overlap(boxes[frame], detections["box"][rows])
            if overlaps.max() >= MIN_OVERLAP:
                landmarks[frame] = detections["landmarks"][rows[overlaps.argmax()]]
    return landmarks


def landmarks_of_reference(picture: np.ndarray, face: Face, engines: Engines) -> np.ndarray:
    """(5, 2) px: landmarks of a reference's face by the landmark engine.

    Raises:
        FaceError: The landmark engine finds no face where the identity engine found one.
    """
    if not engines.are_separate:
        return face.landmarks
    found = find_faces(picture, engine=engines.landmark_engine, source=face.source)
    boxes = np.array([each.box for each in found], dtype=np.float64).reshape(-1, 4)
    overlaps = overlap(np.array(face.box, dtype=np.float64), boxes)
    if not len(found) or overlaps.max() < MIN_OVERLAP:
        raise FaceError(
            f"{face.source}: `{engines.landmarks}` finds no face where `{engines.identity}` has found one, so the "
            "reference has no landmarks. Use a sharper, more frontal picture, or one engine for both (leave out "
            "`--landmark-engine`)."
        )
    return found[int(overlaps.argmax())].landmarks
