"""What an evaluation returns: plain records, one for each video, each system, and the whole.

Everything here is JSON-able (`to_dict`, `save`, `load`) and holds no model. A figure that does not exist is None, never
0: a video without a face has no similarity, a system of one identity no rank-1 rate.

    EvaluationResult
    ├── metrics     name -> MetricRecord: unit, direction, how it was averaged, source
    ├── left_out    name -> why a metric is not in the table, and the command that brings it
    ├── skipped     SkippedFile: files that were not taken, and why
    ├── videos      VideoResult: one number for each metric, the curves over its frames, its error if it has one
    └── systems     SystemResult: mean, spread and count of each metric over its videos, and what only sets have
"""

import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from likeness.errors import MediaError
from likeness.evaluation.inputs.folders import SkippedFile
from likeness.evaluation.metrics.record import MetricRecord
from likeness.files import write_text

RESULTS = ("report.html", "evaluation.json", "comparison.json", "videos.parquet", "frames.parquet")
"""Everything that `export.publish` writes into a folder."""
FORMAT = 1
"""Version of the JSON layout."""


@dataclass(frozen=True, kw_only=True, slots=True)
class VideoResult:
    """The figures of one video."""

    name: str
    path: str
    system: str
    identity: str | None
    """Whose references it was held against; None where it was held against its own first face."""
    prompt: str | None
    sha256: str | None
    num_frames: int
    fps: float
    width_px: int
    height_px: int
    scores: Mapping[str, float | None] = field(default_factory=dict)
    """By metric. None: asked for, but it does not exist for this video."""
    frames: Mapping[str, Sequence[float | None]] = field(default_factory=dict)
    """Curves, one number a frame: `cosine`, `distance`, `num_faces`, `flow_px` ... None where there is none."""
    error: str | None = None
    """Why the video has no figures at all."""

    @property
    def duration_s(self) -> float:
        return self.num_frames / self.fps if self.fps else 0.0


@dataclass(frozen=True, kw_only=True, slots=True)
class Summary:
    """One metric over the videos of one system."""

    mean: float | None
    standard_deviation: float | None
    """Of the videos, with n - 1; None below two videos and for metrics of whole sets."""
    num_videos: int
    """Videos that have the figure; the rest of the system's videos do not."""


@dataclass(frozen=True, kw_only=True, slots=True)
class SystemResult:
    """The figures of one system: whatever made a group of videos."""

    name: str
    num_videos: int
    num_failed: int
    """Videos with an error; they are in no mean."""
    scores: Mapping[str, Summary] = field(default_factory=dict)


@dataclass(frozen=True, kw_only=True, slots=True)
class EvaluationResult:
    """All figures of one evaluation."""

    metrics: Mapping[str, MetricRecord]
    left_out: Mapping[str, str]
    videos: tuple[VideoResult, ...]
    systems: tuple[SystemResult, ...]
    settings: Mapping[str, Any]
    skipped: tuple[SkippedFile, ...] = ()
    """Files in the folders of videos and references that were not taken."""
    notes: tuple[str, ...] = ()
    """What else a reader should know of the files."""

    def curve(self, system: str, metric: str) -> dict[str, float]:
        """The figure of each of a system's videos that has it, by name, for paired comparisons."""
        found = {video.name: video.scores.get(metric) for video in self.videos if video.system == system}
        return {name: value for name, value in found.items() if value is not None}

    def to_dict(self) -> dict[str, Any]:
        return {
            "format": FORMAT,
            "settings": dict(self.settings),
            "metrics": {name: asdict(metric) for name, metric in self.metrics.items()},
            "left_out": dict(self.left_out),
            "skipped": [asdict(file) for file in self.skipped],
            "notes": list(self.notes),
            "systems": [asdict(system) for system in self.systems],
            "videos": [asdict(video) for video in self.videos],
        }

    def save(self, path: str | Path) -> Path:
        """Write everything as JSON.

        Raises:
            FileWriteError: the disk refuses.
        """
        write_text(path, json.dumps(self.to_dict(), indent=1, allow_nan=False) + "\n")
        return Path(path)


def load(path: str | Path) -> EvaluationResult:
    """Read what `EvaluationResult.save` wrote.

    Raises:
        MediaError: the file is not there, damaged, or of another format.
    """
    path = Path(path)
    try:
        record = json.loads(path.read_text())
        if record["format"] != FORMAT:
            raise MediaError(f"{path} has format {record['format']}; this version reads {FORMAT}. Evaluate again.")
        systems = tuple(
            SystemResult(**{**system, "scores": _summaries(system["scores"])}) for system in record["systems"]
        )
        return EvaluationResult(
            metrics={name: MetricRecord(**metric) for name, metric in record["metrics"].items()},
            left_out=record["left_out"],
            videos=tuple(VideoResult(**video) for video in record["videos"]),
            systems=systems,
            settings=record["settings"],
            skipped=tuple(SkippedFile(**file) for file in record.get("skipped", ())),
            notes=tuple(record.get("notes", ())),
        )
    except (OSError, ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
        raise MediaError(f"{path} is no result of an evaluation ({error!r}). Write one with `save`.") from error


def summarize(values: Sequence[float | None]) -> Summary:
    """Mean and spread of the figures that exist."""
    found = np.array([value for value in values if value is not None], dtype=np.float64)
    return Summary(
        mean=float(found.mean()) if len(found) else None,
        standard_deviation=float(found.std(ddof=1)) if len(found) > 1 else None,
        num_videos=len(found),
    )


def plain(value: float) -> float | None:
    """A float for JSON: what is no finite number becomes None."""
    return float(value) if math.isfinite(value) else None


def plain_curve(values: np.ndarray) -> list[float | None]:
    return [plain(value) for value in np.asarray(values, dtype=np.float64)]


def _summaries(scores: dict[str, Any]) -> dict[str, Summary]:
    return {name: Summary(**summary) for name, summary in scores.items()}
