"""Reads the folder of a run: log lines, sheets and checkpoints of each stage, settings, and files that were skipped."""

import json
import re
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from likeness.errors import ConfigError
from likeness.training.engine import checkpoints
from likeness.training.engine.loop import FINAL_WEIGHTS_FILE
from likeness.training.recipes import resume

Curve = list[tuple[int, float]]
"""Points (step, value)."""
SKIPPED = "skipped.jsonl"
"""In the folder of a run: the files that were left out."""


@dataclass(frozen=True, kw_only=True, slots=True)
class StageRecord:
    """What one stage has left in its folder."""

    name: str
    curves: dict[str, Curve]
    """By metric."""
    elapsed_s: float
    sheets: list[tuple[int, Path]]
    """Step and picture, in time order."""
    checkpoints: list[Path]
    is_finished: bool
    unreadable_lines: int
    """Lines of the log that are no JSON: a kill can cut the last one."""

    @property
    def last_step(self) -> int:
        """The last step with any metric; 0 before the first."""
        return max((curve[-1][0] for curve in self.curves.values()), default=0)


@dataclass(frozen=True, kw_only=True, slots=True)
class RunRecord:
    """What a run has left in its folder."""

    folder: Path
    settings: dict[str, Any]
    """Empty if the run has no record."""
    is_complete: bool
    version: str
    stages: list[StageRecord]
    skipped: list[tuple[str, str]]
    """Files or captions of the data set that are left out, with the reason."""


def read_run(folder: Path) -> RunRecord:
    """Read a run, finished or not.

    Raises:
        ConfigError: The folder is not of a run.
        CheckpointError: Its record is damaged.
    """
    record = resume.read_record(folder) or {}
    settings = record.get("settings", {})
    stage_folders = {path.parent.name: path.parent for path in folder.glob("*/log.jsonl")}
    ordered = [name for name in _stage_names(settings) if name in stage_folders]
    others = sorted(
        set(stage_folders) - set(ordered), key=lambda name: (stage_folders[name] / "log.jsonl").stat().st_mtime
    )
    if not stage_folders:
        raise ConfigError(f"{folder} has no stage with a log.jsonl. Name the folder of a run, for example runs/base.")
    return RunRecord(
        folder=folder,
        settings=settings,
        is_complete=bool(record.get("complete")),
        version=str(record.get("likeness_version", "")),
        stages=[_read_stage(stage_folders[name]) for name in [*others, *ordered]],
        skipped=_read_skipped(folder / SKIPPED) if settings.get("data") else [],
    )


def _stage_names(settings: dict[str, Any]) -> list[str]:
    stages = settings.get("stages") or ()
    return [str(stage["name"]) for stage in stages if isinstance(stage, dict) and "name" in stage]


def _read_stage(folder: Path) -> StageRecord:
    curves: dict[str, Curve] = {}
    elapsed_s, unreadable = 0.0, 0
    for text in (folder / "log.jsonl").read_text(encoding="utf-8", errors="replace").splitlines():
        try:
            line = dict(json.loads(text))
            step = int(line.pop("step", 0))
        except (ValueError, TypeError):
            unreadable += 1
            continue
        values = {name: value for name, value in line.items() if _is_number(value)}
        elapsed_s = max(elapsed_s, values.pop("elapsed_s", 0.0))
        for name, value in values.items():
            curves.setdefault(str(name), []).append((step, float(value)))
    sheets = [(int(match[1]), path) for path in (folder / "sheets").glob("*.png") if (match := _STEP.search(path.stem))]
    return StageRecord(
        name=folder.name,
        curves=curves,
        elapsed_s=elapsed_s,
        sheets=sorted(sheets),
        checkpoints=checkpoints.list_checkpoints(folder / "checkpoints"),
        is_finished=(folder / FINAL_WEIGHTS_FILE).is_file(),
        unreadable_lines=unreadable,
    )


_STEP = re.compile(r"step_(\d+)$")


def _is_number(value: object) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)


def _read_skipped(path: Path) -> list[tuple[str, str]]:
    if not path.is_file():
        return []
    found = []
    for text in path.read_text(encoding="utf-8", errors="replace").splitlines():
        try:
            line = dict(json.loads(text))
        except (ValueError, TypeError):
            continue
        found.append((str(line.get("file", "caption")), str(line.get("reason", line.get("caption", "")))))
    return found
