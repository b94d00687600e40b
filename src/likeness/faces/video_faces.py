"""Reads references from a short video of a person: several different views instead of one photograph.

Frames are sampled, their prominent faces are clustered into people, and `views.py` chooses among the faces of one
person.
"""

from collections.abc import Sequence
from pathlib import Path

import numpy as np

from likeness.errors import FaceError, MediaError, NoFaceError, SmallFaceError
from likeness.faces.engines.base import FaceEngine, distances
from likeness.faces.engines.registry import resolve_engine
from likeness.faces.read import MIN_SIDE_PX, find_faces, shorter_side_px
from likeness.faces.views import NUM_VIEWS, choose_faces
from likeness.media import sample_video
from likeness.records import Face

NUM_FRAMES = 32
"""Largest number of sampled frames."""
MIN_SECONDS = 1.0
"""A shorter video shows a person from one side only, as a picture does."""
MIN_FRAMES_WITH_FACE = 3
_MIN_FRAME_SHARE = 0.25
"""People in a smaller share of the sampled frames are ignored: passers-by and false boxes."""


def read_video_faces(
    path: str | Path,
    num_views: int = NUM_VIEWS,
    *,
    pick: int | None = None,
    engine: FaceEngine | str | None = None,
) -> list[Face]:
    """Read the views of one person in a short video that differ most.

    Args:
        path: A video file.
        num_views: Largest number of views; a person who does not move gives fewer.
        pick: Number of the person if there are several, counted from the left starting at 1.
        engine: An engine or its name; by default `default_engine()`.

    Returns:
        Views in the order of choice, the most frontal first.

    Raises:
        MediaError: The file is not a readable video, or is too short.
        NoFaceError: No sampled frame has a face.
        SmallFaceError: Faces are smaller than `MIN_SIDE_PX` in every frame.
        FaceError: Too few frames have a face, there are several people and `pick` is None, or `pick` is out of range.
    """
    frames, duration_s = sample_video(path, NUM_FRAMES)
    if duration_s < MIN_SECONDS:
        raise MediaError(
            f"{path} lasts {duration_s:.2g} s; at least {MIN_SECONDS:g} s are needed to see a person from several "
            "sides. Film a few seconds in which the head turns slowly, or give a picture."
        )
    people = find_people(frames, engine=engine, source=str(path))
    return choose_faces(_choose_person(people, len(frames), pick, str(path)), num_views)


def find_people(
    frames: np.ndarray, *, engine: FaceEngine | str | None = None, source: str = "video"
) -> list[list[Face]]:
    """Group the faces in frames by person, from left to right; people in few frames are ignored.

    Args:
        frames: (frames, height, width, 3) uint8.
        engine: An engine or its name; by default `default_engine()`.
        source: Where the frames came from, for messages and records.

    Raises:
        NoFaceError: No frame has a face.
        SmallFaceError: Faces are smaller than `MIN_SIDE_PX` in every frame.
        FaceError: Too few frames have a face.
    """
    engine = resolve_engine(engine)
    all_faces = [
        face
        for number, frame in enumerate(frames)
        for face in find_faces(frame, engine, source=f"{source} (sample {number + 1})")
    ]
    if not all_faces:
        raise NoFaceError(source, best_score=None, min_score=engine.min_score)
    large_faces = [face for face in all_faces if shorter_side_px(face) >= MIN_SIDE_PX]
    if not large_faces:
        raise SmallFaceError(source, side_px=max(map(shorter_side_px, all_faces)), min_side_px=MIN_SIDE_PX)
    people = sorted(_cluster(large_faces), key=len, reverse=True)
    min_frames = max(MIN_FRAMES_WITH_FACE, _MIN_FRAME_SHARE * len(frames))
    frequent = [faces for faces in people if len(faces) >= min_frames] or people[:1]
    if len(frequent[0]) < min(MIN_FRAMES_WITH_FACE, len(frames)):
        raise FaceError(
            f"{source} shows a face in {len(frequent[0])} of {len(frames)} frames that were searched; at least "
            f"{MIN_FRAMES_WITH_FACE} are needed. Use a video in which the person stays in the picture, or a picture."
        )
    return sorted(frequent, key=lambda faces: float(np.median([face.box[0] + face.box[2] for face in faces])))


def _choose_person(people: Sequence[list[Face]], num_frames: int, pick: int | None, source: str) -> list[Face]:
    if len(people) == 1 and pick is None:
        return people[0]
    if pick is None:
        listed = "\n".join(
            f"  {number}: in {len(faces)} of {num_frames} frames, "
            f"about {np.median([face.box[0] for face in faces]):.0f} px from the left"
            for number, faces in enumerate(people, start=1)
        )
        raise FaceError(
            f"{len(people)} people are seen in {source} where one was meant. From the left:\n{listed}\n"
            "Choose one by number with `--pick N`, or cut the video so that one person shows."
        )
    if not 1 <= pick <= len(people):
        raise FaceError(f"`pick` is {pick}, but {source} shows {len(people)} people. Use 1 to {len(people)}.")
    return people[pick - 1]


def _cluster(faces: list[Face]) -> list[list[Face]]:
    """Greedy clustering: a face joins the nearest mean embedding within the threshold, or starts a new person."""
    people: list[list[Face]] = []
    for face in faces:
        means = [np.mean([other.embedding for other in person], axis=0) for person in people]
        distances_to_means = [float(distances(mean[None], face.embedding, face.metric)[0]) for mean in means]
        if distances_to_means and min(distances_to_means) < face.threshold:
            people[int(np.argmin(distances_to_means))].append(face)
        else:
            people.append([face])
    return people
