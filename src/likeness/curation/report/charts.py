"""Histograms and the funnel, drawn as SVG."""

from collections.abc import Sequence

import numpy as np

from likeness.curation.report.read import StageCount
from likeness.text import escape_html
from likeness.training.report.style import table

_WIDTH, _HEIGHT, _FOOT, _TOP = 480, 170, 24, 18
_BINS = 24


def draw_histogram(values: Sequence[float], title: str) -> str:
    """A panel with the distribution of some numbers."""
    counts, edges = np.histogram(np.asarray(values, np.float64), bins=_BINS)
    highest, step = int(counts.max()), _WIDTH / _BINS
    bars = []
    for number, count in enumerate(counts):
        height = (_HEIGHT - _FOOT - _TOP) * count / highest
        bars.append(
            f'<rect x="{number * step + 1:.1f}" y="{_HEIGHT - _FOOT - height:.1f}" width="{step - 2:.1f}" '
            f'height="{height:.1f}" fill="var(--c0)"/>'
        )
    text = (
        f'<text x="0" y="{_HEIGHT - 5}">{_short(edges[0])}</text>'
        f'<text x="{_WIDTH}" y="{_HEIGHT - 5}" text-anchor="end">{_short(edges[-1])}</text>'
        f'<text x="0" y="13">{highest:,}</text>'
    )
    rule = f'<line class="rule" x1="0" x2="{_WIDTH}" y1="{_HEIGHT - _FOOT}" y2="{_HEIGHT - _FOOT}"/>'
    label = escape_html(f"{title}: {len(values)} values from {_short(edges[0])} to {_short(edges[-1])}")
    svg = f'<svg viewBox="0 0 {_WIDTH} {_HEIGHT}" role="img" aria-label="{label}">{"".join(bars)}{rule}{text}</svg>'
    return f'<div class="card"><h3>{escape_html(title)}</h3>{svg}</div>'


def draw_funnel(stages: Sequence[StageCount]) -> str:
    """A table with a bar for each stage: what reached it, and what it dropped."""
    most = max((stage.reached for stage in stages), default=0) or 1
    rows = []
    for stage in stages:
        kept = stage.reached - stage.dropped
        reasons = "<br>".join(f"{count:,} {escape_html(reason)}" for reason, count in stage.reasons.items())
        bar = (
            f'<svg class="bar" viewBox="0 0 200 14" role="img" aria-label="{kept:,} kept, {stage.dropped:,} dropped">'
            f'<rect width="{200 * kept / most:.1f}" height="14" fill="var(--c0)"/>'
            f'<rect x="{200 * kept / most:.1f}" width="{200 * stage.dropped / most:.1f}" height="14" '
            'fill="var(--c1)"/></svg>'
        )
        rows.append(
            f"<tr><th>{escape_html(stage.name)}</th><td>{bar}</td><td>{stage.reached:,}</td><td>{stage.dropped:,}</td>"
            f"<td>{kept:,}</td><td>{reasons}</td></tr>"
        )
    head = "".join(f"<th>{title}</th>" for title in ("stage", "", "reached", "dropped", "kept", "reasons"))
    return table(head, "".join(rows))


def _short(value: float) -> str:
    return f"{value:,.0f}" if abs(value) >= 1000 or float(value).is_integer() else f"{value:.3g}"
