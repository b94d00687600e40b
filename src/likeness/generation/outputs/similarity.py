"""How alike the person in a clip is to the reference, frame by frame.

dlib's recogniser reads each frame; the reference is the mean of the references' embeddings. A frame in which no face
is found has no distance: it is NaN and counts against the face rate, never against the mean. The recogniser is not the
one that a method is conditioned on where the two differ; in `tiny` they are the same network (docs/evidence.md).
"""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from likeness.errors import FaceError
from likeness.faces import DETECTION_PX, default_engine, distances, find_faces, prominence
from likeness.records import Face, Similarity


def refuse_other_engines(references: Sequence[Face]) -> None:
    """Refuse references that frames cannot be held against.

    Raises:
        FaceError: A reference was read by another engine than frames are.
    """
    name = default_engine().name
    for face in references:
        if face.engine != name:
            raise FaceError(
                f"{face.source} was read by `{face.engine}`, but frames are read by `{name}`, and embeddings of "
                f"different engines do not compare. Read the reference with `{name}`, or generate with "
                "`generate_many(..., is_measured=False)`."
            )


def mean_embedding(references: Sequence[Face]) -> np.ndarray:
    """Average the references' embeddings: the point against which frames are measured."""
    return np.stack([face.embedding for face in references]).mean(axis=0, dtype=np.float64).astype(np.float32)


def frame_embeddings(frames: np.ndarray) -> np.ndarray:
    """Embed the largest face of each frame.

    Shapes:
        frames: (frames, height, width, 3) uint8
        returns: (frames, width) float32, NaN where no face was found; dlib's width is 128
    """
    embeddings = np.full((len(frames), default_engine().embedding_width), np.nan, dtype=np.float32)
    for index, frame in enumerate(frames):
        faces = find_faces(frame, enlarge_to_px=DETECTION_PX)
        if faces:
            embeddings[index] = max(faces, key=prominence).embedding
    return embeddings


def measure_similarity(frames: np.ndarray, references: Sequence[Face]) -> Similarity:
    """Hold every frame against the references.

    Raises:
        FaceError: A reference was read by another engine than frames are.
    """
    refuse_other_engines(references)
    reference = mean_embedding(references)
    embeddings = frame_embeddings(frames)
    cosines = embeddings @ reference / (np.linalg.norm(embeddings, axis=1) * np.linalg.norm(reference))
    return Similarity(
        distances=distances(embeddings, reference, references[0].metric).astype(np.float32),
        cosines=cosines.astype(np.float32),
        threshold=references[0].threshold,
    )


def read_similarity(record: Mapping[str, Any]) -> Similarity:
    """Turn what `Similarity.to_dict` wrote back into a `Similarity`."""
    numbers = (
        np.array([np.nan if value is None else value for value in record[name]], dtype=np.float32)
        for name in ("distances", "cosines")
    )
    measured, cosines = numbers
    return Similarity(distances=measured, cosines=cosines, threshold=record["threshold"])


def describe_similarity(similarity: Similarity | None) -> str:
    """A few words for one line: similarity from 0 to 1, then what it is made of."""
    if similarity is None or similarity.face_rate == 0:
        return "no face found in any frame"
    return (
        f"similarity {similarity.score:.2f}: distance to the reference {similarity.mean_distance:.2f} "
        f"(cosine {similarity.mean:.3f}), face found in {similarity.face_rate:.0%} of frames"
    )
