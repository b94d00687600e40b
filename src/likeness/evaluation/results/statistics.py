"""Bootstrap intervals of means and permutation tests of paired differences.

Videos of one person are not independent. With enough people, resampling and sign flips therefore keep all videos of a
person together (`groups_of`). Intervals are percentile bootstrap intervals. Paired differences are tested by a
permutation of their signs, exact for few groups. P-values are corrected by Benjamini and Hochberg (1995, J. R. Statist.
Soc. B 57, 289-300), which bounds the share of false discoveries and holds for positively dependent metrics such as
these; a family-wise bound (Holm) has no power with fewer than a dozen people.
"""

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import numpy as np
from scipy import stats

RESAMPLES = 2000
"""Bootstrap resamples of an interval."""
PERMUTATIONS = 9999
"""Sign flips of a test; with at most 13 groups all are tried, and the test is exact."""
LEVEL = 0.95
MIN_GROUPS = 5
"""With fewer people, videos are resampled instead. A metric that fewer people have gets no interval."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Estimate:
    """A number with its bootstrap interval; NaN where undefined."""

    value: float
    low: float
    high: float


def format_estimate(value: Estimate, *, sign: str = "", digits: int = 3) -> str:
    """A number with its interval, for tables; `sign="+"` shows the sign of positive numbers too."""
    if not math.isfinite(value.value):
        return "undefined"
    if not math.isfinite(value.low):
        return f"{value.value:{sign}.{digits}f}"
    return f"{value.value:{sign}.{digits}f} [{value.low:{sign}.{digits}f}, {value.high:{sign}.{digits}f}]"


def estimate(value: float, resampled: np.ndarray) -> Estimate:
    """The percentile interval of resampled values."""
    found = resampled[np.isfinite(resampled)]
    if not len(found) or not np.isfinite(value):
        return Estimate(value=value, low=float("nan"), high=float("nan"))
    low, high = np.quantile(found, [(1 - LEVEL) / 2, (1 + LEVEL) / 2])
    return Estimate(value=value, low=float(low), high=float(high))


def are_enough(labels: Iterable[str | None]) -> bool:
    """Whether to resample by label: every value has one, and there are at least `MIN_GROUPS`."""
    known = set(labels)
    return None not in known and len(known) >= MIN_GROUPS


def groups_of(labels: Sequence[str | None], *, by_label: bool) -> np.ndarray:
    """Number of the group of each value: by label, or each value on its own.

    `are_enough` decides `by_label` once for all metrics of an evaluation, also those that some people lack.

    Shapes:
        returns: (labels,) int, from 0 without gaps
    """
    if not by_label:
        return np.arange(len(labels))
    numbers = {label: number for number, label in enumerate(dict.fromkeys(labels))}
    return np.array([numbers[label] for label in labels], dtype=np.int64)


def mean_estimate(values: np.ndarray, groups: np.ndarray, *, seed: int = 0) -> Estimate:
    """Mean of values, with its interval over resampled groups. A single group has no interval.

    Shapes:
        values: (values,)
        groups: (values,) int
    """
    if not len(values):
        return Estimate(value=float("nan"), low=float("nan"), high=float("nan"))
    totals, counts = _sums(values, groups)
    mean = float(values.mean())
    if len(totals) < 2:
        return Estimate(value=mean, low=float("nan"), high=float("nan"))
    rng = np.random.default_rng(seed)
    drawn = rng.multinomial(len(totals), np.full(len(totals), 1 / len(totals)), size=RESAMPLES)
    return estimate(mean, (drawn @ totals) / (drawn @ counts))


def sign_flip_test(differences: np.ndarray, groups: np.ndarray, *, seed: int = 0) -> float:
    """Two-sided p-value of a mean paired difference: how often random signs give one as far from 0.

    Signs of a group flip together. NaN without any difference.

    Shapes:
        differences: (pairs,)
        groups: (pairs,) int
    """
    if not len(differences):
        return float("nan")
    totals, _ = _sums(differences, groups)
    if not totals.any():
        return 1.0
    if len(totals) == 1:
        return 1.0  # One sign can be flipped one way: every outcome is as far from 0.
    result = stats.permutation_test(
        (totals,),
        lambda sample, axis: sample.sum(axis=axis),
        permutation_type="samples",
        vectorized=True,
        n_resamples=PERMUTATIONS,
        rng=np.random.default_rng(seed),
    )
    return float(result.pvalue)


def correct(p_values: Sequence[float]) -> list[float]:
    """Correct p-values of several tests (Benjamini and Hochberg). NaN stays NaN and is not a test."""
    corrected = np.array(p_values, dtype=np.float64)
    is_test = np.isfinite(corrected)
    if is_test.any():
        corrected[is_test] = stats.false_discovery_control(corrected[is_test], method="bh")
    return corrected.tolist()


def _sums(values: np.ndarray, groups: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Total and count of each group that occurs."""
    _, rows = np.unique(groups, return_inverse=True)
    return np.bincount(rows, weights=values), np.bincount(rows).astype(float)
