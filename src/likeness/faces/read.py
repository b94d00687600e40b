"""Detects the faces in a picture, drops false detections and describes each remaining face."""

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np

from likeness.errors import FaceError, ManyFacesError, MediaError, NoFaceError, SmallFaceError
from likeness.faces.engines.base import DetectionPass, FaceEngine, ThoroughEngine, distances, rescale
from likeness.faces.engines.registry import resolve_engine
from likeness.faces.geometry.align import crop_head, head_pose
from likeness.media import read_image, resize, resize_and_center_crop
from likeness.records import Comparison, Detection, Face

MIN_SIDE_PX = 32
"""Smallest face box that `read_face` accepts as a reference, in pixels of the given picture. At this size dlib errs in
verification as at full size, below it more often (docs/evidence.md)."""
DETAIL_PX = 512
"""Side of `Face.detail`. Only references have it; for every frame of a video it would cost too much."""
FRAME_DETECTION_PX = 384
"""Longer side to which frames of generated videos are enlarged before detection (`enlarge_to_px` of `find_faces`)."""
WHOLE_IMAGE_PX = 224
"""Side of `Face.whole_image`."""
_MIN_PROMINENCE = 0.15
"""Detections with less than this share of the largest prominence are dropped: false boxes, people in the background."""


def find_faces(
    picture: np.ndarray,
    engine: FaceEngine | str | None = None,
    *,
    enlarge_to_px: int | None = None,
    source: str = "picture",
) -> list[Face]:
    """All prominent faces in a uint8 RGB picture, from left to right; an empty list if there is none.

    Args:
        picture: (height, width, 3) uint8.
        engine: an engine or its name (`likeness.faces.ENGINE_NAMES`); by default `default_engine()`.
        enlarge_to_px: enlarge smaller pictures to this longer side before detection. Detectors made for photographs
            need it for small frames (64 px to 384 px). Boxes and landmarks are returned in pixels of `picture`.
        source: where the picture came from, for records.
    """
    engine = resolve_engine(engine)
    height, width = picture.shape[:2]
    if enlarge_to_px is not None and max(height, width) < enlarge_to_px:
        scale = enlarge_to_px / max(height, width)
        enlarged = resize(picture, round(width * scale), round(height * scale))
        detections = _keep_prominent(engine.detect(enlarged), engine)
        return [_to_face(enlarged, detection, engine, scale=scale, source=source) for detection in detections]
    # Many frames have no face, so passes that cost more than the first one are left to `read_face`.
    detection_passes = [
        detection_pass
        for detection_pass in engine.detection_passes
        if detection_pass.side_px <= engine.detection_passes[0].side_px
    ]
    detections, _ = _detect_in_passes(picture, engine, detection_passes)
    return [_to_face(picture, detection, engine, source=source) for detection in detections]


def read_face(
    picture: str | Path | np.ndarray, *, pick: int | None = None, engine: FaceEngine | str | None = None
) -> Face:
    """Read the one face of a reference picture.

    Args:
        picture: a file, or (height, width, 3) uint8 RGB.
        pick: number of the face if several are prominent, counted from the left starting at 1.
        engine: an engine or its name (`likeness.faces.ENGINE_NAMES`); by default `default_engine()`.

    Raises:
        MediaError: the file is not a readable picture.
        NoFaceError: there is no face.
        SmallFaceError: the face is smaller than `MIN_SIDE_PX`.
        ManyFacesError: several faces are prominent and `pick` is not given.
        FaceError: `pick` is larger than the number of faces.
        ConfigError: no engine has that name.
        WeightsError: the engine's models are missing; the message names the command that fetches them.
    """
    engine = resolve_engine(engine)
    source, pixels = _load_picture(picture)
    prominent, detections = _detect_in_passes(pixels, engine, engine.detection_passes)
    if not prominent and isinstance(engine, ThoroughEngine):
        prominent = _keep_prominent(engine.detect_thoroughly(pixels), engine)
    if not prominent:
        best_score = max((detection.score for detection in detections), default=None)
        raise NoFaceError(source, best_score=best_score, min_score=engine.min_score)
    detection = _pick_detection(prominent, pick, source)
    side_px = shorter_side_px(detection)
    if side_px < MIN_SIDE_PX:
        raise SmallFaceError(source, side_px=side_px, min_side_px=MIN_SIDE_PX)
    detail = crop_head(pixels, detection.landmarks, DETAIL_PX, layout=engine.layout)
    face = _to_face(pixels, detection, engine, source=source)
    return replace(face, detail=detail, whole_image=resize_and_center_crop(pixels, WHOLE_IMAGE_PX))


def compare(a: Face, b: Face) -> Comparison:
    """Compare two faces by embedding distance, with the engine's calibrated threshold.

    Raises:
        FaceError: the faces were read by different engines.
    """
    if a.engine != b.engine:
        raise FaceError(
            f"One face was read by `{a.engine}`, the other by `{b.engine}`; their embeddings do not compare. "
            "Read both with one engine."
        )
    norms = float(np.linalg.norm(a.embedding) * np.linalg.norm(b.embedding))
    return Comparison(
        distance=float(distances(a.embedding[None], b.embedding, a.metric)[0]),
        cosine=float(a.embedding @ b.embedding) / max(norms, 1e-12),
        threshold=a.threshold,
        metric=a.metric,
    )


def prominence(face: Face | Detection) -> float:
    """Score times area: large for the main subject, small for false boxes."""
    left, top, right, bottom = face.box
    return max(face.score, 0.0) * (right - left) * (bottom - top)


def shorter_side_px(face: Face | Detection) -> float:
    """Shorter side of a face's box."""
    left, top, right, bottom = face.box
    return min(right - left, bottom - top)


def _load_picture(picture: str | Path | np.ndarray) -> tuple[str, np.ndarray]:
    if not isinstance(picture, np.ndarray):
        return str(picture), read_image(picture)
    if picture.ndim != 3 or picture.shape[-1] != 3 or picture.dtype != np.uint8 or not picture.size:
        raise MediaError(f"The picture is {picture.dtype} {picture.shape}; uint8 (height, width, 3) is needed.")
    return "the picture given", picture


def _detect_in_passes(
    picture: np.ndarray, engine: FaceEngine, detection_passes: Sequence[DetectionPass]
) -> tuple[list[Detection], list[Detection]]:
    """Detect at one size after the other until a face is found.

    Returns:
        The prominent faces, and all detections of all passes.
    """
    all_detections: list[Detection] = []
    scales: list[float] = []
    for detection_pass in detection_passes:
        scale = min(detection_pass.side_px / max(picture.shape[:2]), detection_pass.max_scale)
        if scale < detection_pass.min_scale or scale in scales:
            continue
        scales.append(scale)
        all_detections += _detect_scaled(picture, engine, scale)
        if prominent := _keep_prominent(all_detections, engine):
            return prominent, all_detections
    return [], all_detections


def _detect_scaled(picture: np.ndarray, engine: FaceEngine, scale: float) -> list[Detection]:
    if scale == 1.0:
        return engine.detect(picture)
    height, width = picture.shape[:2]
    # The quick filter gives the same detections and shrinks a large picture five times as fast.
    resized = resize(picture, max(1, round(width * scale)), max(1, round(height * scale)), is_quick=True)
    return [rescale(detection, scale) for detection in engine.detect(resized)]


def _keep_prominent(detections: list[Detection], engine: FaceEngine) -> list[Detection]:
    faces = [detection for detection in detections if detection.score >= engine.min_score]
    threshold = _MIN_PROMINENCE * max((prominence(detection) for detection in faces), default=0.0)
    return sorted((d for d in faces if prominence(d) >= threshold), key=lambda detection: detection.box[0])


def _pick_detection(detections: list[Detection], pick: int | None, source: str) -> Detection:
    if len(detections) == 1:
        return detections[0]
    boxes = [detection.box for detection in detections]
    if pick is None:
        raise ManyFacesError(source, boxes)
    if not 1 <= pick <= len(detections):
        raise FaceError(f"`pick` is {pick}, but {source} shows {len(detections)} faces. Use 1 to {len(detections)}.")
    return detections[pick - 1]


def _to_face(picture: np.ndarray, detection: Detection, engine: FaceEngine, *, source: str, scale: float = 1.0) -> Face:
    """Embed and crop from `picture`; box and landmarks are returned in pixels of the picture before scaling."""
    if detection.layout != engine.layout.name:
        raise FaceError(
            f"The detection's landmarks are {detection.layout}, `{engine.name}` needs {engine.layout.name}; "
            "they do not mix. Detect and embed with one engine."
        )
    original = rescale(detection, scale)
    return Face(
        box=original.box,
        landmarks=original.landmarks,
        pose=head_pose(detection.landmarks, layout=engine.layout),
        embedding=engine.embed(picture, detection.landmarks),
        score=detection.score,
        crop=crop_head(picture, detection.landmarks, layout=engine.layout),
        engine=engine.name,
        source=source,
        threshold=engine.threshold,
        metric=engine.metric,
        layout=engine.layout.name,
    )
