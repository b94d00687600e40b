"""Progress of a run: metrics as JSON lines, one line on the terminal, and curves at the end."""

import json
import math
import re
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from rich.console import Console

from likeness import files
from likeness.training.engine import distributed
from likeness.training.engine.log_writers import LogWriter

_NOT_PRINTED = re.compile(r"_t\d$|_qualifying$|_decoded$|^learning_rate$|^data_wait_share$")
"""Metrics that are not printed: a longer line would not fit into a terminal."""


class TrainingLogger:
    """Appends metrics to `log.jsonl` and updates one line of the terminal."""

    def __init__(self, folder: Path, stage: str, *, interval_s: float = 5.0) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        self.path = folder / "log.jsonl"
        self.stage = stage
        self.console = Console(quiet=distributed.rank() > 0)
        # A terminal line is overwritten; a file gets fewer lines.
        self.interval_s = interval_s if self.console.is_terminal else 3 * interval_s
        self.last_write_s = time.monotonic()
        self.sums: dict[str, tuple[float, int]] = {}
        self.samples = 0
        self.writers: Sequence[LogWriter] = ()
        """Get every line of the log, too."""

    def truncate_after(self, step: int) -> None:
        """Remove the lines of steps that a resumed run will repeat."""
        if self.path.exists() and distributed.rank() == 0:
            text = self.path.read_text(encoding="utf-8", errors="replace")
            lines = [line for line in text.splitlines() if _step(line) <= step]
            files.write_text(self.path, "".join(f"{line}\n" for line in lines))

    def log_step(
        self,
        step: int,
        metrics: dict[str, float],
        *,
        samples: int,
        elapsed_s: float,
        remaining_s: float,
        is_last: bool = False,
    ) -> None:
        """Add the metrics of one step; their means are written every few seconds, and after the last step."""
        for name, value in metrics.items():
            total, count = self.sums.get(name, (0.0, 0))
            self.sums[name] = total + value, count + 1
        self.samples += samples
        since_s = time.monotonic() - self.last_write_s
        if since_s < self.interval_s and not is_last:
            return
        means = {name: total / count for name, (total, count) in self.sums.items()}
        rate = self.samples / max(since_s, 1e-9)
        line = {"step": step, "elapsed_s": round(elapsed_s, 1), "samples_per_s": round(rate, 1)}
        self.write({**line, **{name: float(f"{value:.5g}") for name, value in means.items()}})
        text = "  ".join(f"{name} {value:.4g}" for name, value in means.items() if not _NOT_PRINTED.search(name))
        self._print(f"{self.stage}  step {step}  {text}  {rate:.0f} samples/s  {format_time(remaining_s)} left")
        self.sums, self.samples, self.last_write_s = {}, 0, time.monotonic()

    def write(self, line: dict[str, Any]) -> None:
        """Append one line to the log, in process 0."""
        if distributed.rank():
            return
        # JSON cannot represent numbers that are not finite.
        line = {k: None if isinstance(v, float) and not math.isfinite(v) else v for k, v in line.items()}
        with self.path.open("a", encoding="utf-8") as file:
            file.write(json.dumps(line) + "\n")
        metrics = {k: v for k, v in line.items() if k != "step" and isinstance(v, int | float)}
        for writer in self.writers:
            writer.write(int(line.get("step", 0)), metrics)

    def info(self, text: str) -> None:
        """Print a line that stays on the terminal."""
        self._print(text, is_permanent=True)

    def _print(self, text: str, *, is_permanent: bool = False) -> None:
        if self.console.is_terminal:
            self.console.print(f"\r\x1b[2K{text}", end="\n" if is_permanent else "", highlight=False, markup=False)
        else:
            self.console.print(text, highlight=False, markup=False, soft_wrap=True)


def format_time(seconds: float) -> str:
    """Seconds as `M:SS`, or `H:MM:SS` from an hour on."""
    minutes, seconds = divmod(int(max(seconds, 0)), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02d}:{seconds:02d}" if hours else f"{minutes}:{seconds:02d}"


def draw_curves(log: Path, target: Path) -> None:
    """Plot every metric of `log` over the step; skipped if matplotlib is not installed."""
    try:
        import matplotlib as mpl
    except ModuleNotFoundError:
        return
    mpl.use("Agg")
    import matplotlib.pyplot as plt

    lines = [json.loads(line) for line in log.read_text(encoding="utf-8").splitlines()]
    names = sorted({name for line in lines for name in line} - {"step", "elapsed_s", "samples_per_s"})
    if not names:
        return
    figure, axes = plt.subplots(1, len(names), figsize=(4 * len(names), 3), squeeze=False, layout="constrained")
    for name, axis in zip(names, axes[0], strict=True):
        points = [(line["step"], line[name]) for line in lines if line.get(name) is not None]
        if points:
            axis.plot(*zip(*points, strict=True), linewidth=0.8)
        axis.set_title(name)
        axis.set_xlabel("step")
    with files.write_atomically(target) as draft:
        figure.savefig(draft, dpi=100)
    plt.close(figure)


def _step(line: str) -> int:
    try:
        return int(json.loads(line).get("step", 0))
    except (ValueError, TypeError, AttributeError):  # a line that was truncated by a kill
        return 1 << 60
