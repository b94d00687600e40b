"""Compare systems: means with intervals, and tests of paired differences over the videos that two systems share.

Differences are paired by video name. A video whose metric is undefined in one system is in no difference; `num_common`
and `num_pairs` show how many these are, because a system that loses faces would otherwise look better.
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
from likeness.files import nan_to_none

ALPHA = 1 - LEVEL
"""Corrected p-values below this are called significant."""
CORRECTION = "the method of Benjamini and Hochberg (false discovery rate) over all tests of this evaluation"


@dataclass(frozen=True, kw_only=True, slots=True)
class Difference:
    """One system minus another in one metric, over the videos that have it in both."""

    metric: str
    a: str
    b: str
    difference: Estimate
    num_pairs: int
    num_common: int
    """Videos that both systems have by name, with or without the metric."""
    num_groups: int
    """Resampled and flipped groups: identities, or pairs if there are few identities."""
    p_value: float
    """Of the two-sided sign-flip permutation test."""
    p_corrected: float
    better: str | None
    """The significantly better system; None if neither is, or the metric has no direction."""

    @property
    def is_significant(self) -> bool:
        return self.p_corrected < ALPHA


@dataclass(frozen=True, kw_only=True, slots=True)
class Comparison:
    """Means and differences of all systems."""

    means: Mapping[str, Mapping[str, Estimate]]
    """System -> metric."""
    differences: tuple[Difference, ...]
    resampled: str
    """`people` or `videos`."""
    only_in: Mapping[str, tuple[str, ...]]
    """System -> names of videos that no other system has; empty with one system."""

    def to_dict(self) -> dict[str, Any]:
        """As JSON types, with None for undefined numbers."""
        return {
            "level": LEVEL,
            "resampled": self.resampled,
            "test": "sign-flip permutation test of paired differences, two-sided",
            "correction": CORRECTION,
            "means": {
                system: {name: nan_to_none(asdict(value)) for name, value in own.items()}
                for system, own in self.means.items()
            },
            "differences": [nan_to_none(asdict(row)) for row in self.differences],
            "only_in": {system: list(names) for system, names in self.only_in.items()},
        }


def compare_systems(result: EvaluationResult) -> Comparison:
    """Compute intervals of means, and test every pair of systems in every video-level metric."""
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
            _add_corrected_p(row, p_value, result.metrics[row.metric])
            for row, p_value in zip(rows, corrected, strict=True)
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
    if metric.level == "system":  # Defined for the set only: there are no values of single videos to resample.
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
    """A mean, with an interval unless too few identities have the metric."""
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


def _add_corrected_p(row: Difference, p_corrected: float, metric: MetricRecord) -> Difference:
    """Add the p-value corrected over all tests, and which system is better."""
    row = replace(row, p_corrected=p_corrected)
    if not row.is_significant or metric.direction == "neither":
        return row
    is_a = (row.difference.value > 0) == (metric.direction == "higher")
    return replace(row, better=row.a if is_a else row.b)
