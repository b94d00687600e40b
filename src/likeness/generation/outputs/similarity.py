"""Identity similarity of a clip: each frame's face embedding compared with the reference embedding.

dlib's recognizer embeds each frame; the reference is the mean of the references' embeddings. A frame without a face has
the distance NaN: it lowers the face rate and does not enter the mean. In `tiny` the recognizer is the network that also
conditions the method (docs/evidence.md).
"""

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from likeness.errors import FaceError
from likeness.faces import FRAME_DETECTION_PX, default_engine, distances, find_faces, prominence
from likeness.records import Face, Similarity

if TYPE_CHECKING:
    from likeness.adapters.conditioning.regions import NormalizedBox


def refuse_other_engines(references: Sequence[Face]) -> None:
    """Refuse references whose embeddings do not compare with those of frames.

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
    """Average the embeddings of the references."""
    return np.stack([face.embedding for face in references]).mean(axis=0, dtype=np.float64).astype(np.float32)


def frame_embeddings(frames: np.ndarray) -> np.ndarray:
    """Embed the largest face of each frame.

    Shapes:
        frames: (frames, height, width, 3) uint8
        returns: (frames, width) float32, NaN where no face was found; dlib's width is 128
    """
    embeddings = np.full((len(frames), default_engine().embedding_width), np.nan, dtype=np.float32)
    for index, frame in enumerate(frames):
        faces = find_faces(frame, enlarge_to_px=FRAME_DETECTION_PX)
        if faces:
            embeddings[index] = max(faces, key=prominence).embedding
    return embeddings


def measure_clip(
    frames: np.ndarray, people: Sequence[Sequence[Face]], boxes: "Sequence[NormalizedBox]"
) -> tuple[Similarity, tuple[Similarity, ...]]:
    """Compare every frame with the references.

    Returns:
        The similarity of the clip and, for several people, that of each. The distance of a frame is the largest of its
        people, and NaN if one of them was not found.
    """
    if len(people) == 1:
        return measure_similarity(frames, people[0]), ()
    per_person = measure_people(frames, people, boxes)
    joint = Similarity(
        distances=np.stack([similarity.distances for similarity in per_person]).max(axis=0),
        cosines=np.stack([similarity.cosines for similarity in per_person]).min(axis=0),
        threshold=per_person[0].threshold,
    )
    return joint, per_person


def measure_similarity(frames: np.ndarray, references: Sequence[Face]) -> Similarity:
    """Compare the largest face of every frame with the references.

    Raises:
        FaceError: A reference was read by another engine than frames are.
    """
    refuse_other_engines(references)
    return _compare_to_mean(frame_embeddings(frames), references)


def measure_people(
    frames: np.ndarray, people: Sequence[Sequence[Face]], boxes: "Sequence[NormalizedBox]"
) -> tuple[Similarity, ...]:
    """Compare the face in each person's area of every frame with the references of that person.

    Raises:
        FaceError: A reference was read by another engine than frames are.
    """
    refuse_other_engines([face for references in people for face in references])
    missing = np.full_like(people[0][0].embedding, np.nan)
    faces_by_frame = [faces_by_box(frame, boxes) for frame in frames]
    return tuple(
        _compare_to_mean(
            np.stack([missing if (face := faces[number]) is None else face.embedding for faces in faces_by_frame]),
            references,
        )
        for number, references in enumerate(people)
    )


def faces_by_box(frame: np.ndarray, boxes: "Sequence[NormalizedBox]") -> list[Face | None]:
    """The most prominent face with its center in each area; None where there is none."""
    height, width = frame.shape[:2]
    # The detector gets each person at the scale of a frame of one person.
    faces = find_faces(frame, enlarge_to_px=round(FRAME_DETECTION_PX * max(height, width) / min(height, width)))
    chosen: list[Face | None] = []
    for left, top, right, bottom in boxes:
        inside = [
            face
            for face in faces
            if left <= (face.box[0] + face.box[2]) / 2 / width < right
            and top <= (face.box[1] + face.box[3]) / 2 / height < bottom
        ]
        chosen.append(max(inside, key=prominence, default=None))
    return chosen


def _compare_to_mean(embeddings: np.ndarray, references: Sequence[Face]) -> Similarity:
    """Compare embeddings (frames, width) with the mean of the references."""
    reference = mean_embedding(references)
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
    distance_values, cosines = numbers
    return Similarity(distances=distance_values, cosines=cosines, threshold=record["threshold"])


def describe_similarity(similarity: Similarity | None) -> str:
    """One line: the score from 0 to 1, then mean distance, cosine and face rate."""
    if similarity is None or similarity.face_rate == 0:
        return "no face found in any frame"
    return (
        f"similarity {similarity.score:.2f}: distance to the reference {similarity.mean_distance:.2f} "
        f"(cosine {similarity.mean:.3f}), face found in {similarity.face_rate:.0%} of frames"
    )
