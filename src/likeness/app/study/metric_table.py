"""Read automatic metrics of a study's videos from CSV, JSON or Parquet, to correlate them with ratings.

A table has a row for each video: `system`, `video` (or `name`), and columns of numbers. `evaluation.json` of
`likeness eval` is supported.
"""

import csv
import math
from collections.abc import Iterable, Mapping
from importlib import import_module
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from likeness.errors import ConfigError, ResourceError
from likeness.evaluation.inputs.reference_matching import normalize_name
from likeness.files import read_json

MetricTable = dict[str, dict[tuple[str, str], float]]
"""Metric -> (system, video) -> number."""


def read_metric_table(path: Path) -> MetricTable:
    """Read a table of metrics.

    Raises:
        ConfigError: The file is not such a table.
        ResourceError: It is Parquet and the reader is not installed.
    """
    readers = {".csv": _read_csv, ".json": _read_json, ".parquet": _read_parquet}
    if path.suffix.lower() not in readers:
        raise ConfigError(f"{path} is not a table of metrics; use {', '.join(readers)}.")
    try:
        rows = readers[path.suffix.lower()](path)
        table = _build_table(rows)
    except (OSError, ValueError, KeyError, TypeError, AttributeError, csv.Error) as error:
        raise ConfigError(
            f"{path} cannot be read as metrics ({error}). A row for each video is needed: system, video, numbers."
        ) from error
    if not table:
        raise ConfigError(
            f"{path} holds no metrics. A row for each video is needed: `system`, `video`, and columns of numbers."
        )
    return table


def _build_table(rows: Iterable[Mapping[str, Any]]) -> MetricTable:
    table: MetricTable = {}
    for row in rows:
        system, video = row.get("system"), row.get("video") or row.get("name")
        if not system or not video:
            raise ValueError(f"a row lacks `system` or `video`: {dict(row)}")
        for metric, text in row.items():
            number = _finite_number(text)
            if metric in ("system", "video", "name") or number is None:
                continue
            scores, key = table.setdefault(metric, {}), (str(system), normalize_name(str(video)))
            if key in scores:
                raise ValueError(f"`{video}` of `{system}` has several rows with `{metric}`")
            scores[key] = number
    return table


def _finite_number(text: Any) -> float | None:
    if isinstance(text, bool) or text is None:
        return None
    try:
        number = float(text)
    except (TypeError, ValueError):
        return None
    return number if math.isfinite(number) else None


def _read_csv(path: Path) -> list[dict[str, Any]]:
    with path.open(encoding="utf-8-sig", newline="") as file:
        return list(csv.DictReader(file))


def _read_json(path: Path) -> list[Mapping[str, Any]]:
    content = read_json(path)
    if isinstance(content, dict):
        content = content.get("videos")
    if not isinstance(content, list):
        raise ValueError("it is neither a list of rows nor an evaluation with `videos`")
    return [
        {"system": row["system"], "video": row["name"], **row["scores"]} if "scores" in row else row for row in content
    ]


def _read_parquet(path: Path) -> list[dict[str, Any]]:
    if find_spec("pyarrow") is None:
        raise ResourceError(
            f"{path} is Parquet, and pyarrow is not installed. Run `pip install pyarrow`, or give CSV or JSON."
        )
    return import_module("pyarrow.parquet").read_table(path).to_pylist()
