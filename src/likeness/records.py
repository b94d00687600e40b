"""Frozen records of numpy arrays that all sub-packages share.

Pictures are uint8 RGB, height first. Boxes are `(left, top, right, bottom)` in pixels. The five landmarks are in
picture order: outer and inner corner of the eye at the image's left, inner and outer corner of the eye at the
image's right, base of the nose; engines other than dlib find other points, which `layout` names.
"""

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

import numpy as np

from likeness.errors import Box

__all__ = ["LANDMARK_NAMES", "Box", "Clip", "Comparison", "Detection", "EmbeddingMetric", "Face", "Pose", "Similarity"]

EmbeddingMetric = Literal["distance", "cosine"]
"""How an engine's threshold was calibrated: by the distance of raw embeddings (dlib), or by their cosine. In the second
case the distance is that of the normalized embeddings, sqrt(2 - 2 cosine)."""

LANDMARK_NAMES = (
    "image-left eye, outer corner",
    "image-left eye, inner corner",
    "image-right eye, inner corner",
    "image-right eye, outer corner",
    "base of the nose",
)


@dataclass(frozen=True, kw_only=True, slots=True)
class Pose:
    """Head pose as seen by the viewer of the picture. All zero is a frontal, upright head."""

    yaw_deg: float
    """Positive: the nose points to the right side of the picture."""
    pitch_deg: float
    """Positive: the head looks up."""
    roll_deg: float
    """Positive: the head is tilted clockwise in the picture."""


@dataclass(frozen=True, kw_only=True, slots=True, eq=False)
class Detection:
    """One detected face."""

    box: Box
    landmarks: np.ndarray
    """(5, 2) float32, pixels."""
    score: float
    """Confidence of the detector; scores of different engines do not compare."""
    layout: str = "eye corners"
    """Which five points the landmarks are (`likeness.faces.layouts`); those of two layouts do not compare."""


@dataclass(frozen=True, kw_only=True, slots=True, eq=False)
class Face:
    """One face, read from one picture."""

    box: Box
    landmarks: np.ndarray
    """(5, 2) float32, pixels of the picture it came from."""
    pose: Pose
    embedding: np.ndarray
    """(128,) float32 for dlib, (512,) for ArcFace; not normalized."""
    score: float
    crop: np.ndarray
    """(224, 224, 3) uint8 RGB, the whole head, eyes level."""
    engine: str
    """Name of the engine; embeddings of different engines do not compare."""
    source: str
    """File name or other origin of the picture, for messages and records."""
    threshold: float = 0.6
    """Embedding distance, as `metric` takes it, under which the engine calls two faces one person."""
    metric: EmbeddingMetric = "distance"
    layout: str = "eye corners"
    """Which five points the landmarks are (`likeness.faces.layouts`); those of two layouts do not compare."""
    detail: np.ndarray | None = None
    """(512, 512, 3) uint8 RGB, the region of `crop` in more pixels; None if the picture is no longer available."""
    whole_image: np.ndarray | None = None
    """(224, 224, 3) uint8 RGB, the picture with its shorter side resized to 224 px, then center-cropped: the input of
    CLIP in PhotoMaker-V2. None in video frames and saved characters."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Comparison:
    """Comparison of two faces."""

    distance: float
    """Euclidean distance of the embeddings, taken as `metric` says."""
    cosine: float
    """Raw cosine of the embeddings; unrelated people already reach about 0.84 with dlib."""
    threshold: float
    """Calibrated distance under which two faces count as one person."""
    metric: EmbeddingMetric = "distance"

    @property
    def min_cosine(self) -> float | None:
        """Minimum cosine of the same person, if the engine was calibrated by cosine."""
        return 1 - self.threshold**2 / 2 if self.metric == "cosine" else None

    @property
    def is_same(self) -> bool:
        return self.distance < self.threshold


@dataclass(frozen=True, kw_only=True, slots=True, eq=False)
class Similarity:
    """Identity similarity of each frame of a clip to its reference."""

    distances: np.ndarray
    """(frames,) float32, NaN where no face was found."""
    cosines: np.ndarray
    """(frames,) float32, NaN where no face was found."""
    threshold: float
    """Distance under which a frame counts as the same person."""

    @property
    def mean(self) -> float:
        """Mean raw cosine over the frames with a face ("Average ID Similarity"); NaN if there is none."""
        return _mean(self.cosines)

    @property
    def mean_distance(self) -> float:
        return _mean(self.distances)

    @property
    def face_rate(self) -> float:
        """Share of all frames in which a face was found."""
        return float(np.isfinite(self.distances).mean()) if len(self.distances) else 0.0

    @property
    def match_rate(self) -> float:
        """Share of all frames that are nearer to the reference than the threshold."""
        return float((self.distances < self.threshold).mean()) if len(self.distances) else 0.0

    @property
    def score(self) -> float:
        """Score of a clip from 0 to 1: the mean over all frames of 1 - distance / (2 * threshold).

        A frame at the threshold gives 0.5, one without a face gives 0.
        """
        if not len(self.distances):
            return 0.0
        frame_scores = 1 - self.distances.astype(np.float64) / (2 * self.threshold)
        return float(np.clip(np.nan_to_num(frame_scores, nan=0.0), 0, 1).mean())

    def to_dict(self) -> dict[str, Any]:
        """JSON-able, with None for missing numbers."""
        return {
            "score": self.score,
            "mean_cosine": _finite_or_none(self.mean),
            "mean_distance": _finite_or_none(self.mean_distance),
            "face_rate": self.face_rate,
            "match_rate": self.match_rate,
            "threshold": self.threshold,
            "cosines": [_finite_or_none(value) for value in self.cosines],
            "distances": [_finite_or_none(value) for value in self.distances],
        }


@dataclass(frozen=True, kw_only=True, slots=True, eq=False)
class Clip:
    """A generated video and its settings, which suffice to generate it again."""

    frames: np.ndarray
    """(frames, height, width, 3) uint8 RGB."""
    fps: float
    prompt: str
    settings: dict[str, Any] = field(default_factory=dict)
    """JSON-able: seed, steps, guidance, versions, checksums, licence preset."""
    similarity: Similarity | None = None
    references: tuple[Face, ...] = ()
    people: tuple[Similarity, ...] = ()
    """For several people: the similarity of each, in the order of their numbers."""

    @property
    def duration_s(self) -> float:
        return len(self.frames) / self.fps

    def to_dict(self) -> dict[str, Any]:
        """The record that is stored in the video and beside it."""
        return {
            "prompt": self.prompt,
            "num_frames": len(self.frames),
            "height_px": int(self.frames.shape[1]),
            "width_px": int(self.frames.shape[2]),
            "fps": self.fps,
            "references": [Path(face.source).name for face in self.references],
            "settings": self.settings,
            "similarity": None if self.similarity is None else self.similarity.to_dict(),
            **({"people": [one.to_dict() for one in self.people]} if self.people else {}),
        }

    def save(self, path: str | Path, *, enlarge: int | None = None, overwrite: bool = True) -> Path:
        """Write the video to `path`, its record inside the video and beside it as `.json`.

        `enlarge` is the factor between the frames and the saved video; small frames are enlarged by default.
        `overwrite=False` refuses to replace a clip of that name. A file that is no record is never replaced by one.
        """
        # The only upward import of this layer, for the convenience of `clip.save`.
        from likeness.generation.outputs.save import save_clip

        return save_clip(self, path, enlarge=enlarge, overwrite=overwrite)


def _mean(values: np.ndarray) -> float:
    finite = values[np.isfinite(values)]
    return float(finite.mean()) if len(finite) else float("nan")


def _finite_or_none(value: float) -> float | None:
    return float(value) if np.isfinite(value) else None
