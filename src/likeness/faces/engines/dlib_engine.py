"""The default engine: dlib with the models of the `face_recognition_models` package, offline.

HOG detector, 5-point landmarks, recognizer with 128-dimensional embeddings (99.38 % on LFW). The models are loaded by
path (`likeness.weights`); the package that contains them is never imported.
"""

# dlib's wheel has no type information.
# pyright: reportAttributeAccessIssue=false

import os
from contextlib import suppress
from functools import cached_property
from pathlib import Path

import dlib
import numpy as np

from likeness.errors import Box
from likeness.faces.engines.base import DetectionPass, rescale
from likeness.faces.engines.rotated_copies import ANGLES_DEG, drop_duplicates, landmark_spread, rotate, rotate_back
from likeness.faces.geometry.align import crop_head, fit_similarity, warp
from likeness.faces.geometry.layouts import EYE_CORNERS, refuse_other_layout
from likeness.media import resize
from likeness.records import Detection, EmbeddingMetric
from likeness.weights import home, locate

_PICTURE_ORDER = (2, 3, 1, 0, 4)
"""Indices of the picture order in dlib's list: image-right eye (outer, inner), image-left eye (outer, inner), nose."""
_CHIP_PX = 150
_CHIP_PADDING = 0.25
_MEAN_SHAPE = np.array(
    [
        [0.1205750620789, 0.2137274526848],
        [0.3340850613712, 0.2290642403242],
        [0.6460604764104, 0.2289674387677],
        [0.8595674595992, 0.2134981538014],
        [0.4901123135679, 0.6277975316475],
    ]
)
"""Landmarks of an aligned face for dlib's recognizer (`get_face_chip_details`), in picture order."""
_CHIP_POINTS = (_CHIP_PADDING + _MEAN_SHAPE) / (2 * _CHIP_PADDING + 1) * _CHIP_PX - 0.5
"""The mean shape in pixels of the chip; the first pixel spans 0 to 1."""
_MIN_REPORTED_SCORE = -0.3
"""Detections from this score on are returned, so that an error can name the best score found."""
_MIN_SCORE = 0.3
"""Smallest score of a face."""
_CONFIDENT_SCORE = 0.7
"""A detection with at least this HOG score is a face without verification; false boxes reached 0.57."""
_MIN_VERIFIED_SCORE = 0.15
"""Smallest score in the upright crop of a detection below `_SURE_SCORE`: of faces 0.34, of false boxes -0.02."""
_CLOSE_UP_SHARE = 0.3
"""Share of the picture's shorter side from which a box counts as a close-up."""
_CLOSE_UP_BONUS = 0.3
"""Added to the score of a close-up: a picture has few detection windows of that size, so false detections are rare."""
_VERIFY_PX = 160
"""Side of the upright head crop in which a weak detection is verified; the face box in it has about 90 px."""
_VERIFY_PENALTY = 0.35
"""Subtracted from the score in the crop, because the crop has the detector's best size and rotation."""
_THOROUGH_PX = 640
"""Longer side of the picture in the thorough search."""
_THOROUGH_MIN_SCORE = -0.4
"""Smallest score of a detection that the thorough search verifies."""
_MAX_SPREAD = 0.06
"""Largest spread of the eye corners (`landmark_spread`) of a face that is also detected in its upright crop."""
_MAX_SPREAD_UNVERIFIED = 0.012
"""Largest spread of a face that is not: a masked one. The smallest of a false box was 0.022."""
_MAX_BOX_OFFSET = 0.2
"""Largest offset of the box in the crop from the position of the landmarks, in sides of the crop."""


def load_detector(cached_copy: Path) -> dlib.fhog_object_detector:
    """Load dlib's frontal face detector, from `cached_copy` if it exists.

    Unpacking the detector inside dlib takes most of a second; reading a cached copy takes two milliseconds.
    """
    with suppress(RuntimeError):  # There is no copy yet, or it is damaged.
        return dlib.fhog_object_detector(str(cached_copy))
    detector = dlib.get_frontal_face_detector()
    with suppress(OSError, RuntimeError):  # Without a writable cache the next start is only slower.
        cached_copy.parent.mkdir(parents=True, exist_ok=True)
        temporary = cached_copy.with_suffix(f".{os.getpid()}")
        detector.save(str(temporary))
        temporary.replace(cached_copy)
    return detector


class DlibEngine:
    """dlib's detector and recognizer behind the `FaceEngine` protocol."""

    name = "dlib"
    embedding_width = 128
    threshold = 0.6
    metric: EmbeddingMetric = "distance"
    min_score = _MIN_SCORE
    """Calibrated on 588 faces and 161 false boxes found by HOG in photographs (also rotated, blurred, compressed, at
    half size) and in backgrounds. No false box reaches it (docs/evidence.md)."""
    layout = EYE_CORNERS
    detection_passes = (
        # A phone's picture takes at most half a second at this size.
        DetectionPass(1024, max_scale=1.0),
        # Small heads in a large picture; run only if no large face was found.
        DetectionPass(2048, max_scale=1.0),
        DetectionPass(4096, max_scale=1.0),
        # Tells a face that is too small from no face.
        DetectionPass(1408, max_scale=2.0, min_scale=1.5),
    )

    def __init__(self, up_sampling: int = 1) -> None:
        self.up_sampling = up_sampling
        """Each step doubles the picture before detection: smallest face 80 px at 0, 40 px at 1, 20 px at 2."""

    @cached_property
    def _detector(self) -> dlib.fhog_object_detector:
        return load_detector(home() / "cache" / f"dlib-{dlib.__version__}-frontal-face.svm")

    @cached_property
    def _predictor(self) -> dlib.shape_predictor:
        return dlib.shape_predictor(str(locate("dlib-landmarks")))

    @cached_property
    def _recognizer(self) -> dlib.face_recognition_model_v1:
        return dlib.face_recognition_model_v1(str(locate("dlib-recognizer")))

    def detect(self, picture: np.ndarray) -> list[Detection]:
        picture = np.ascontiguousarray(picture)
        boxes, scores, _ = self._detector.run(picture, self.up_sampling, _MIN_REPORTED_SCORE)
        return [self._to_detection(picture, box, score) for box, score in zip(boxes, scores, strict=True)]

    def detect_thoroughly(self, picture: np.ndarray) -> list[Detection]:
        """Rotated and masked faces: HOG in rotated copies, verified by the upright crop and by stable landmarks.

        Calibrated on 1,181 detections of faces and 301 false ones in 549 pictures; no false one passes
        (docs/evidence.md).
        """
        scale = min(1.0, _THOROUGH_PX / max(picture.shape[:2]))
        height, width = (max(1, round(side * scale)) for side in picture.shape[:2])
        smaller = resize(picture, width, height, is_quick=True)
        detections: list[Detection] = []
        for angle_deg in ANGLES_DEG:
            rotated, matrix = rotate(smaller, angle_deg)
            boxes, _, _ = self._detector.run(rotated, self.up_sampling, _THOROUGH_MIN_SCORE)
            faces = filter(None, (self._to_stable_detection(rotated, box) for box in boxes))
            detections += [rescale(rotate_back(face, matrix), scale) for face in faces]
        return drop_duplicates(detections)

    def embed(self, picture: np.ndarray, landmarks: np.ndarray) -> np.ndarray:
        refuse_other_layout(landmarks, self.layout)
        # As dlib's own alignment, but with subpixel landmarks, and black outside the picture.
        chip = warp(picture, fit_similarity(landmarks, _CHIP_POINTS), _CHIP_PX, fill=0)
        return np.asarray(self._recognizer.compute_face_descriptor(chip), dtype=np.float32)

    def _predict_landmarks(self, picture: np.ndarray, box: dlib.rectangle) -> np.ndarray:
        parts = self._predictor(picture, box).parts()
        return np.array([(parts[index].x, parts[index].y) for index in _PICTURE_ORDER], np.float32)

    def _to_detection(self, picture: np.ndarray, box: dlib.rectangle, score: float) -> Detection:
        landmarks = self._predict_landmarks(picture, box)
        score = self._calibrate(picture, box, landmarks, score)
        return Detection(box=_to_box(box), landmarks=landmarks, score=float(score), layout=EYE_CORNERS.name)

    def _calibrate(self, picture: np.ndarray, box: dlib.rectangle, landmarks: np.ndarray, score: float) -> float:
        """The score of a detection from HOG's; where HOG is not sure, the upright crop decides."""
        if score >= _CONFIDENT_SCORE:
            return score
        if score >= _MIN_SCORE:
            verified = self._verify(picture, landmarks)
            return score if verified >= _MIN_VERIFIED_SCORE else verified
        if box.width() >= _CLOSE_UP_SHARE * min(picture.shape[:2]):
            score += _CLOSE_UP_BONUS
        return score if score >= _MIN_SCORE else max(score, self._verify(picture, landmarks) - _VERIFY_PENALTY)

    def _to_stable_detection(self, picture: np.ndarray, box: dlib.rectangle) -> Detection | None:
        """The face in `box`, or None if its landmarks follow the box."""
        landmarks = self._predict_landmarks(picture, box)
        spread = landmark_spread(
            _to_box(box), landmarks, lambda edges: self._predict_landmarks(picture, _to_rectangle(edges))
        )
        if spread >= _MAX_SPREAD:
            return None
        score = self._verify(picture, landmarks)
        if score < _MIN_SCORE and spread >= _MAX_SPREAD_UNVERIFIED:
            return None
        score = max(score, _MIN_SCORE)
        return Detection(box=_to_box(box), landmarks=landmarks, score=float(score), layout=EYE_CORNERS.name)

    def _verify(self, picture: np.ndarray, landmarks: np.ndarray) -> float:
        """HOG's score of the upright head crop made from the landmarks; low if the detection is not a face.

        Landmarks of a rotated or small face are still accurate, so its upright crop at the detector's size scores
        higher. Landmarks of a false box are those of a mean face, and the crop scores low again.
        """
        head = np.ascontiguousarray(crop_head(picture, landmarks, _VERIFY_PX))
        boxes, scores, _ = self._detector.run(head, 0, _MIN_REPORTED_SCORE)
        expected = EYE_CORNERS.template.mean(axis=0) * _VERIFY_PX
        face_scores = [
            score
            for box, score in zip(boxes, scores, strict=True)
            if max(abs(box.center().x - expected[0]), abs(box.center().y - expected[1])) < _MAX_BOX_OFFSET * _VERIFY_PX
        ]
        return max(face_scores, default=_MIN_REPORTED_SCORE)


def _to_box(box: dlib.rectangle) -> Box:
    """The edges of a box; dlib's rectangles include their last pixel."""
    return (float(box.left()), float(box.top()), float(box.right() + 1), float(box.bottom() + 1))


def _to_rectangle(edges: Box) -> dlib.rectangle:
    left, top, right, bottom = (round(edge) for edge in edges)
    return dlib.rectangle(left, top, right - 1, bottom - 1)
