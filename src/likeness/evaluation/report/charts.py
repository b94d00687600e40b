"""Plots of a report, drawn as SVG: distributions of a metric, and curves over the frames of one video."""

import math
from collections.abc import Mapping, Sequence

import numpy as np

from likeness.text import escape_html

COLORS = ("#2f6db3", "#c2571a", "#2e8b57", "#8a4fbe", "#b3385d", "#6b7280")
"""By index of the system."""
_WIDTH_PX, _LEFT_PX, _RIGHT_PX = 640, 150, 16
_LANE_PX, _AXIS_PX = 46, 26
_PANEL_WIDTH_PX, _PANEL_HEIGHT_PX, _PANEL_LEFT_PX, _PANEL_FOOT_PX = 320, 120, 40, 18


def color_of(index: int) -> str:
    return COLORS[index % len(COLORS)]


def distribution(values: Mapping[str, Sequence[float]], title: str) -> str:
    """One row for each system: a dot for each video, a box from first to third quartile, a line at the median."""
    found = [value for own in values.values() for value in own]
    if not found:
        return '<p class="soft">No video has this metric.</p>'
    low, high = _span(min(found), max(found))
    height = len(values) * _LANE_PX + _AXIS_PX

    def x_of(value: float) -> float:
        return _LEFT_PX + (value - low) / (high - low) * (_WIDTH_PX - _LEFT_PX - _RIGHT_PX)

    parts = []
    for tick in _ticks(low, high):
        x = x_of(tick)
        parts.append(
            f'<line class="rule" x1="{x:.1f}" x2="{x:.1f}" y1="0" y2="{height - _AXIS_PX + 4}"/>'
            f'<text class="tick" x="{x:.1f}" y="{height - 6}" text-anchor="middle">{tick:.4g}</text>'
        )
    for lane, (name, own) in enumerate(values.items()):
        middle = lane * _LANE_PX + _LANE_PX / 2
        parts.append(
            f'<text x="{_LEFT_PX - 14}" y="{middle + 5:.1f}" text-anchor="end">{escape_html(name[:18])}</text>'
        )
        parts.append(_lane([x_of(value) for value in own], middle, color_of(lane)))
    return _svg(_WIDTH_PX, height, f"{title}: distribution over videos", parts)


def curves(lines: Mapping[str, tuple[int, Sequence[float | None]]], title: str, span: tuple[float, float]) -> str:
    """A small panel: a line for each system over the frames of one video; frames without a value are gaps.

    Args:
        lines: By system: index of its color, and its values.
        title: Label of the panel.
        span: Lowest and highest value of all panels, which share one axis.
    """
    low, high = span
    count = max((len(values) for _, values in lines.values()), default=0)
    inner_width = _PANEL_WIDTH_PX - _PANEL_LEFT_PX - 6
    inner_height = _PANEL_HEIGHT_PX - _PANEL_FOOT_PX - 6

    def across(frame: float) -> float:
        return _PANEL_LEFT_PX + frame / max(count - 1, 1) * inner_width

    def down(value: float) -> float:
        return 6 + (high - value) / (high - low) * inner_height

    parts = []
    for tick in _ticks(low, high, most=4):
        y = down(tick)
        parts.append(
            f'<line class="rule" x1="{_PANEL_LEFT_PX}" x2="{_PANEL_WIDTH_PX - 6}" y1="{y:.1f}" y2="{y:.1f}"/>'
            f'<text class="tick" x="{_PANEL_LEFT_PX - 5}" y="{y + 4:.1f}" text-anchor="end">{tick:.3g}</text>'
        )
    foot = _PANEL_HEIGHT_PX - 4
    parts.append(f'<text class="tick" x="{_PANEL_LEFT_PX}" y="{foot}">1</text>')
    parts.append(f'<text class="tick" x="{_PANEL_WIDTH_PX - 6}" y="{foot}" text-anchor="end">{count}</text>')
    for index, values in lines.values():
        for stretch in _stretches(values):
            points = [(across(frame), down(value)) for frame, value in stretch]
            if len(points) == 1:
                ((x, y),) = points
                parts.append(f'<circle cx="{x:.1f}" cy="{y:.1f}" r="2" fill="{color_of(index)}"/>')
                continue
            path = " ".join(f"{x:.1f},{y:.1f}" for x, y in points)
            parts.append(f'<polyline points="{path}" fill="none" stroke="{color_of(index)}" stroke-width="1.8"/>')
    return _svg(_PANEL_WIDTH_PX, _PANEL_HEIGHT_PX, title, parts)


def span_of(values: Sequence[float]) -> tuple[float, float]:
    """Lowest and highest value with a margin; 0 to 1 without values."""
    return _span(min(values), max(values)) if values else (0.0, 1.0)


def _lane(places: Sequence[float], middle: float, color: str) -> str:
    parts = []
    if len(places) >= 4:
        first, median, third = np.quantile(places, (0.25, 0.5, 0.75))
        parts.append(
            f'<rect x="{first:.1f}" y="{middle - 13:.1f}" width="{max(third - first, 1):.1f}" height="26" rx="4" '
            f'fill="{color}" opacity=".18"/><line x1="{median:.1f}" x2="{median:.1f}" y1="{middle - 13:.1f}" '
            f'y2="{middle + 13:.1f}" stroke="{color}" stroke-width="2.5"/>'
        )
    # Vertical jitter separates overlapping dots; a fixed seed keeps the page reproducible.
    offsets = np.random.default_rng(0).uniform(-9, 9, len(places)) if len(places) > 1 else np.zeros(len(places))
    parts += [
        f'<circle cx="{x:.1f}" cy="{middle + offset:.1f}" r="3.4" fill="{color}" opacity=".75"/>'
        for x, offset in zip(places, offsets, strict=True)
    ]
    return "".join(parts)


def _stretches(values: Sequence[float | None]) -> list[list[tuple[int, float]]]:
    """Runs of frames that have a value."""
    runs: list[list[tuple[int, float]]] = []
    last = -2
    for frame, value in enumerate(values):
        if value is None:
            continue
        if frame != last + 1:
            runs.append([])
        runs[-1].append((frame, value))
        last = frame
    return runs


def _span(low: float, high: float) -> tuple[float, float]:
    room = (high - low) * 0.06 or max(abs(high) * 0.05, 0.05)
    return low - room, high + room


def _ticks(low: float, high: float, most: int = 6) -> list[float]:
    """Round numbers between two ends."""
    raw = (high - low) / most
    power = 10.0 ** math.floor(math.log10(raw))
    step = next(power * factor for factor in (1, 2, 5, 10) if power * factor >= raw)
    first = math.ceil(low / step)
    return [round(number * step, 12) for number in range(first, math.floor(high / step) + 1)]


def _svg(width: float, height: float, label: str, parts: Sequence[str]) -> str:
    return f'<svg viewBox="0 0 {width} {height}" role="img" aria-label="{escape_html(label)}">{"".join(parts)}</svg>'
