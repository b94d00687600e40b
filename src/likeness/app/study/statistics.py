"""Statistics of a study: means with intervals, agreement of raters, rank correlation with metrics.

Ratings are an incomplete table of raters and videos. Intervals resample both with replacement (the "pigeonhole"
bootstrap of Owen 2007, doi:10.1214/07-AOAS122), because many answers of few raters about few videos are not
independent. It is conservative. All intervals are 95 % percentile intervals of the resamples (`estimate`).
"""

from dataclasses import dataclass
from typing import Literal

import numpy as np
from scipy import stats

from likeness.evaluation.results.statistics import RESAMPLES, Estimate, estimate


@dataclass(frozen=True, kw_only=True, slots=True)
class Correlation:
    """Rank correlation of mean ratings and a metric over videos."""

    spearman: Estimate
    kendall: float
    num_videos: int


def bootstrap_weights(
    num_raters: int, num_videos: int, *, seed: int = 0, count: int = RESAMPLES
) -> tuple[np.ndarray, np.ndarray]:
    """Draw bootstrap weights of raters and videos.

    Shapes:
        returns: (resamples, raters) and (resamples, videos)
    """
    rng = np.random.default_rng(seed)
    raters = rng.multinomial(num_raters, np.full(num_raters, 1 / num_raters), size=count)
    videos = rng.multinomial(num_videos, np.full(num_videos, 1 / num_videos), size=count)
    return raters.astype(float), videos.astype(float)


def weighted_means(table: np.ndarray, raters: np.ndarray, videos: np.ndarray) -> np.ndarray:
    """Mean of an incomplete table under each resample; NaN where a resample holds no rating.

    Shapes:
        table: (raters, videos), NaN where there is no rating
        raters: (resamples, raters)
        videos: (resamples, videos)
        returns: (resamples,)
    """
    is_given = np.isfinite(table)
    total = ((raters @ np.where(is_given, table, 0.0)) * videos).sum(axis=1)
    count = ((raters @ is_given.astype(float)) * videos).sum(axis=1)
    return np.divide(total, count, out=np.full(len(total), np.nan), where=count > 0)


def mean_estimate(table: np.ndarray, raters: np.ndarray, videos: np.ndarray) -> Estimate:
    """Mean of all ratings in a table, with its interval."""
    value = float(np.nanmean(table)) if np.isfinite(table).any() else float("nan")
    return estimate(value, weighted_means(table, raters, videos))


def krippendorff_alpha(table: np.ndarray, level: Literal["nominal", "ordinal", "interval"] = "interval") -> float:
    """Krippendorff's alpha, the agreement of raters: 1 is full agreement, 0 is chance.

    alpha = 1 - (n - 1) sum_ck o_ck d_ck / sum_ck n_c n_k d_ck, with coincidences o of the values c and k within videos
    and totals n (Krippendorff, Computing Krippendorff's Alpha-Reliability, 2011). d_ck is the squared distance of the
    values c and k at a level of measurement: `nominal` 1 for different values; `interval` (c - k)^2; `ordinal` the
    squared number of ratings between c and k, with half of those at either end. Videos with one rating do not count.

    Shapes:
        table: (raters, videos), NaN where there is no rating

    Args:
        table: The ratings.
        level: The level of measurement, as above.

    Returns:
        NaN where no video has two ratings, or all ratings are equal.
    """
    paired = table[:, np.isfinite(table).sum(axis=0) >= 2]
    values = np.unique(paired[np.isfinite(paired)])
    if len(values) < 2:
        return float("nan")
    counts = np.stack([(paired == value).sum(axis=0) for value in values]).astype(float)  # (values, videos)
    per_video = counts.sum(axis=0)
    pairs = np.einsum("cu,ku->cku", counts, counts) - np.einsum(
        "cu,ck->cku", counts, np.eye(len(values))
    )  # Exclude pairs of a rating with itself.
    coincidences = (pairs / (per_video - 1)).sum(axis=2)
    totals = coincidences.sum(axis=1)
    distances = _distances(values, totals, level)
    expected = (np.outer(totals, totals) * distances).sum()
    return float(1 - (totals.sum() - 1) * (coincidences * distances).sum() / expected)


def rank_correlation(human_scores: np.ndarray, metric: np.ndarray, *, seed: int = 0) -> Correlation:
    """Spearman's and Kendall's (tau-b) rank correlation over videos; Spearman's interval by resampled videos.

    Shapes:
        human_scores: (videos,) mean ratings
        metric: (videos,) NaN where undefined
    """
    is_defined = np.isfinite(human_scores) & np.isfinite(metric)
    human_scores, metric = human_scores[is_defined], metric[is_defined]
    count = len(human_scores)
    if count < 3 or np.ptp(human_scores) == 0 or np.ptp(metric) == 0:
        nan = float("nan")
        return Correlation(spearman=Estimate(value=nan, low=nan, high=nan), kendall=nan, num_videos=count)
    resample_indices = np.random.default_rng(seed).integers(count, size=(RESAMPLES, count))
    ranks = [stats.rankdata(values[resample_indices], axis=1) for values in (human_scores, metric)]
    ranks = [rank - rank.mean(axis=1, keepdims=True) for rank in ranks]
    scale = np.sqrt((ranks[0] ** 2).sum(axis=1) * (ranks[1] ** 2).sum(axis=1))
    resampled = np.divide((ranks[0] * ranks[1]).sum(axis=1), scale, out=np.full(RESAMPLES, np.nan), where=scale > 0)
    value = float(np.asarray(stats.spearmanr(human_scores, metric))[0])
    return Correlation(
        spearman=estimate(value, resampled),
        kendall=float(np.asarray(stats.kendalltau(human_scores, metric))[0]),
        num_videos=count,
    )


def _distances(values: np.ndarray, totals: np.ndarray, level: str) -> np.ndarray:
    """d_ck of `krippendorff_alpha`: (values, values)."""
    if level == "nominal":
        return 1.0 - np.eye(len(values))
    if level == "interval":
        return (values[:, None] - values[None]) ** 2
    # Ordinal: number of ratings between two values, counting half of those at either end.
    mid_ranks = np.cumsum(totals) - totals / 2
    return (mid_ranks[:, None] - mid_ranks[None]) ** 2
