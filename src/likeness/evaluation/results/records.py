"""Results of an evaluation as records that convert to JSON (`to_dict`, `save`, `load`).

An undefined score is None, never 0: a video without a face has no similarity, a system of one identity no rank-1 rate.

    EvaluationResult
    ├── metrics     name -> MetricRecord: unit, direction, how it was averaged, source
    ├── left_out    name -> why a metric was not measured, and how to change that
    ├── skipped     SkippedFile: files that were not evaluated, and why
    ├── videos      VideoResult: scores, curves over frames, error
    └── systems     SystemResult: mean, standard deviation and count of each metric
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
from likeness.files import read_json, write_text

RESULTS = ("report.html", "evaluation.json", "comparison.json", "videos.parquet", "frames.parquet")
"""Files that `export.publish` writes into a folder."""
FORMAT = 1
"""Version of the JSON layout."""


@dataclass(frozen=True, kw_only=True, slots=True)
class VideoResult:
    """The scores of one video."""

    name: str
    path: str
    system: str
    identity: str | None
    """Identity of the references; None if it was compared with its own first face."""
    prompt: str | None
    sha256: str | None
    num_frames: int
    fps: float
    width_px: int
    height_px: int
    scores: Mapping[str, float | None] = field(default_factory=dict)
    """By metric; None if undefined for this video."""
    frames: Mapping[str, Sequence[float | None]] = field(default_factory=dict)
    """Curves, one value a frame: `cosine`, `distance`, `num_faces`, `flow_px` ...; None where undefined."""
    error: str | None = None
    """Why the video has no scores."""

    @property
    def duration_s(self) -> float:
        return self.num_frames / self.fps if self.fps else 0.0


@dataclass(frozen=True, kw_only=True, slots=True)
class Summary:
    """One metric over the videos of one system."""

    mean: float | None
    standard_deviation: float | None
    """Over videos, with n - 1; None below two videos and for metrics of sets."""
    num_videos: int
    """Videos for which the metric is defined."""


@dataclass(frozen=True, kw_only=True, slots=True)
class SystemResult:
    """The scores of one system, the source of a group of videos."""

    name: str
    num_videos: int
    num_failed: int
    """Videos with an error, which are in no mean."""
    scores: Mapping[str, Summary] = field(default_factory=dict)


@dataclass(frozen=True, kw_only=True, slots=True)
class EvaluationResult:
    """All results of one evaluation."""

    metrics: Mapping[str, MetricRecord]
    left_out: Mapping[str, str]
    videos: tuple[VideoResult, ...]
    systems: tuple[SystemResult, ...]
    settings: Mapping[str, Any]
    skipped: tuple[SkippedFile, ...] = ()
    """Files in the folders of videos and references that were not evaluated."""
    notes: tuple[str, ...] = ()
    """Remarks on the files, such as links."""

    def curve(self, system: str, metric: str) -> dict[str, float]:
        """Scores of a system's videos by name, without undefined ones."""
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
        MediaError: the file does not exist, is damaged, or has another format.
    """
    path = Path(path)
    try:
        record = read_json(path)
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
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        raise MediaError(f"{path} is not a result of an evaluation ({error!r}). Write one with `save`.") from error


def summarize(values: Sequence[float | None]) -> Summary:
    """Mean and standard deviation of the defined values."""
    found = np.array([value for value in values if value is not None], dtype=np.float64)
    return Summary(
        mean=float(found.mean()) if len(found) else None,
        standard_deviation=float(found.std(ddof=1)) if len(found) > 1 else None,
        num_videos=len(found),
    )


def finite_or_none(value: float) -> float | None:
    """A float for JSON: NaN and infinity become None."""
    return float(value) if math.isfinite(value) else None


def finite_or_none_list(values: np.ndarray) -> list[float | None]:
    return [finite_or_none(value) for value in np.asarray(values, dtype=np.float64)]


def _summaries(scores: dict[str, Any]) -> dict[str, Summary]:
    return {name: Summary(**summary) for name, summary in scores.items()}
