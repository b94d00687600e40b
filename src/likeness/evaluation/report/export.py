"""Write the files of an evaluation: JSON, an HTML page, and Parquet tables.

FOLDER/
├── evaluation.json   the whole result, for `results.records.load`
├── comparison.json   intervals, differences of systems and their tests
├── videos.parquet    one row a video
├── frames.parquet    one row a frame
└── report.html       all of it as a page
"""

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from likeness.evaluation.report.page import write_report
from likeness.evaluation.results.compare_systems import Comparison, compare_systems
from likeness.evaluation.results.records import RESULTS, EvaluationResult, VideoResult
from likeness.files import lock, write_atomically, write_text

_LABELS = ("system", "name", "identity", "prompt", "path", "sha256", "error")
_NUMBERS = {"num_frames": pa.int64(), "fps": pa.float64(), "width_px": pa.int64(), "height_px": pa.int64()}

__all__ = ["RESULTS", "publish", "write_frames", "write_videos"]

LOCK = ".evaluation.lock"
"""Held while files are written, so that all files in a folder come from one evaluation."""
_PATIENCE_S = 120.0


def publish(
    folder: Path,
    result: EvaluationResult,
    references: Mapping[str, Sequence[Path]] | None = None,
    *,
    title: str = "Evaluation",
) -> Comparison:
    """Write all files and return the comparison of systems.

    Each file is written atomically; two evaluations that end at the same time write one after the other.

    Raises:
        FileWriteError: the disk refuses.
        LockedError: another process has been writing there for two minutes.
    """
    comparison = compare_systems(result)
    text = json.dumps(comparison.to_dict(), indent=1, allow_nan=False)
    busy = (
        f"Another evaluation ({{owner}}) has been writing to {folder} for two minutes. Wait, then run the same again."
    )
    with lock(folder / LOCK, wait_s=_PATIENCE_S, busy=busy):
        result.save(folder / "evaluation.json")
        write_text(folder / "comparison.json", text + "\n")
        write_videos(folder / "videos.parquet", result)
        write_frames(folder / "frames.parquet", result)
        write_report(folder / "report.html", result, comparison, references, title=title)
    return comparison


def write_videos(path: Path, result: EvaluationResult) -> Path:
    """Write a row for each video, with a column for each video-level metric.

    Undefined scores are null. Unit, direction and averaging are in the columns' metadata.

    Raises:
        FileWriteError: the disk refuses.
    """
    metrics = [metric for metric in result.metrics.values() if metric.level == "video"]
    fields = [pa.field(name, pa.string()) for name in _LABELS]
    fields += [pa.field(name, kind) for name, kind in _NUMBERS.items()]
    fields += [
        pa.field(
            metric.name,
            pa.float64(),
            metadata={name: str(value) for name, value in asdict(metric).items() if name != "name"},
        )
        for metric in metrics
    ]
    rows = [
        {name: getattr(video, name) for name in (*_LABELS, *_NUMBERS)}
        | {metric.name: video.scores.get(metric.name) for metric in metrics}
        for video in result.videos
    ]
    return _write(path, pa.schema(fields), rows)


def write_frames(path: Path, result: EvaluationResult) -> Path:
    """Write a row for each frame of each video, with a column for each curve.

    Raises:
        FileWriteError: the disk refuses.
    """
    curves = list(dict.fromkeys(name for video in result.videos for name in video.frames))
    fields = [pa.field("system", pa.string()), pa.field("name", pa.string()), pa.field("frame", pa.int64())]
    fields += [pa.field(name, pa.float64()) for name in curves]
    rows = [row for video in result.videos for row in _frames_of(video, curves)]
    return _write(path, pa.schema(fields), rows)


def _frames_of(video: VideoResult, curves: list[str]) -> list[dict[str, Any]]:
    columns: Mapping[str, Any] = video.frames
    return [
        {"system": video.system, "name": video.name, "frame": frame}
        | {name: columns[name][frame] for name in curves if name in columns}
        for frame in range(video.num_frames if columns else 0)
    ]


def _write(path: Path, schema: pa.Schema, rows: list[dict[str, Any]]) -> Path:
    table = pa.Table.from_pylist(rows, schema=schema)
    with write_atomically(path) as draft:
        pq.write_table(table, draft)
    return path
