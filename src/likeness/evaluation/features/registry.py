"""All features: small arrays measured once on each video's pixels and shared by the metrics.

A feature depends on neither references nor prompts, so its arrays are cached by the video's bytes. A metric declares
the features that it needs; a feature declares its weights and the features that it depends on.
"""

import hashlib
from collections.abc import Iterable

import numpy as np

from likeness.evaluation.features.base import DecodedVideo, Feature, Features, normalize_embeddings
from likeness.evaluation.features.flow import measure_flow
from likeness.evaluation.features.networks.features import NETWORK_FEATURES
from likeness.faces import FRAME_DETECTION_PX, FaceEngine, find_faces, prominence
from likeness.records import Face


def measure_faces(video: DecodedVideo, _: Features) -> dict[str, np.ndarray]:
    """All prominent faces of all frames, by the identity engine. Identical frames are searched once.

    Shapes:
        frame: (faces,) int64, the frame of each row, ascending
        box: (faces, 4) float32 px
        landmarks: (faces, 5, 2) float32 px
        prominence: (faces,) float32, score times area
        embedding: (faces, embedding_width) float32, normalized by `normalize_embeddings`
    """
    engine = video.engines.identity_engine
    found = _find(video, engine)
    embeddings = np.array([face.embedding for _, face in found], dtype=np.float32)
    return _places(found) | {
        "embedding": normalize_embeddings(embeddings.reshape(-1, engine.embedding_width), engine.metric)
    }


def measure_landmarks(video: DecodedVideo, _: Features) -> dict[str, np.ndarray]:
    """All prominent faces of all frames by the landmark engine; arrays as of `measure_faces`, without embeddings."""
    return _places(_find(video, video.engines.landmark_engine))


def _find(video: DecodedVideo, engine: FaceEngine) -> list[tuple[int, Face]]:
    """Pairs of frame number and face."""
    seen: dict[bytes, list[Face]] = {}
    found: list[tuple[int, Face]] = []
    for index, frame in enumerate(video.frames):
        key = hashlib.blake2b(frame.tobytes()).digest()
        if key not in seen:
            seen[key] = find_faces(frame, engine=engine, enlarge_to_px=FRAME_DETECTION_PX)
        found.extend((index, face) for face in seen[key])
    return found


def _places(found: list[tuple[int, Face]]) -> dict[str, np.ndarray]:
    return {
        "frame": np.array([index for index, _ in found], dtype=np.int64),
        "box": np.array([face.box for _, face in found], dtype=np.float32).reshape(-1, 4),
        "landmarks": np.array([face.landmarks for _, face in found], dtype=np.float32).reshape(-1, 5, 2),
        "prominence": np.array([prominence(face) for _, face in found], dtype=np.float32),
    }


def measure_farneback(video: DecodedVideo, features: Features) -> dict[str, np.ndarray]:
    """Dense flow by Farneback, summarized for each pair of frames and each face; see `flow.measure_flow`."""
    faces = features["faces"]
    return measure_flow(video.frames, video.fps, faces["frame"], faces["box"])


FEATURES: dict[str, Feature] = {
    feature.name: feature
    for feature in (
        Feature(name="faces", version=1, compute=measure_faces, weights=("dlib-landmarks", "dlib-recognizer")),
        Feature(name="landmarks", version=1, compute=measure_landmarks, engine="landmarks"),
        Feature(name="flow", version=2, compute=measure_farneback, depends_on=("faces",)),
        *NETWORK_FEATURES,
    )
}
"""Every feature by name."""


def sort_by_dependency(names: Iterable[str]) -> tuple[str, ...]:
    """The named features and their dependencies, each after those that it depends on."""
    order: dict[str, None] = {}

    def visit(name: str) -> None:
        for below in FEATURES[name].depends_on:
            visit(below)
        order[name] = None

    for name in sorted(names):
        visit(name)
    return tuple(order)
