"""A short video of a person as references: the views of them that differ most, in place of one photograph.

Frames are sampled, all prominent faces in them read and sorted into people; whoever shows in many frames counts as
somebody. What `views.py` then chooses of one person's faces are the references.
"""

from collections.abc import Sequence
from pathlib import Path

import numpy as np

from likeness.errors import FaceError, MediaError, NoFaceError, SmallFaceError
from likeness.faces.engines.base import FaceEngine, distances
from likeness.faces.engines.registry import resolve
from likeness.faces.read import MIN_SIDE_PX, find_faces
from likeness.faces.views import NUM_VIEWS, choose_faces
from likeness.media import sample_video
from likeness.records import Face

NUM_FRAMES = 32
"""Frames that are searched, at most."""
MIN_SECONDS = 1.0
"""A shorter video shows a person from one side, as a picture does."""
MIN_FRAMES_WITH_FACE = 3
_SHARE_OF_SOMEBODY = 0.25
"""Who shows in fewer of the searched frames passes by, or is a false box."""


def read_video_faces(
    path: str | Path,
    num_views: int = NUM_VIEWS,
    *,
    pick: int | None = None,
    engine: FaceEngine | str | None = None,
) -> list[Face]:
    """Read the one person of a short video from the sides that differ most.

    Args:
        path: A video file.
        num_views: How many views, at most; a still person gives fewer.
        pick: Where several people are seen, take this one, counted from the left starting at 1.
        engine: An engine or its name; `default_engine()` where none is given.

    Returns:
        Views in the order of choice, the most frontal first.

    Raises:
        MediaError: The file is no readable video, or is too short.
        NoFaceError: No searched frame shows a face.
        SmallFaceError: Faces are smaller than `MIN_SIDE_PX` in every frame.
        FaceError: Faces show in too few frames, several people are seen and `pick` is None, or `pick` is beyond them.
    """
    frames, duration_s = sample_video(path, NUM_FRAMES)
    if duration_s < MIN_SECONDS:
        raise MediaError(
            f"{path} lasts {duration_s:.2g} s; at least {MIN_SECONDS:g} s are needed to see a person from several sides. "
            "Film a few seconds in which the head turns slowly, or give a picture."
        )
    people = find_people(frames, engine=engine, source=str(path))
    return choose_faces(_choose_person(people, len(frames), pick, str(path)), num_views)


def find_people(
    frames: np.ndarray, *, engine: FaceEngine | str | None = None, source: str = "video"
) -> list[list[Face]]:
    """Sort the faces in frames by whose they are, from left to right; who shows in few frames is left out.

    Args:
        frames: (frames, height, width, 3) uint8.
        engine: An engine or its name; `default_engine()` where none is given.
        source: Where the frames came from, for messages and records.

    Raises:
        NoFaceError: No frame shows a face.
        SmallFaceError: Faces are smaller than `MIN_SIDE_PX` in every frame.
        FaceError: Faces show in too few frames.
    """
    engine = resolve(engine)
    found = [
        face
        for number, frame in enumerate(frames)
        for face in find_faces(frame, engine, source=f"{source} (sample {number + 1})")
    ]
    if not found:
        raise NoFaceError(source, best_score=None, min_score=engine.min_score)
    large = [face for face in found if _side_px(face) >= MIN_SIDE_PX]
    if not large:
        raise SmallFaceError(source, side_px=max(map(_side_px, found)), min_side_px=MIN_SIDE_PX)
    people = sorted(_sort(large), key=len, reverse=True)
    least = max(MIN_FRAMES_WITH_FACE, _SHARE_OF_SOMEBODY * len(frames))
    somebody = [faces for faces in people if len(faces) >= least] or people[:1]
    if len(somebody[0]) < min(MIN_FRAMES_WITH_FACE, len(frames)):
        raise FaceError(
            f"{source} shows a face in {len(somebody[0])} of {len(frames)} frames that were searched; at least "
            f"{MIN_FRAMES_WITH_FACE} are needed. Use a video in which the person stays in the picture, or a picture."
        )
    return sorted(somebody, key=lambda faces: float(np.median([face.box[0] + face.box[2] for face in faces])))


def _choose_person(people: Sequence[list[Face]], num_frames: int, pick: int | None, source: str) -> list[Face]:
    if len(people) == 1 and pick is None:
        return people[0]
    if pick is None:
        listed = "\n".join(
            f"  {number}: in {len(faces)} of {num_frames} frames, about {np.median([face.box[0] for face in faces]):.0f} px "
            "from the left"
            for number, faces in enumerate(people, start=1)
        )
        raise FaceError(
            f"{len(people)} people are seen in {source} where one was meant. From the left:\n{listed}\n"
            "Choose one by number with `--pick N`, or cut the video so that one person shows."
        )
    if not 1 <= pick <= len(people):
        raise FaceError(f"`pick` is {pick}, but {source} shows {len(people)} people. Use 1 to {len(people)}.")
    return people[pick - 1]


def _sort(faces: list[Face]) -> list[list[Face]]:
    """Whose faces they are: each joins the person whose mean embedding is nearest and near enough, or is somebody new."""
    people: list[list[Face]] = []
    for face in faces:
        means = [np.mean([other.embedding for other in person], axis=0) for person in people]
        away = [float(distances(mean[None], face.embedding, face.metric)[0]) for mean in means]
        if away and min(away) < face.threshold:
            people[int(np.argmin(away))].append(face)
        else:
            people.append([face])
    return people


def _side_px(face: Face) -> float:
    left, top, right, bottom = face.box
    return min(right - left, bottom - top)
