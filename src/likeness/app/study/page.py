"""The report of a study as one HTML page with embedded SVG plots."""

import math
from collections.abc import Mapping
from pathlib import Path

from likeness.app.study.manifest import Study
from likeness.app.study.report import OVERALL, StudyReport, SystemRating
from likeness.evaluation.report.style import STYLE, table
from likeness.evaluation.results.statistics import format_estimate
from likeness.files import write_text
from likeness.text import escape_html

_COLORS = ("#2f6db3", "#c2571a", "#2e8b57", "#8a4fbe", "#b3385d", "#6b7280")
_LEFT_PX, _WIDTH_PX, _ROW_PX = 170, 640, 30
_BARS_PX = 54


def write_page(path: Path, study: Study, report: StudyReport) -> None:
    """Write the page to `path`."""
    titles = {question.name: question.title for question in study.questionnaire.questions}
    titles[OVERALL] = "All questions together"
    sections = "\n".join(
        f'<section class="card"><h3>{escape_html(titles[name])}</h3>{_dot_plot(study, report.ratings[name])}'
        f"{_histograms(study, report.ratings[name])}</section>"
        for name in [*study.questionnaire.names, OVERALL]
    )
    num_videos = len(study.items)
    page = f"""<!doctype html>
<html lang="en"><head><meta charset="utf-8"><meta name="viewport" content="width=device-width, initial-scale=1">
<title>User study: results</title><style>{STYLE}</style></head><body>
<h1>User study: results</h1>
<p class="soft">{escape_html(study.questionnaire.source)}</p>
<p>{_describe_raters(report)} {num_videos} videos of {len(study.systems)} systems.</p>
<h2>Ratings</h2>
<p class="soft">Dots are means of all ratings on the scale from {study.questionnaire.lowest} to
{study.questionnaire.highest}; lines are 95 % bootstrap intervals over raters and videos. Bars count the ratings.</p>
<div class="grid">{sections}</div>
<h2>Mean ratings</h2>
{_rating_table(study, report, titles)}
<h2>Differences between systems</h2>
<p class="soft">First minus second, with the interval; bold where it excludes 0.</p>
{_difference_table(report, titles)}
<h2>Agreement of raters</h2>
<p class="soft">Krippendorff's alpha for interval data: 1 is full agreement, 0 is chance. Below 0.67 single ratings are
unreliable; means over many raters may still be reliable.</p>
{_agreement_table(report, titles)}
{_correlations(report, titles)}
</body></html>
"""
    write_text(path, page)


def _describe_raters(report: StudyReport) -> str:
    raters = report.raters
    excluded = (
        f"{len(raters.failed_checks)} failed attention checks and {len(raters.unchecked)} stopped before the first; "
        "both are excluded."
    )
    return (
        f"<b>{len(raters.used)} of {raters.total} raters</b> count: {excluded} {raters.num_incomplete} of those who "
        f"count stopped before the end. Median time for a video: {raters.median_seconds:.0f} s."
    )


def _dot_plot(study: Study, ratings: Mapping[str, SystemRating]) -> str:
    lowest, highest = study.questionnaire.lowest, study.questionnaire.highest

    def x_of(value: float) -> float:
        return _LEFT_PX + (value - lowest) / (highest - lowest) * (_WIDTH_PX - _LEFT_PX - 60)

    height = len(ratings) * _ROW_PX + 24
    parts = []
    for value in range(lowest, highest + 1):
        x = x_of(value)
        parts.append(f'<line class="rule" x1="{x:.1f}" x2="{x:.1f}" y1="4" y2="{height - 22}"/>')
        parts.append(f'<text class="tick" x="{x:.1f}" y="{height - 6}" text-anchor="middle">{value}</text>')
    for row, (name, rating) in enumerate(ratings.items()):
        y, color = row * _ROW_PX + 18, _COLORS[row % len(_COLORS)]
        parts.append(f'<text x="{_LEFT_PX - 14}" y="{y + 4}" text-anchor="end">{escape_html(name[:22])}</text>')
        if not math.isfinite(rating.mean.value):
            continue
        x = x_of(rating.mean.value)
        if math.isfinite(rating.mean.low):
            ends = f'x1="{x_of(rating.mean.low):.1f}" x2="{x_of(rating.mean.high):.1f}"'
            parts.append(f'<line {ends} y1="{y}" y2="{y}" stroke="{color}" stroke-width="3" opacity=".55"/>')
        parts.append(f'<circle cx="{x:.1f}" cy="{y}" r="6" fill="{color}"/>')
        parts.append(f'<text x="{_WIDTH_PX - 4}" y="{y + 4}" text-anchor="end">{rating.mean.value:.2f}</text>')
    label = "; ".join(f"{name} {format_estimate(rating.mean, digits=2)}" for name, rating in ratings.items())
    return (
        f'<svg viewBox="0 0 {_WIDTH_PX} {height}" role="img" aria-label="{escape_html(label)}">{"".join(parts)}</svg>'
    )


def _histograms(study: Study, ratings: Mapping[str, SystemRating]) -> str:
    """Histograms of each system on a common scale."""
    shown = {name: rating.histogram for name, rating in ratings.items() if rating.histogram}
    tallest = max((max(bars) for bars in shown.values()), default=0)
    if not tallest:
        return ""
    lowest, parts = study.questionnaire.lowest, []
    for row, (name, bars) in enumerate(shown.items()):
        width = 180 / len(bars)
        drawn = "".join(
            f'<rect x="{index * width + 1:.1f}" y="{_BARS_PX * (1 - count / tallest):.1f}" width="{width - 2:.1f}" '
            f'height="{_BARS_PX * count / tallest:.1f}" fill="{_COLORS[row % len(_COLORS)]}"><title>{lowest + index}: '
            f"{count}</title></rect>"
            for index, count in enumerate(bars)
        )
        label = f"{escape_html(name)}: ratings by value"
        parts.append(
            f'<figure><svg viewBox="0 0 180 {_BARS_PX}" role="img" aria-label="{label}">{drawn}</svg>'
            f"<figcaption>{escape_html(name)}</figcaption></figure>"
        )
    return f'<div class="bars">{"".join(parts)}</div>'


def _rating_table(study: Study, report: StudyReport, titles: dict[str, str]) -> str:
    names = [*study.questionnaire.names, OVERALL]
    head = "".join(f"<th>{escape_html(titles[name])}</th>" for name in names)
    rows = "".join(
        f'<tr><th scope="row">{escape_html(system)}</th>'
        + "".join(f"<td>{format_estimate(report.ratings[name][system].mean, digits=2)}</td>" for name in names)
        + f"<td>{report.ratings[OVERALL][system].num_ratings}</td></tr>"
        for system in study.systems
    )
    return table(f"<th>system</th>{head}<th>ratings</th>", rows)


def _difference_table(report: StudyReport, titles: dict[str, str]) -> str:
    if not report.differences:
        return "<p>There is only one system.</p>"
    rows = []
    for row in report.differences:
        text = format_estimate(row.difference, sign="+", digits=2)
        is_clear = row.difference.low > 0 or row.difference.high < 0
        rows.append(
            f'<tr><th scope="row">{escape_html(row.a)} minus {escape_html(row.b)}</th>'
            f"<td>{escape_html(titles[row.question])}</td><td>{f'<b>{text}</b>' if is_clear else text}</td></tr>"
        )
    return table("<th>systems</th><th>question</th><th>difference</th>", "".join(rows))


def _agreement_table(report: StudyReport, titles: dict[str, str]) -> str:
    rows = "".join(
        f'<tr><th scope="row">{escape_html(titles[name])}</th><td>{_format_number(alpha)}</td></tr>'
        for name, alpha in report.agreement.items()
    )
    return table("<th>question</th><th>alpha</th>", rows)


def _correlations(report: StudyReport, titles: dict[str, str]) -> str:
    if not report.correlations:
        return ""
    rows = "".join(
        f'<tr><th scope="row">{escape_html(metric)}</th><td>{escape_html(titles[question])}</td>'
        f"<td>{format_estimate(value.spearman, sign='+', digits=2)}</td><td>{_format_number(value.kendall)}</td>"
        f"<td>{value.num_videos}</td></tr>"
        for question, by_metric in report.correlations.items()
        for metric, value in by_metric.items()
    )
    head = "<th>metric</th><th>question</th><th>Spearman</th><th>Kendall</th><th>videos</th>"
    return (
        "<h2>Do metrics agree with people?</h2>\n"
        '<p class="soft">Rank correlation over videos of the mean rating with each metric.</p>\n' + table(head, rows)
    )


def _format_number(value: float) -> str:
    return f"{value:.2f}" if math.isfinite(value) else "undefined"
