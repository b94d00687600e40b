"""Curves over the steps of a stage, drawn as SVG."""

import math
from collections.abc import Mapping, Sequence

from likeness.text import escape_html
from likeness.training.report.read import Curve

MAX_POINTS = 400
"""Longer curves are drawn as means of as many stretches."""
_WIDTH, _HEIGHT, _LEFT, _RIGHT, _TOP, _FOOT = 480, 210, 66, 10, 8, 22


def draw_curves(lines: Mapping[str, Curve], title: str, *, last_step: int, is_log: bool = False) -> str:
    """A panel with a line for each curve, all over the same steps.

    Args:
        lines: By label; curves without points are left out.
        title: Heading of the panel.
        last_step: End of the axis.
        is_log: Whether the axis of values is logarithmic; all values are then positive.
    """
    shown = {name: thin_out(curve) for name, curve in lines.items() if curve}
    values = [value for curve in shown.values() for _, value in curve]
    is_log = is_log and min(values) > 0
    low, high = _span(values, is_log=is_log)

    def to_x(step: float) -> float:
        return _LEFT + step / max(last_step, 1) * (_WIDTH - _LEFT - _RIGHT)

    def to_y(value: float) -> float:
        a, b, c = (math.log10(x) for x in (low, high, value)) if is_log else (low, high, value)
        return _TOP + (b - c) / (b - a) * (_HEIGHT - _TOP - _FOOT)

    parts = []
    ticks = _log_ticks(low, high) if is_log else _ticks(low, high)
    for tick in ticks:
        y = to_y(tick)
        parts.append(
            f'<line class="rule" x1="{_LEFT}" x2="{_WIDTH - _RIGHT}" y1="{y:.1f}" y2="{y:.1f}"/>'
            f'<text x="{_LEFT - 6}" y="{y + 4:.1f}" text-anchor="end">{format_value(tick, _digits(ticks))}</text>'
        )
    for step, anchor, text in ((0, "start", "step 0"), (last_step, "end", f"{last_step:,}")):
        parts.append(f'<text x="{to_x(step):.1f}" y="{_HEIGHT - 4}" text-anchor="{anchor}">{text}</text>')
    for number, curve in enumerate(shown.values()):
        points = [(to_x(step), to_y(value)) for step, value in curve]
        parts.append(_line(points, f"var(--c{number % 4})"))
    label = f"{title} over steps 0 to {last_step}"
    svg = f'<svg viewBox="0 0 {_WIDTH} {_HEIGHT}" role="img" aria-label="{escape_html(label)}">{"".join(parts)}</svg>'
    return f'<div class="card"><h3>{escape_html(title)}</h3>{svg}{_legend(lines)}</div>'


def thin_out(curve: Curve) -> Curve:
    """At most `MAX_POINTS` points, each the mean of a stretch."""
    if len(curve) <= MAX_POINTS:
        return curve
    means = []
    for number in range(MAX_POINTS):
        part = curve[len(curve) * number // MAX_POINTS : len(curve) * (number + 1) // MAX_POINTS]
        means.append((part[-1][0], sum(value for _, value in part) / len(part)))
    return means


def format_value(value: float, digits: int = 3) -> str:
    """A number as on an axis, with this many digits."""
    if value and not 1e-3 <= abs(value) < 1e6:
        mantissa, exponent = f"{value:.{digits - 1}e}".split("e")
        return f"{float(mantissa):g}e{int(exponent)}"
    return f"{value:.{digits}g}" if abs(value) < 1000 else f"{value:,.0f}"


def _digits(ticks: Sequence[float]) -> int:
    """Digits with which neighboring ticks look different."""
    if len(ticks) < 2:
        return 3
    largest = max(abs(tick) for tick in ticks)
    return min(7, max(3, math.ceil(math.log10(largest / (ticks[1] - ticks[0]))) + 1))


def _legend(lines: Mapping[str, Curve]) -> str:
    shown = {name: curve for name, curve in lines.items() if curve}
    if len(shown) == 1:
        (curve,) = shown.values()
        return f'<p class="legend">last: {format_value(curve[-1][1])}</p>'
    parts = [
        f'<span><b style="color: var(--c{number % 4})">{escape_html(name)}</b> {format_value(curve[-1][1])}</span>'
        for number, (name, curve) in enumerate(shown.items())
    ]
    return f'<p class="legend">last: {" ".join(parts)}</p>'


def _line(points: Sequence[tuple[float, float]], color: str) -> str:
    if len(points) == 1:
        return f'<circle cx="{points[0][0]:.1f}" cy="{points[0][1]:.1f}" r="2.5" fill="{color}"/>'
    text = " ".join(f"{x:.1f},{y:.1f}" for x, y in points)
    return f'<polyline class="curve" stroke="{color}" points="{text}"/>'


def _span(values: Sequence[float], *, is_log: bool) -> tuple[float, float]:
    low, high = min(values), max(values)
    if is_log:
        return low / 1.05, high * 1.05
    if low == high:
        margin = abs(low) * 0.1 or 1.0
        return low - margin, high + margin
    margin = 0.05 * (high - low)
    return (0.0 if 0 <= low <= 0.3 * high else low - margin), high + margin


def _ticks(low: float, high: float) -> list[float]:
    raw = (high - low) / 4
    power = 10 ** math.floor(math.log10(raw))
    step = next(factor * power for factor in (1, 2, 2.5, 5, 10) if factor * power >= raw)
    first = math.ceil(low / step - 1e-9)
    return [number * step for number in range(first, first + 7) if number * step <= high + 1e-9 * step]


def _log_ticks(low: float, high: float) -> list[float]:
    decades = range(math.floor(math.log10(low)), math.ceil(math.log10(high)) + 1)
    for factors in ((1,), (1, 3), (1, 2, 5), (1, 1.5, 2, 3, 5, 7)):
        ticks = [factor * 10.0**decade for decade in decades for factor in factors]
        ticks = [tick for tick in ticks if low <= tick <= high]
        if len(ticks) >= 3:
            return ticks[:: max(1, len(ticks) // 5)]
    return _ticks(low, high)
