"""The page about a run."""

import base64
import json
from pathlib import Path

from likeness import files
from likeness.text import escape_html
from likeness.training.engine.logging import format_time
from likeness.training.report.charts import draw_curves, format_value
from likeness.training.report.read import Curve, RunRecord, StageRecord, read_run
from likeness.training.report.style import STYLE, table

MAX_SHEETS = 24
"""Sheets of a stage that are shown, evenly spaced, with the first and the last."""
MAX_SKIPPED = 200
"""Skipped files that are listed."""
_NOISE_LEVEL_METRICS = {f"denoising_t{level}": f"t {250 * level} to {250 * level + 249}" for level in range(4)}
_LOGARITHMIC = ("loss", "denoising", "gradient norm")
_SYSTEM_METRICS = {
    "learning_rate": "learning rate",
    "grad_norm": "gradient norm",
    "samples_per_s": "samples per second",
    "data_wait_share": "share of time that waited for data",
}
"""Metrics that come last, with their titles; others are called by their own names."""


def write_report(folder: Path, target: Path) -> Path:
    """Write the page of a run, finished or not.

    Raises:
        ConfigError: The folder is not of a run.
        FileWriteError: The page cannot be written.
    """
    files.write_text(target, build_page(read_run(folder)))
    return target


def build_page(run: RunRecord) -> str:
    """The page as HTML."""
    name = escape_html(run.folder.absolute().name)
    kind = escape_html(run.settings.get("kind", "unknown kind"))
    state = "complete" if run.is_complete else "not complete"
    version = f", likeness {escape_html(run.version)}" if run.version else ""
    body = [f"<h1>{name}</h1>", f'<p class="soft">{kind}, {state}{version}</p>', _overview(run)]
    body += [_stage(stage) for stage in run.stages]
    body += [_settings(run), _skipped(run)]
    return (
        f'<!doctype html><html lang="en"><head><meta charset="utf-8"><title>{name}</title>'
        '<meta name="viewport" content="width=device-width, initial-scale=1">'
        f"<style>{STYLE}</style></head><body>{''.join(body)}</body></html>\n"
    )


def _overview(run: RunRecord) -> str:
    head = "".join(
        f"<th>{title}</th>"
        for title in ("stage", "steps", "time", "samples/s", "waited for data", "loss, first and last", "state")
    )
    rows = []
    for stage in run.stages:
        rate, waited, loss = (stage.curves.get(key, []) for key in ("samples_per_s", "data_wait_share", "loss"))
        state = "finished" if stage.is_finished else f"{len(stage.checkpoints)} checkpoints"
        cells = (
            f"{stage.last_step:,}",
            format_time(stage.elapsed_s),
            format_value(_mean(rate)) if rate else "",
            f"{100 * _mean(waited):.1f} %" if waited else "",
            f"{format_value(loss[0][1])} &rarr; {format_value(loss[-1][1])}" if loss else "",
            state,
        )
        rows.append(f"<tr><th>{escape_html(stage.name)}</th>{''.join(f'<td>{cell}</td>' for cell in cells)}</tr>")
    return table(head, "".join(rows))


def _stage(stage: StageRecord) -> str:
    parts = [f"<h2>{escape_html(stage.name)}</h2>"]
    if stage.unreadable_lines:
        parts.append(f'<p class="soft">{stage.unreadable_lines} lines of the log cannot be read.</p>')
    panels = [
        draw_curves(lines, title, last_step=stage.last_step, is_log=title in _LOGARITHMIC)
        for title, lines in _panels(stage.curves).items()
    ]
    if panels:
        parts.append(f'<div class="grid">{"".join(panels)}</div>')
    else:
        parts.append('<p class="soft">The log has no metrics yet.</p>')
    if stage.checkpoints:
        names = ", ".join(escape_html(path.name) for path in stage.checkpoints)
        parts.append(f'<p class="soft">Checkpoints: {names}</p>')
    return "".join([*parts, _sheets(stage)])


def _panels(curves: dict[str, Curve]) -> dict[str, dict[str, Curve]]:
    """The curves of each panel: the loss first, noise levels in one, what the machine does last."""
    single = [name for name in curves if name not in _NOISE_LEVEL_METRICS and name not in _SYSTEM_METRICS]
    panels: dict[str, dict[str, Curve]] = {}
    for name in sorted(single, key=lambda name: (name != "loss", name)):
        panels[name] = {name: curves[name]}
        levels = {label: curves.get(key, []) for key, label in _NOISE_LEVEL_METRICS.items()}
        if name == "denoising" and any(levels.values()):
            panels["denoising by timestep"] = levels
    return panels | {title: {title: curves[name]} for name, title in _SYSTEM_METRICS.items() if name in curves}


def _sheets(stage: StageRecord) -> str:
    if not stage.sheets:
        return ""
    count = len(stage.sheets)
    chosen = stage.sheets
    if count > MAX_SHEETS:
        numbers = {round(number * (count - 1) / (MAX_SHEETS - 1)) for number in range(MAX_SHEETS)}
        chosen = [stage.sheets[number] for number in sorted(numbers)]
    figures = []
    for step, path in chosen:
        data = base64.b64encode(path.read_bytes()).decode()
        figures.append(
            f"<figure><figcaption>step {step:,}</figcaption>"
            f'<img src="data:image/png;base64,{data}" alt="samples at step {step}"></figure>'
        )
    shown = f"{count} sheets" if len(chosen) == count else f"{len(chosen)} of {count} sheets"
    is_open = " open" if count <= 6 else ""
    return (
        f'<details{is_open}><summary>Samples ({shown})</summary><div class="sheets">{"".join(figures)}</div></details>'
    )


def _settings(run: RunRecord) -> str:
    if not run.settings:
        return '<h2>Settings</h2><p class="soft">The folder has no recipe.json.</p>'
    text = escape_html(json.dumps(run.settings, indent=2))
    return f"<h2>Settings</h2><details><summary>recipe.json</summary><pre>{text}</pre></details>"


def _skipped(run: RunRecord) -> str:
    if not run.skipped:
        return ""
    rows = "".join(
        f"<tr><td>{escape_html(name)}</td><td>{escape_html(reason)}</td></tr>"
        for name, reason in run.skipped[:MAX_SKIPPED]
    )
    rest = len(run.skipped) - MAX_SKIPPED
    more = f'<p class="soft">{rest:,} more are in skipped.jsonl.</p>' if rest > 0 else ""
    head = "<th>file</th><th>reason</th>"
    return f"<h2>Left out of the data ({len(run.skipped):,})</h2>{table(head, rows)}{more}"


def _mean(curve: Curve) -> float:
    return sum(value for _, value in curve) / len(curve)
