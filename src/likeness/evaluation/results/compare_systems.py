"""Systems side by side: means with intervals, and differences over the videos that two systems share, with their tests.

Differences are paired by the video's name, because easy and hard tasks are the same for both. A video that has a figure in
one system and none in the other is in no difference; `num_common` beside `num_pairs` shows how many those are, since a
system that loses faces would otherwise look better for it.
"""

import math
from collections.abc import Mapping
from dataclasses import asdict, dataclass, replace
from itertools import combinations
from typing import Any

import numpy as np

from likeness.evaluation.results.records import EvaluationResult, MetricRecord, VideoResult
from likeness.evaluation.results.statistics import (
    LEVEL,
    MIN_GROUPS,
    Estimate,
    are_enough,
    correct,
    estimate,
    groups_of,
    mean_estimate,
    sign_flip_test,
)

ALPHA = 1 - LEVEL
"""Corrected p-values below this are called significant."""
CORRECTION = "the method of Benjamini and Hochberg (false discovery rate) over all tests of this evaluation"


@dataclass(frozen=True, kw_only=True, slots=True)
class Difference:
    """One system less another at one metric, over the videos that have the figure in both."""

    metric: str
    a: str
    b: str
    difference: Estimate
    num_pairs: int
    num_common: int
    """Videos of both systems by name, with or without the figure."""
    num_groups: int
    """What was resampled and flipped: people, or pairs where there are few people."""
    p_value: float
    """Of the sign-flip permutation test, two-sided."""
    p_corrected: float
    better: str | None
    """The system that is significantly better; None where neither is, or the metric has no direction."""

    @property
    def is_significant(self) -> bool:
        return self.p_corrected < ALPHA


@dataclass(frozen=True, kw_only=True, slots=True)
class Comparison:
    """Everything that is said about systems beyond their records."""

    means: Mapping[str, Mapping[str, Estimate]]
    """System -> metric."""
    differences: tuple[Difference, ...]
    resampled: str
    """`people` or `videos`."""
    only_in: Mapping[str, tuple[str, ...]]
    """System -> videos that no other system has by that name; empty with one system."""

    def to_dict(self) -> dict[str, Any]:
        """JSON-able, with None where a number does not exist."""
        return {
            "level": LEVEL,
            "resampled": self.resampled,
            "test": "sign-flip permutation test of paired differences, two-sided",
            "correction": CORRECTION,
            "means": {
                system: {name: _plain(asdict(value)) for name, value in own.items()}
                for system, own in self.means.items()
            },
            "differences": [
                _plain(asdict(row) | {"difference": _plain(asdict(row.difference))}) for row in self.differences
            ],
            "only_in": {system: list(names) for system, names in self.only_in.items()},
        }


def compare_systems(result: EvaluationResult) -> Comparison:
    """Lay intervals around means, and test every pair of systems at every metric that single videos have."""
    own = {system.name: _videos_of(result, system.name) for system in result.systems}
    by_people = are_enough(video.identity for video in result.videos if video.error is None)
    rows = [
        _difference(metric, a, b, own[a], own[b], by_people=by_people)
        for a, b in combinations(own, 2)
        for metric in result.metrics.values()
        if metric.level == "video" and own[a].keys() & own[b].keys()
    ]
    corrected = correct([row.p_value for row in rows])
    names = {system: set(videos) for system, videos in own.items()}
    return Comparison(
        means={
            name: {
                metric.name: _mean(result, name, metric, own[name], by_people=by_people)
                for metric in result.metrics.values()
            }
            for name in own
        },
        differences=tuple(
            _settle(row, p_value, result.metrics[row.metric]) for row, p_value in zip(rows, corrected, strict=True)
        ),
        resampled="people" if by_people else "videos",
        only_in={
            system: tuple(sorted(found.difference(*(names[other] for other in names if other != system))))
            for system, found in names.items()
            if len(names) > 1
        },
    )


def _videos_of(result: EvaluationResult, system: str) -> dict[str, VideoResult]:
    return {video.name: video for video in result.videos if video.system == system and video.error is None}


def _mean(
    result: EvaluationResult,
    system: str,
    metric: MetricRecord,
    videos: Mapping[str, VideoResult],
    *,
    by_people: bool,
) -> Estimate:
    if metric.level == "system":  # It exists for the set alone; there are no single figures to resample.
        summary = next(one.scores.get(metric.name) for one in result.systems if one.name == system)
        value = math.nan if summary is None or summary.mean is None else summary.mean
        return estimate(value, np.empty(0))
    found = [(video.scores.get(metric.name), video.identity) for video in videos.values()]
    values = [(value, identity) for value, identity in found if value is not None]
    return _estimate(
        np.array([value for value, _ in values], dtype=np.float64),
        groups_of([identity for _, identity in values], by_label=by_people),
        by_people=by_people,
    )


def _estimate(values: np.ndarray, groups: np.ndarray, *, by_people: bool) -> Estimate:
    """A mean, with an interval unless too few of the people have it."""
    found = mean_estimate(values, groups)
    if by_people and len(np.unique(groups)) < MIN_GROUPS:
        return replace(found, low=math.nan, high=math.nan)
    return found


def _difference(
    metric: MetricRecord,
    a: str,
    b: str,
    of_a: Mapping[str, VideoResult],
    of_b: Mapping[str, VideoResult],
    *,
    by_people: bool,
) -> Difference:
    common = sorted(of_a.keys() & of_b.keys())
    differences, identities = [], []
    for name in common:
        one, other = of_a[name].scores.get(metric.name), of_b[name].scores.get(metric.name)
        if one is not None and other is not None:
            differences.append(one - other)
            identities.append(of_a[name].identity)
    values, groups = np.array(differences, dtype=np.float64), groups_of(identities, by_label=by_people)
    return Difference(
        metric=metric.name,
        a=a,
        b=b,
        difference=_estimate(values, groups, by_people=by_people),
        num_pairs=len(values),
        num_common=len(common),
        num_groups=len(np.unique(groups)),
        p_value=sign_flip_test(values, groups) if metric.direction != "neither" else math.nan,
        p_corrected=math.nan,
        better=None,
    )


def _settle(row: Difference, p_corrected: float, metric: MetricRecord) -> Difference:
    """Add what only all tests together tell."""
    row = replace(row, p_corrected=p_corrected)
    if not row.is_significant or metric.direction == "neither":
        return row
    is_a = (row.difference.value > 0) == (metric.direction == "higher")
    return replace(row, better=row.a if is_a else row.b)


def _plain(record: dict[str, Any]) -> dict[str, Any]:
    return {
        name: None if isinstance(value, float) and not math.isfinite(value) else value for name, value in record.items()
    }
