"""What is measured on pixels, once for each video, and shared by every metric that needs it.

A feature turns the frames of one video into a few small arrays. It knows no reference and no prompt, so that its
arrays can be kept by the video's bytes alone: other references, prompts or formulas cost no second look at the pixels.
A metric declares the features it needs; a feature declares the weights it needs and the features that it builds on.
Those of large networks stand in `networks.features`.
"""

import hashlib
from collections.abc import Iterable

import numpy as np

from likeness.evaluation.features.base import Feature, Features, Footage, comparable
from likeness.evaluation.features.flow import measure_flow
from likeness.evaluation.features.networks.features import NETWORK_FEATURES
from likeness.faces import DETECTION_PX, FaceEngine, find_faces, prominence
from likeness.records import Face


def measure_faces(footage: Footage, _: Features) -> dict[str, np.ndarray]:
    """All prominent faces of all frames, by the identity engine. A frame that comes again is not looked at again.

    Shapes:
        frame: (faces,) int64, the frame that each row belongs to, rising
        box: (faces, 4) float32 px
        landmarks: (faces, 5, 2) float32 px
        prominence: (faces,) float32, score times area
        embedding: (faces, embedding_width) float32, `comparable`
    """
    engine = footage.engines.identity_engine
    found = _find(footage, engine)
    embeddings = np.array([face.embedding for _, face in found], dtype=np.float32)
    return _places(found) | {"embedding": comparable(embeddings.reshape(-1, engine.embedding_width), engine.metric)}


def measure_landmarks(footage: Footage, _: Features) -> dict[str, np.ndarray]:
    """All prominent faces of all frames by the landmark engine; arrays as of `measure_faces`, without embeddings."""
    return _places(_find(footage, footage.engines.landmark_engine))


def _find(footage: Footage, engine: FaceEngine) -> list[tuple[int, Face]]:
    """Faces with the number of their frame."""
    seen: dict[bytes, list[Face]] = {}
    found: list[tuple[int, Face]] = []
    for index, frame in enumerate(footage.frames):
        key = hashlib.blake2b(frame.tobytes()).digest()
        if key not in seen:
            seen[key] = find_faces(frame, engine=engine, enlarge_to_px=DETECTION_PX)
        found.extend((index, face) for face in seen[key])
    return found


def _places(found: list[tuple[int, Face]]) -> dict[str, np.ndarray]:
    return {
        "frame": np.array([index for index, _ in found], dtype=np.int64),
        "box": np.array([face.box for _, face in found], dtype=np.float32).reshape(-1, 4),
        "landmarks": np.array([face.landmarks for _, face in found], dtype=np.float32).reshape(-1, 5, 2),
        "prominence": np.array([prominence(face) for _, face in found], dtype=np.float32),
    }


def measure_farneback(footage: Footage, features: Features) -> dict[str, np.ndarray]:
    """Dense flow by Farneback, summed up for each pair of frames and each face; see `flow.measure_flow`."""
    faces = features["faces"]
    return measure_flow(footage.frames, footage.fps, faces["frame"], faces["box"])


FEATURES: dict[str, Feature] = {
    feature.name: feature
    for feature in (
        Feature(name="faces", version=1, compute=measure_faces, weights=("dlib-landmarks", "dlib-recognizer")),
        Feature(name="landmarks", version=1, compute=measure_landmarks, engine="landmarks"),
        Feature(name="flow", version=2, compute=measure_farneback, builds_on=("faces",)),
        *NETWORK_FEATURES,
    )
}
"""Everything that can be measured, by name."""


def in_order(names: Iterable[str]) -> tuple[str, ...]:
    """The features called `names` and all that they build on, each after what it builds on."""
    order: dict[str, None] = {}

    def visit(name: str) -> None:
        for below in FEATURES[name].builds_on:
            visit(below)
        order[name] = None

    for name in sorted(names):
        visit(name)
    return tuple(order)
