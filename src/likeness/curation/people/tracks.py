"""Finds the faces of a shot and makes one candidate for each track of a face; of a picture, one for each face.

Arrays of a track have one row for each sampled frame in which its face was found:

    frames      (samples,) int64, numbers in the source
    boxes       (samples, 4) float32, pixels of the source
    landmarks   (samples, 5, 2) float32, pixels of the source
    poses       (samples, 3) float32: yaw, pitch, roll in degrees
    scores      (samples,) float32, of the detector
    embeddings  (samples, width) float32, not normalized
"""

from collections.abc import Sequence
from typing import ClassVar

import numpy as np
from pydantic import Field

from likeness.config import Settings
from likeness.curation.people.tracker import FaceTracker, Track
from likeness.curation.stage import Candidate, Needs, SourceView, register
from likeness.curation.stages.frames import walk, with_arrays, with_facts
from likeness.faces.engines.base import FaceEngine
from likeness.faces.engines.registry import resolve_engine
from likeness.faces.read import FRAME_DETECTION_PX, find_faces
from likeness.records import Face

ARRAYS = ("frames", "boxes", "landmarks", "poses", "scores", "embeddings")


class TrackSettings(Settings):
    """How faces are found and joined."""

    engine: str = ""
    """A face engine (`likeness.faces.ENGINE_NAMES`); empty for the default one."""
    sample_fps: float = Field(default=4.0, gt=0)
    """Frames searched for each second of a video."""
    max_side_px: int = Field(default=1280, ge=16)
    """Larger frames are scaled down before faces are searched."""
    enlarge_to_px: int = Field(default=FRAME_DETECTION_PX, ge=1)
    """Smaller frames are enlarged to this longer side before faces are searched."""
    max_gap_s: float = Field(default=1.0, ge=0)
    """A face that is not found for longer begins a new track."""
    min_samples: int = Field(default=3, ge=1)
    """Tracks of a video with fewer faces are dropped: false boxes and passers-by."""


@register("tracks")
class Tracks:
    """One candidate for each person who is seen without a longer break.

    Args:
        settings: See `TrackSettings`.
        engine: An engine, instead of the one that the settings name.
    """

    name = "tracks"
    version = 1
    reads = ()
    writes = (*ARRAYS, "track", "engine", "metric", "threshold", "layout", "num_others", "coverage")
    needs = Needs()
    Settings = TrackSettings
    limits: ClassVar = {"track too short": "min_samples"}

    def __init__(self, settings: TrackSettings, engine: FaceEngine | None = None) -> None:
        self._engine = engine or resolve_engine(settings.engine or None)
        # The default engine depends on the environment; results are kept by the engine that made them.
        self.settings = settings.model_copy(update={"engine": self._engine.name})

    def __call__(self, candidates: list[Candidate], view: SourceView) -> list[Candidate]:
        return [track for candidate in candidates for track in self._track(candidate, view, self._engine)]

    def _track(self, candidate: Candidate, view: SourceView, engine: FaceEngine) -> list[Candidate]:
        is_video = view.source.kind == "video"
        step = max(1, round(view.fps / self.settings.sample_fps)) if is_video else 1
        tracker = FaceTracker(max_gap=round(self.settings.max_gap_s * view.fps / step) if is_video else 0)
        numbers, scale = [], 1.0
        for number, frame in walk(candidate, view, step=step, max_side_px=self.settings.max_side_px):
            numbers.append(number)
            scale = view.width_px / frame.shape[1]
            tracker.add(find_faces(frame, engine, enlarge_to_px=self.settings.enlarge_to_px))
        tracks = tracker.finish()
        if not tracks:
            return [candidate.drop(self.name, "no face", len(numbers))]
        parts = []
        for index, track in enumerate(tracks):
            part = self._part(candidate, tracks, index, numbers, scale)
            if is_video and len(track.samples) < self.settings.min_samples:
                part = part.drop(self.name, "track too short", len(track.samples))
            parts.append(part)
        return parts

    def _part(
        self, candidate: Candidate, tracks: Sequence[Track], index: int, numbers: Sequence[int], scale: float
    ) -> Candidate:
        track, face = tracks[index], tracks[index].faces[0]
        first, last = track.samples[0], track.samples[-1]
        start = numbers[first] if first else candidate.first_frame
        # A track that reaches the last sample lasts to the end of the shot.
        is_last = last == len(numbers) - 1
        end = candidate.first_frame + candidate.num_frames if is_last else numbers[last] + 1
        part = candidate.split(start, end - start, track=str(index))
        part = with_facts(
            part,
            track=index,
            engine=face.engine,
            metric=face.metric,
            threshold=face.threshold,
            layout=face.layout,
            num_others=count_others(tracks, index),
            coverage=len(track.samples) / (last - first + 1),
        )
        return with_arrays(part, **face_arrays(track.faces, [numbers[sample] for sample in track.samples], scale))


def face_arrays(faces: Sequence[Face], numbers: Sequence[int], scale: float = 1.0) -> dict[str, np.ndarray]:
    """The arrays of a track; see the module.

    Args:
        faces: One for each sample.
        numbers: Of their frames.
        scale: Pixels of the source for each pixel in which the faces were found.
    """
    poses = [(face.pose.yaw_deg, face.pose.pitch_deg, face.pose.roll_deg) for face in faces]
    return {
        "frames": np.array(numbers, dtype=np.int64),
        "boxes": (np.array([face.box for face in faces]) * scale).astype(np.float32),
        "landmarks": ((np.stack([face.landmarks for face in faces]) + 0.5) * scale - 0.5).astype(np.float32),
        "poses": np.array(poses, dtype=np.float32),
        "scores": np.array([face.score for face in faces], dtype=np.float32),
        "embeddings": np.stack([face.embedding for face in faces]).astype(np.float32),
    }


def count_others(tracks: Sequence[Track], index: int) -> int:
    """Most other faces in one of the samples of a track; tracks of a single sample in a longer shot do not count."""
    own = set(tracks[index].samples)
    counts = dict.fromkeys(own, 0)
    for number, track in enumerate(tracks):
        if number == index or (len(track.samples) == 1 and len(own) > 2):
            continue
        for sample in own & set(track.samples):
            counts[sample] += 1
    return max(counts.values())
