"""An evaluation as one HTML page: metrics with intervals, comparisons, distributions, curves, worst and best clips.

Pictures and plots are embedded; the page loads nothing from elsewhere.
"""

import math
from collections.abc import Mapping, Sequence
from pathlib import Path

from likeness.evaluation.report.charts import color_of, curves, distribution, span_of
from likeness.evaluation.report.strips import clips
from likeness.evaluation.report.style import ARROWS, STYLE
from likeness.evaluation.results.compare_systems import ALPHA, CORRECTION, Comparison, Difference
from likeness.evaluation.results.records import EvaluationResult, MetricRecord
from likeness.evaluation.results.statistics import format_estimate
from likeness.files import write_text
from likeness.text import escape_html

OPEN_DISTRIBUTIONS = 6
"""Plots of further metrics are collapsed."""
MAX_PANELS = 60
"""Curves of further videos are in the JSON and Parquet files only."""
_CURVE = "cosine"
_MORE_STYLE = """
td.soft, tbody th { white-space: normal; min-width: 7rem }
details { margin-top: 1rem } summary { cursor: pointer; color: var(--soft) }
.panels { display: grid; grid-template-columns: repeat(auto-fill, minmax(17rem, 1fr)); gap: .8rem; margin-top: 1rem }
.panels .card { padding: .6rem .7rem }
.panels p, .strip p { margin: 0 0 .3rem; font-size: .84rem; overflow-wrap: anywhere }
.strip { margin: .8rem 0 }
.strip img { display: block; max-width: 100%; border-radius: 8px; border: 1px solid var(--line) }
.key { display: inline-block; width: .8em; height: .8em; border-radius: 50%; margin: 0 .35em 0 .9em }
.grid .card h3 { display: flex; justify-content: space-between; gap: 1rem } .grid .card h3 span { font-weight: 400 }
li { margin: .25rem 0; max-width: 60rem; overflow-wrap: anywhere }
"""


def write_report(
    path: Path,
    result: EvaluationResult,
    comparison: Comparison,
    references: Mapping[str, Sequence[Path]] | None = None,
    *,
    title: str = "Evaluation",
) -> Path:
    """Write the page.

    Args:
        path: The page.
        result: The result.
        comparison: Of `compare_systems`.
        references: Pictures of each identity, shown beside the clips.
        title: Headline.
    """
    page = f"""<!doctype html>
<html lang="en"><head><meta charset="utf-8"><meta name="viewport" content="width=device-width, initial-scale=1">
<title>{escape_html(title)}</title><style>{STYLE}{_MORE_STYLE}</style></head><body>
<h1>{escape_html(title)}</h1>
{_lead(result)}
{_failures(result)}
{_skipped(result)}
<h2>Figures</h2>
<p class="soft">Means over videos, with 95 % bootstrap intervals over {comparison.resampled}. Arrows show which way is
better; a count follows where not every video has the metric.</p>
{_means(result, comparison)}
{_differences(result, comparison)}
<h2>Distributions</h2>
<p class="soft">A dot is a video; boxes reach from the first to the third quartile, the line is the median.</p>
{_distributions(result)}
{_curves(result)}
<h2>Worst and best clips</h2>
{clips(result, references or {})}
{_left_out(result)}
<h2>How it was measured</h2>
{_settings(result)}
</body></html>
"""
    write_text(path, page)
    return path


def _lead(result: EvaluationResult) -> str:
    people = {video.identity for video in result.videos} - {None}
    against = f"{len(people)} people" if people else "each against its own first face"
    names = ", ".join(f"{escape_html(one.name)} ({one.num_videos})" for one in result.systems)
    threshold = result.settings.get("threshold")
    engine, points = (result.settings.get(name) for name in ("engine", "landmark_engine"))
    if points and points != engine:
        names += f". Similarity by {escape_html(str(engine))}, landmarks by {escape_html(str(points))}"
    line = f" (the engine's threshold for one person is a distance of {threshold})" if threshold else ""
    return (
        f"<p><b>{len(result.videos)} videos</b>, {against}. Systems: {names}.</p>"
        '<p class="soft">Read identity metrics together: cosines of unrelated people are high too, so compare distance'
        f"{line}, match rate and rank-1. Metrics over frames with a face ignore frames without one, so compare the "
        "face rate. A still copy of the reference scores well in identity metrics and badly in motion metrics.</p>"
    )


def _failures(result: EvaluationResult) -> str:
    failed = [video for video in result.videos if video.error is not None]
    if not failed:
        return ""
    rows = "".join(
        f"<li><b>{escape_html(video.system)} / {escape_html(video.name)}</b>: {escape_html(str(video.error))}</li>"
        for video in failed
    )
    return f"<h2>Failed videos</h2><p>They are in no mean below.</p><ul>{rows}</ul>"


def _skipped(result: EvaluationResult) -> str:
    notes = "".join(f"<li>{escape_html(note)}</li>" for note in result.notes)
    rows = "".join(f"<li><b>{escape_html(file.path)}</b>: {escape_html(file.reason)}</li>" for file in result.skipped)
    listed = (
        f"<h2>Files left out</h2><details><summary>{len(result.skipped)} files</summary><ul>{rows}</ul></details>"
        if rows
        else ""
    )
    return (f"<ul>{notes}</ul>" if notes else "") + listed


def _means(result: EvaluationResult, comparison: Comparison) -> str:
    head = "".join(f"<th>{escape_html(system.name)}</th>" for system in result.systems)
    rows = []
    for metric in result.metrics.values():
        cells = []
        for system in result.systems:
            count, whole = system.scores[metric.name].num_videos, system.num_videos - system.num_failed
            note = f' <span class="soft">({count} of {whole})</span>' if count < whole else ""
            cells.append(f"<td>{format_estimate(comparison.means[system.name][metric.name])}{note}</td>")
        rows.append(
            f'<tr><th scope="row" title="{escape_html(metric.name)}; {escape_html(metric.source)}">'
            f'{_title(metric)}</th>{"".join(cells)}<td class="soft">{escape_html(metric.unit)}</td>'
            f'<td class="soft">{escape_html(metric.averaged)}</td></tr>'
        )
    return _table(f"<th>metric</th>{head}<th>unit</th><th>over</th>", "".join(rows))


def _differences(result: EvaluationResult, comparison: Comparison) -> str:
    if len(result.systems) < 2:
        return ""
    lonely = "".join(
        f"<li>{escape_html(system)} has {len(names)} videos that no other system has: "
        f"{escape_html(', '.join(names[:5]))}"
        f"{' and more' if len(names) > 5 else ''}</li>"
        for system, names in comparison.only_in.items()
        if names
    )
    if not comparison.differences:
        return (
            "<h2>Systems compared</h2><p>No two systems have videos of the same name, so nothing is paired.</p>"
            f"<ul>{lonely}</ul>"
        )
    rows = "".join(_difference_row(row, result.metrics[row.metric]) for row in comparison.differences)
    head = (
        "<th>systems</th><th>metric</th><th>difference</th><th>pairs</th><th>p</th><th>p corrected</th><th>better</th>"
    )
    return (
        "<h2>Systems compared</h2>"
        '<p class="soft">First minus second over the videos that both have, with 95 % intervals; p by a sign-flip '
        f"permutation test over {comparison.resampled}, corrected by {CORRECTION}. Bold: corrected p below "
        f"{ALPHA:.2g}, which fewer than six people or pairs cannot reach.</p>"
        f"{_table(head, rows)}{f'<ul>{lonely}</ul>' if lonely else ''}"
    )


def _difference_row(row: Difference, metric: MetricRecord) -> str:
    text = format_estimate(row.difference, sign="+")
    pairs = str(row.num_pairs) if row.num_pairs == row.num_common else f"{row.num_pairs} of {row.num_common}"
    better = escape_html(row.better) if row.better else ""
    return (
        f'<tr><th scope="row">{escape_html(row.a)} minus {escape_html(row.b)}</th><td>{_title(metric)}</td>'
        f"<td>{f'<b>{text}</b>' if row.is_significant else text}</td><td>{pairs}</td>"
        f"<td>{_p_value(row.p_value)}</td><td>{_p_value(row.p_corrected)}</td><td>{better}</td></tr>"
    )


def _distributions(result: EvaluationResult) -> str:
    cards = []
    for metric in result.metrics.values():
        if metric.level != "video":
            continue
        values = {system.name: list(result.curve(system.name, metric.name).values()) for system in result.systems}
        cards.append(
            f'<section class="card"><h3>{_title(metric)} <span class="soft">{escape_html(metric.unit)}</span></h3>'
            f"{distribution(values, metric.title)}</section>"
        )
    more = cards[OPEN_DISTRIBUTIONS:]
    folded = (
        f'<details><summary>{len(more)} more metrics</summary><div class="grid">{"".join(more)}</div></details>'
        if more
        else ""
    )
    return f'<div class="grid">{"".join(cards[:OPEN_DISTRIBUTIONS])}</div>{folded}'


def _curves(result: EvaluationResult) -> str:
    places = {system.name: index for index, system in enumerate(result.systems)}
    by_name: dict[str, dict[str, tuple[int, Sequence[float | None]]]] = {}
    for video in result.videos:
        if _CURVE in video.frames:
            lines = by_name.setdefault(video.name, {})
            lines[video.system] = (places[video.system], video.frames[_CURVE])
    if not by_name:
        return ""
    found = [value for lines in by_name.values() for _, line in lines.values() for value in line if value is not None]
    span = span_of(found)
    panels = "".join(
        f'<section class="card"><p>{escape_html(name)}</p>'
        f"{curves(lines, f'{name}: similarity by frame', span)}</section>"
        for name, lines in list(by_name.items())[:MAX_PANELS]
    )
    keys = "".join(
        f'<span class="key" style="background:{color_of(index)}"></span>{escape_html(name)}'
        for name, index in places.items()
    )
    rest = len(by_name) - MAX_PANELS
    note = f" {rest} more are in the JSON and Parquet files." if rest > 0 else ""
    return (
        "<h2>Similarity by frame</h2>"
        f'<p class="soft">Cosine to the mean reference; gaps are frames without a face.{note} {keys}</p>'
        f'<div class="panels">{panels}</div>'
    )


def _left_out(result: EvaluationResult) -> str:
    if not result.left_out:
        return ""
    rows = "".join(f"<li><b>{escape_html(name)}</b>: {escape_html(why)}</li>" for name, why in result.left_out.items())
    return f"<h2>Not measured</h2><ul>{rows}</ul>"


def _settings(result: EvaluationResult) -> str:
    rows = "".join(
        f"<tr><td>{escape_html(name.replace('_', ' '))}</td><td>{escape_html(str(value))}</td></tr>"
        for name, value in result.settings.items()
        if name != "num_references"
    )
    counts = result.settings.get("num_references") or {}
    if counts:
        rows += f"<tr><td>references</td><td>{sum(counts.values())} pictures of {len(counts)} people</td></tr>"
    return _table("<th>setting</th><th>value</th>", rows)


def _title(metric: MetricRecord) -> str:
    return f"{escape_html(metric.title)} {ARROWS[metric.direction]}".strip()


def _p_value(value: float) -> str:
    if not math.isfinite(value):
        return ""
    return "&lt; 0.001" if value < 0.001 else f"{value:.3f}"


def _table(head: str, rows: str) -> str:
    return f'<div class="scroll"><table><thead><tr>{head}</tr></thead><tbody>{rows}</tbody></table></div>'
