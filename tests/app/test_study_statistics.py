from itertools import product

import numpy as np
import pytest
from numpy.testing import assert_allclose

from likeness.app.study.statistics import (
    bootstrap_weights,
    krippendorff_alpha,
    mean_estimate,
    rank_correlation,
    weighted_means,
)

NAN = float("nan")
# Four observers, twelve units, with holes: the worked example of Krippendorff (2011), section D.
PUBLISHED = np.array(
    [
        [1, 2, 3, 3, 2, 1, 4, 1, 2, NAN, NAN, NAN],
        [1, 2, 3, 3, 2, 2, 4, 1, 2, 5, NAN, 3],
        [NAN, 3, 3, 3, 2, 3, 4, 2, 2, 5, 1, NAN],
        [1, 2, 3, 3, 2, 4, 4, 1, 2, 5, 1, NAN],
    ]
)


@pytest.mark.parametrize(("level", "alpha"), [("nominal", 0.743), ("ordinal", 0.815), ("interval", 0.849)])
def test_alpha_matches_the_published_example(level, alpha):
    assert_allclose(krippendorff_alpha(PUBLISHED, level), alpha, atol=5e-4)


def test_alpha_of_two_raters_by_hand():
    # Pairs (1, 1), (2, 3): observed sum of squares 2 * 1, over 4 values; expected over all 12 ordered pairs of
    # 1, 1, 2, 3: twice (0 + 1 + 4 + 1 + 4 + 1) = 22. alpha = 1 - (2 / 4) / (22 / 12).
    assert_allclose(krippendorff_alpha(np.array([[1.0, 2.0], [1.0, 3.0]])), 1 - (2 / 4) / (22 / 12))


def naive_alpha(table):
    units = [unit[np.isfinite(unit)] for unit in table.T]
    units = [unit for unit in units if len(unit) > 1]
    values = np.concatenate(units)
    observed = sum(((a - b) ** 2) / (len(unit) - 1) for unit in units for a, b in product(unit, unit)) / len(values)
    expected = sum((a - b) ** 2 for a, b in product(values, values)) / (len(values) * (len(values) - 1))
    return 1 - observed / expected


def test_alpha_matches_its_definition_written_as_loops():
    random = np.random.default_rng(1)
    table = random.integers(1, 11, (6, 9)).astype(float)
    table[random.random(table.shape) < 0.4] = NAN
    assert_allclose(krippendorff_alpha(table), naive_alpha(table), rtol=1e-12)


def test_alpha_of_full_agreement_of_chance_and_of_nothing():
    same = np.tile(np.arange(1.0, 6.0), (3, 1))
    assert krippendorff_alpha(same) == 1.0
    assert abs(krippendorff_alpha(np.random.default_rng(0).integers(1, 11, (40, 200)).astype(float))) < 0.02
    assert np.isnan(krippendorff_alpha(np.full((3, 4), 7.0)))
    assert np.isnan(krippendorff_alpha(np.array([[1.0, NAN], [NAN, 2.0]])))


def test_resampled_means_match_repeated_rows_and_columns():
    random = np.random.default_rng(2)
    table = random.normal(size=(4, 5))
    table[0, 1] = table[3, 3] = NAN
    raters, videos = bootstrap_weights(4, 5, count=20)
    expected = [
        np.nanmean(np.repeat(np.repeat(table, r.astype(int), axis=0), v.astype(int), axis=1))
        for r, v in zip(raters, videos, strict=True)
    ]
    assert_allclose(weighted_means(table, raters, videos), expected)


def test_intervals_cover_the_truth_as_often_as_they_say():
    random = np.random.default_rng(3)
    hits = 0
    for trial in range(60):
        effects = random.normal(0, 1, (12, 1)), random.normal(0, 1, (1, 10))
        table = 5 + effects[0] + effects[1] + random.normal(0, 1, (12, 10))
        found = mean_estimate(table, *bootstrap_weights(12, 10, seed=trial, count=400))
        hits += found.low <= 5 <= found.high
    assert hits >= 53  # 95 % of 60 is 57; a naive interval over single ratings hits about 30.


def test_rank_correlation_by_hand():
    # Ranks 1 2 3 4 against 1 3 2 4: rho = 1 - 6 * 2 / (4 * 15) = 0.8; five of six pairs agree: tau = 4 / 6.
    found = rank_correlation(np.array([1.0, 2.0, 3.0, 4.0]), np.array([10.0, 30.0, 20.0, 40.0]))
    assert_allclose([found.spearman.value, found.kendall], [0.8, 4 / 6])
    assert found.spearman.low <= 0.8 <= found.spearman.high
    assert found.num_videos == 4


def test_rank_correlation_leaves_out_videos_without_a_figure():
    people, metric = np.arange(6.0), np.array([5.0, 4.0, NAN, 2.0, 1.0, 0.0])
    found = rank_correlation(people, metric)
    assert (found.num_videos, found.spearman.value) == (5, pytest.approx(-1.0))
    assert np.isnan(rank_correlation(people, np.full(6, 2.0)).spearman.value)
