"""Compare runs: means with intervals over people, differences over the same videos, means by group, one page.

Videos of one person are not independent, so intervals resample people, each with all their videos. Metrics of whole
sets (Inception Score, set-level FID) have no interval.
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from itertools import combinations
from pathlib import Path
from typing import Any

import numpy as np

from likeness.app.bench.manifest import RUNS, Bench
from likeness.errors import ConfigError
from likeness.evaluation.report.style import ARROWS, STYLE, table
from likeness.evaluation.results.records import EvaluationResult, MetricRecord, load
from likeness.evaluation.results.statistics import RESAMPLES, Estimate, estimate, format_estimate
from likeness.files import nan_to_none, write_text
from likeness.text import escape_html


@dataclass(frozen=True, kw_only=True, slots=True)
class BenchReport:
    """All runs of a benchmark."""

    metrics: Mapping[str, MetricRecord]
    left_out: Mapping[str, str]
    means: Mapping[str, Mapping[str, Estimate]]
    """System -> metric."""
    counts: Mapping[str, Mapping[str, int]]
    """System -> metric: videos for which it is defined."""
    groups: Mapping[str, Mapping[str, Mapping[str, float]]]
    """Metric -> group -> system."""
    differences: Sequence[tuple[str, str, str, Estimate]]
    """Metric, system, other system, first minus second over the videos that both have."""

    def to_dict(self) -> dict[str, Any]:
        """As JSON types, with None for undefined numbers."""
        return nan_to_none(
            {
                "metrics": {name: asdict(metric) for name, metric in self.metrics.items()},
                "left_out": dict(self.left_out),
                "means": {s: {m: asdict(value) for m, value in own.items()} for s, own in self.means.items()},
                "counts": {system: dict(own) for system, own in self.counts.items()},
                "groups": self.groups,
                "differences": [
                    {"metric": metric, "a": a, "b": b, **asdict(value)} for metric, a, b, value in self.differences
                ],
            }
        )


def make_bench_report(folder: Path) -> BenchReport:
    """Read all measured runs.

    Raises:
        ConfigError: There is none.
    """
    bench = Bench.load(folder)
    results = {path.parent.name: load(path) for path in sorted((folder / RUNS).glob("*/evaluation.json"))}
    if not results:
        raise ConfigError(f"{folder} has no measured run. Make one with `likeness bench run {folder}`.")
    metrics = {name: metric for result in results.values() for name, metric in result.metrics.items()}
    identity_by_video = {case.name: case.identity for case in bench.cases}
    curves = {system: {name: result.curve(system, name) for name in metrics} for system, result in results.items()}
    return BenchReport(
        metrics=metrics,
        left_out={name: why for result in results.values() for name, why in result.left_out.items()},
        means={
            system: {name: _mean(result, system, name, curves[system][name], identity_by_video) for name in metrics}
            for system, result in results.items()
        },
        counts={system: {name: len(values) for name, values in own.items()} for system, own in curves.items()},
        groups={name: _group_means(bench, {s: own[name] for s, own in curves.items()}) for name in metrics},
        differences=[
            (name, a, b, _difference(curves[a][name], curves[b][name], identity_by_video))
            for name in metrics
            if metrics[name].level == "video"
            for a, b in combinations(results, 2)
        ],
    )


def cluster_bootstrap_mean(
    values: Mapping[str, float], identity_by_video: Mapping[str, str], *, seed: int = 0
) -> Estimate:
    """Mean over videos, with a 95 % percentile interval from a cluster bootstrap that resamples people.

    Args:
        values: A metric by name of the video.
        identity_by_video: The person shown in each video; all videos of a person are drawn together.
        seed: Seed of the resamples.

    Returns:
        NaN without videos; an interval of NaN with one person only.
    """
    values_by_person: dict[str, list[float]] = {}
    for name, value in values.items():
        values_by_person.setdefault(identity_by_video[name], []).append(value)
    if not values_by_person:
        return Estimate(value=math.nan, low=math.nan, high=math.nan)
    totals = np.array([sum(person_values) for person_values in values_by_person.values()])
    counts = np.array([len(person_values) for person_values in values_by_person.values()], dtype=float)
    rng = np.random.default_rng(seed)
    person_counts = rng.multinomial(
        len(values_by_person), np.full(len(values_by_person), 1 / len(values_by_person)), size=RESAMPLES
    )
    resampled = (person_counts @ totals) / (person_counts @ counts)
    value = float(totals.sum() / counts.sum())
    if len(values_by_person) == 1:  # One person gives no interval.
        return Estimate(value=value, low=math.nan, high=math.nan)
    return estimate(value, resampled)


def write_bench_page(path: Path, bench: Bench, report: BenchReport) -> None:
    """Write the report as one page."""
    systems = list(report.means)
    names = list(report.metrics)
    head = "".join(f"<th>{escape_html(system)}</th>" for system in systems)
    rows = "".join(
        f'<tr><th scope="row">{_title(report.metrics[name])}</th>'
        + "".join(f"<td>{format_estimate(report.means[system][name])}</td>" for system in systems)
        + f'<td class="soft">{escape_html(report.metrics[name].averaged)}</td></tr>'
        for name in names
    )
    incomplete = (
        ""
        if bench.is_complete
        else " <b>Fewer people than the protocol requires; results do not compare with published ones.</b>"
    )
    left_out = "".join(f"<li>{escape_html(name)}: {escape_html(why)}</li>" for name, why in report.left_out.items())
    page = f"""<!doctype html>
<html lang="en"><head><meta charset="utf-8"><meta name="viewport" content="width=device-width, initial-scale=1">
<title>{escape_html(bench.title)}</title><style>{STYLE}</style></head><body>
<h1>{escape_html(bench.title)}</h1>
<p class="soft">{escape_html(bench.source)}</p>
<p>{len(bench.identities)} people, {len(bench.cases)} videos of each system.{incomplete}</p>
<h2>Metrics</h2><p class="soft">Means with 95 % bootstrap intervals over people; arrows show which way is better.</p>
{table(f"<th>metric</th>{head}<th>averaged over</th>", rows)}
{_differences(report)}
<h2>By group</h2>
{_groups(report, systems)}
{f"<h2>Not measured</h2><ul>{left_out}</ul>" if left_out else ""}
</body></html>
"""
    write_text(path, page)


def _mean(
    result: EvaluationResult, system: str, name: str, values: Mapping[str, float], identity_by_video: Mapping[str, str]
) -> Estimate:
    if name in result.metrics and result.metrics[name].level == "video":
        return cluster_bootstrap_mean(values, identity_by_video)
    summary = next((one.scores.get(name) for one in result.systems if one.name == system), None)
    mean = math.nan if summary is None or summary.mean is None else summary.mean
    return Estimate(value=mean, low=math.nan, high=math.nan)


def _difference(a: Mapping[str, float], b: Mapping[str, float], identity_by_video: Mapping[str, str]) -> Estimate:
    return cluster_bootstrap_mean({name: a[name] - b[name] for name in a if name in b}, identity_by_video)


def _group_means(bench: Bench, values: Mapping[str, Mapping[str, float]]) -> dict[str, dict[str, float]]:
    groups: dict[str, set[str]] = {}
    for case in bench.cases:
        groups.setdefault(bench.by_name[case.identity].group, set()).add(case.name)
    return {
        group: {
            system: float(np.mean([system_values[name] for name in sorted(names & system_values.keys())]))
            if names & system_values.keys()
            else math.nan
            for system, system_values in values.items()
        }
        for group, names in groups.items()
    }


def _differences(report: BenchReport) -> str:
    if not report.differences:
        return ""
    rows = "".join(
        f'<tr><th scope="row">{escape_html(a)} minus {escape_html(b)}</th><td>{_title(report.metrics[metric])}</td>'
        f"<td>{f'<b>{text}</b>' if value.low > 0 or value.high < 0 else text}</td></tr>"
        for metric, a, b, value in report.differences
        for text in [format_estimate(value)]
    )
    note = '<p class="soft">Over videos that both have; bold where the interval excludes 0.</p>'
    return f"<h2>Differences</h2>{note}{table('<th>systems</th><th>metric</th><th>difference</th>', rows)}"


def _groups(report: BenchReport, systems: Sequence[str]) -> str:
    head = "".join(f"<th>{escape_html(system)}</th>" for system in systems)
    rows = "".join(
        f'<tr><th scope="row">{escape_html(group)}</th><td>{_title(report.metrics[metric])}</td>'
        + "".join(f"<td>{_format_number(own[system])}</td>" for system in systems)
        + "</tr>"
        for metric, groups in report.groups.items()
        if report.metrics[metric].level == "video"
        for group, own in groups.items()
    )
    return table(f"<th>group</th><th>metric</th>{head}", rows)


def _title(metric: MetricRecord) -> str:
    return f"{escape_html(metric.title)} {ARROWS[metric.direction]}"


def _format_number(value: float) -> str:
    return f"{value:.3f}" if math.isfinite(value) else "undefined"
