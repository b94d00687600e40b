"""Compute a study's results: valid raters, mean ratings, agreement, correlation with automatic metrics."""

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from itertools import combinations
from statistics import median
from typing import Any

import numpy as np

from likeness.app.study.answers import Answer
from likeness.app.study.manifest import Study
from likeness.app.study.metric_table import MetricTable
from likeness.app.study.statistics import (
    Correlation,
    bootstrap_weights,
    krippendorff_alpha,
    mean_estimate,
    rank_correlation,
    weighted_means,
)
from likeness.errors import ConfigError
from likeness.evaluation.results.statistics import Estimate, estimate
from likeness.files import nan_to_none

OVERALL = "overall"
"""Mean of all questions about a video, as Magic Mirror's "Overall Preference"."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Raters:
    """Valid raters, and the reasons why others are excluded."""

    total: int
    """Raters with at least one answer."""
    used: tuple[str, ...]
    failed_checks: tuple[str, ...]
    """Answered more checks wrongly than allowed; excluded."""
    unchecked: tuple[str, ...]
    """Stopped before the first check; excluded."""
    num_incomplete: int
    """Valid raters who stopped before the end; their answers count."""
    median_seconds: float
    """Time for one video, over all answers used."""


@dataclass(frozen=True, kw_only=True, slots=True)
class SystemRating:
    """Ratings of one system in one question."""

    mean: Estimate
    num_ratings: int
    num_videos: int
    histogram: tuple[int, ...]
    """Ratings by value, from the low end of the scale; empty for `overall`."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Difference:
    """One system minus another in one question, over the same resamples."""

    question: str
    a: str
    b: str
    difference: Estimate


@dataclass(frozen=True, kw_only=True, slots=True)
class StudyReport:
    """All results of a study."""

    raters: Raters
    ratings: Mapping[str, Mapping[str, SystemRating]]
    """Question -> system."""
    differences: tuple[Difference, ...]
    agreement: Mapping[str, float]
    """Krippendorff's alpha (interval) by question."""
    correlations: Mapping[str, Mapping[str, Correlation]]
    """Question -> metric."""
    videos: tuple[Mapping[str, Any], ...]
    """Mean ratings of each video: system, video, number of ratings, questions."""

    def to_dict(self) -> dict[str, Any]:
        """As JSON types, with None for undefined numbers."""
        return nan_to_none(asdict(self))


def make_report(
    study: Study,
    answers: Sequence[Answer],
    *,
    metrics: MetricTable | None = None,
    allowed_failures: int = 0,
) -> StudyReport:
    """Compute the results of a study.

    Args:
        study: The study.
        answers: The newest answer of each rater for each video.
        metrics: Automatic metrics of the same videos.
        allowed_failures: Attention checks that a rater may fail and still count.

    Raises:
        ConfigError: No rater is valid, or the metrics are of other videos.
    """
    raters = classify_raters(study, answers, allowed_failures)
    if not raters.used:
        raise ConfigError(
            f"Of {raters.total} raters none counts: {len(raters.failed_checks)} failed attention checks, "
            f"{len(raters.unchecked)} met none. Ask more people, or see `--allow-failed`."
        )
    tables = rating_tables(study, answers, raters.used)
    columns = {name: np.array([item.system == name for item in study.items], dtype=float) for name in study.systems}
    ratings: dict[str, dict[str, SystemRating]] = {}
    differences: list[Difference] = []
    for question, table in tables.items():
        rater_weights, video_weights = _resample_sets(study, len(raters.used))
        means: dict[str, np.ndarray] = {}
        ratings[question] = {}
        for name, column in columns.items():
            system_table = np.where(column[None] > 0, table, np.nan)
            means[name] = weighted_means(system_table, rater_weights, video_weights)
            ratings[question][name] = SystemRating(
                mean=mean_estimate(system_table, rater_weights, video_weights),
                num_ratings=int(np.isfinite(system_table).sum()),
                num_videos=int(np.isfinite(system_table).any(axis=0).sum()),
                histogram=() if question == OVERALL else _histogram(study, system_table),
            )
        for a, b in combinations(study.systems, 2):
            value = ratings[question][a].mean.value - ratings[question][b].mean.value
            difference = estimate(value, means[a] - means[b])
            differences.append(Difference(question=question, a=a, b=b, difference=difference))
    return StudyReport(
        raters=raters,
        ratings=ratings,
        differences=tuple(differences),
        agreement={question: krippendorff_alpha(table) for question, table in tables.items()},
        correlations=_correlate(study, tables, metrics or {}),
        videos=tuple(_video_rows(study, tables)),
    )


def classify_raters(study: Study, answers: Sequence[Answer], allowed_failures: int = 0) -> Raters:
    """Sort raters by their attention checks."""
    by_rater: dict[str, list[Answer]] = {}
    for answer in answers:
        by_rater.setdefault(answer.rater, []).append(answer)
    used: list[str] = []
    failed: list[str] = []
    unchecked: list[str] = []
    for rater, rater_answers in by_rater.items():
        checks = [answer for answer in rater_answers if answer.trial in study.check_by_id]
        failures = sum(set(answer.ratings.values()) != {study.check_by_id[answer.trial].expected} for answer in checks)
        if failures > allowed_failures:
            failed.append(rater)
        elif study.checks and not checks:
            unchecked.append(rater)
        else:
            used.append(rater)
    length = len(study.plans[0])
    seconds = [answer.seconds for rater in used for answer in by_rater[rater]]
    return Raters(
        total=len(by_rater),
        used=tuple(used),
        failed_checks=tuple(failed),
        unchecked=tuple(unchecked),
        num_incomplete=sum(len(by_rater[rater]) < length for rater in used),
        median_seconds=median(seconds) if seconds else float("nan"),
    )


def rating_tables(study: Study, answers: Sequence[Answer], raters: Sequence[str]) -> dict[str, np.ndarray]:
    """Arrange ratings in tables.

    Returns:
        For each question and `overall`: (raters, videos), NaN where there is no rating; videos in the order of the
        study's items.
    """
    rows = {rater: number for number, rater in enumerate(raters)}
    columns = {item.id: number for number, item in enumerate(study.items)}
    names = study.questionnaire.names
    tables = {name: np.full((len(rows), len(columns)), np.nan) for name in names}
    for answer in answers:
        if answer.rater in rows and answer.trial in columns:
            for name in names:
                tables[name][rows[answer.rater], columns[answer.trial]] = answer.ratings[name]
    return tables | {OVERALL: np.mean([tables[name] for name in names], axis=0)}


def _resample_sets(study: Study, num_raters: int) -> tuple[np.ndarray, np.ndarray]:
    """Resample raters and sets: the videos of one name stay together, so that differences of systems stay paired."""
    names = sorted({item.video for item in study.items})
    raters, sets = bootstrap_weights(num_raters, len(names), seed=study.seed)
    columns = {name: number for number, name in enumerate(names)}
    return raters, sets[:, [columns[item.video] for item in study.items]]


def _histogram(study: Study, table: np.ndarray) -> tuple[int, ...]:
    scale = range(study.questionnaire.lowest, study.questionnaire.highest + 1)
    return tuple(int((table == value).sum()) for value in scale)


def _video_rows(study: Study, tables: Mapping[str, np.ndarray]) -> list[dict[str, Any]]:
    rows = []
    for number, item in enumerate(study.items):
        video_ratings = {question: table[:, number] for question, table in tables.items()}
        count = int(np.isfinite(video_ratings[OVERALL]).sum())
        means = {name: float(np.nanmean(values)) if count else float("nan") for name, values in video_ratings.items()}
        rows.append({"system": item.system, "video": item.video, "num_ratings": count, **means})
    return rows


def _correlate(
    study: Study, tables: Mapping[str, np.ndarray], metrics: MetricTable
) -> dict[str, dict[str, Correlation]]:
    if not metrics:
        return {}
    rows = _video_rows(study, tables)
    known = {(row["system"], row["video"]) for row in rows}
    if not known & {video for values in metrics.values() for video in values}:
        system, video = next(iter(next(iter(metrics.values()))))
        raise ConfigError(
            f"The metrics are of other videos: `{video}` of `{system}` is not in this study, which compares "
            f"{', '.join(study.systems)}. Use the same names of systems and videos."
        )
    return {
        question: {
            metric: rank_correlation(
                np.array([row[question] for row in rows]),
                np.array([values.get((row["system"], row["video"]), np.nan) for row in rows]),
                seed=study.seed,
            )
            for metric, values in metrics.items()
        }
        for question in tables
    }
