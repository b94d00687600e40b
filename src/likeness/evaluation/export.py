"""Everything an evaluation leaves behind: JSON, a page, and Parquet for notebooks and spreadsheets.

FOLDER/
├── evaluation.json   the whole result, as `results.load` reads it
├── comparison.json   intervals, differences of systems and their tests
├── videos.parquet    one row a video
├── frames.parquet    one row a frame
└── report.html       for people
"""

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from likeness.errors import MediaError
from likeness.evaluation.compare import Comparison, compare_systems
from likeness.evaluation.report import write_report
from likeness.evaluation.results import EvaluationResult, VideoResult

_SAID = ("system", "name", "identity", "prompt", "path", "sha256", "error")
_COUNTED = {"num_frames": pa.int64(), "fps": pa.float64(), "width_px": pa.int64(), "height_px": pa.int64()}

RESULTS = ("report.html", "evaluation.json", "comparison.json", "videos.parquet", "frames.parquet")
"""Everything that `publish` writes."""


def publish(
    folder: Path,
    result: EvaluationResult,
    references: Mapping[str, Sequence[Path]] | None = None,
    *,
    title: str = "Evaluation",
) -> Comparison:
    """Write all of the above, and return what was said of systems.

    Raises:
        MediaError: the disk refuses.
    """
    comparison = compare_systems(result)
    try:
        result.save(folder / "evaluation.json")
        text = json.dumps(comparison.to_dict(), indent=1, allow_nan=False)
        (folder / "comparison.json").write_text(text + "\n", encoding="utf-8")
        write_report(folder / "report.html", result, comparison, references, title=title)
    except OSError as error:
        raise MediaError(
            f"{folder} cannot be written to: {error}. Choose a folder with room that you may write."
        ) from error
    write_videos(folder / "videos.parquet", result)
    write_frames(folder / "frames.parquet", result)
    return comparison


def write_videos(path: Path, result: EvaluationResult) -> Path:
    """Write a row for each video: who and what, its error, and a column for each metric that videos have.

    Columns stand in the order of the metrics; a figure that does not exist is null. What metrics mean (unit, direction,
    averaging) is in the columns' metadata.

    Raises:
        MediaError: the disk refuses.
    """
    metrics = [metric for metric in result.metrics.values() if metric.level == "video"]
    fields = [pa.field(name, pa.string()) for name in _SAID]
    fields += [pa.field(name, kind) for name, kind in _COUNTED.items()]
    fields += [
        pa.field(
            metric.name,
            pa.float64(),
            metadata={name: str(value) for name, value in asdict(metric).items() if name != "name"},
        )
        for metric in metrics
    ]
    rows = [
        {name: getattr(video, name) for name in (*_SAID, *_COUNTED)}
        | {metric.name: video.scores.get(metric.name) for metric in metrics}
        for video in result.videos
    ]
    return _write(path, pa.schema(fields), rows)


def write_frames(path: Path, result: EvaluationResult) -> Path:
    """Write a row for each frame of each video, with a column for each curve.

    Raises:
        MediaError: the disk refuses.
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
    """The file appears only once it is whole."""
    draft = path.with_name(f".{path.name}.draft")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        pq.write_table(pa.Table.from_pylist(rows, schema=schema), draft)
        draft.replace(path)
    except OSError as error:
        raise MediaError(
            f"{path} cannot be written: {error}. Choose a folder with room that you may write."
        ) from error
    return path
