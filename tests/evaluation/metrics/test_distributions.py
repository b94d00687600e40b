import math

import numpy as np
import pytest
from scipy.linalg import sqrtm

from likeness.evaluation.metrics.distributions import frechet_distance, inception_score, mean_squared_distance


def test_frechet_distance_of_a_set_to_itself_is_zero():
    values = np.random.default_rng(0).normal(size=(50, 6))
    assert frechet_distance(values, values) == pytest.approx(0, abs=1e-9)


def test_frechet_distance_of_shifted_sets_is_the_squared_shift():
    values = np.random.default_rng(0).normal(size=(50, 3))
    assert frechet_distance(values, values + np.array([3, 0, 4])) == pytest.approx(25)


def test_frechet_distance_in_one_dimension_by_hand():
    # Means 0 and 1, standard deviations sqrt(2) and 2 sqrt(2): (0 - 1)^2 + (sqrt(2) - 2 sqrt(2))^2 = 3.
    assert frechet_distance(np.array([[-1.0], [1.0]]), np.array([[-1.0], [3.0]])) == pytest.approx(3)


def test_frechet_distance_matches_the_formula_with_a_matrix_root():
    random = np.random.default_rng(0)
    first, second = random.normal(size=(80, 5)) @ random.normal(size=(5, 5)), random.normal(size=(60, 5))
    spread_a, spread_b = np.cov(first.T), np.cov(second.T)
    gap = first.mean(axis=0) - second.mean(axis=0)
    expected = gap @ gap + np.trace(spread_a + spread_b - 2 * np.real(sqrtm(spread_a @ spread_b)))
    assert frechet_distance(first, second) == pytest.approx(expected, rel=1e-9)


def test_frechet_distance_of_few_samples_in_many_dimensions_is_finite_and_symmetric():
    random = np.random.default_rng(0)
    first, second = random.normal(size=(4, 64)), random.normal(size=(5, 64))
    assert frechet_distance(first, second) == pytest.approx(frechet_distance(second, first))
    assert math.isnan(frechet_distance(first[:1], second))


def test_one_reference_leaves_the_squared_distance_of_sixteen_frames():
    features = np.arange(31, dtype=float)[:, None]
    features[1::2] = 1000  # Frames that are not among the sixteen.
    assert mean_squared_distance(features, np.zeros(1)) == pytest.approx(np.mean(np.arange(0, 31, 2.0) ** 2))
    features[4] = np.nan
    kept = [square for square in np.arange(0, 31, 2.0) ** 2 if square != 16]
    assert mean_squared_distance(features, np.zeros(1)) == pytest.approx(np.mean(kept))


def test_one_reference_equals_the_frechet_distance_of_doubled_rows():
    features, reference = np.random.default_rng(0).normal(size=(16, 4)), np.ones(4)
    distances = [frechet_distance(np.stack([row, row]), np.stack([reference] * 2)) for row in features]
    assert mean_squared_distance(features, reference) == pytest.approx(np.mean(distances))


def test_inception_score_by_hand():
    same = np.tile([0.7, 0.2, 0.1], (20, 1))
    assert inception_score(same) == pytest.approx(1)
    sure = np.tile(np.eye(4), (10, 1))  # Each split of four holds every class once, surely.
    assert inception_score(sure) == pytest.approx(4)
    assert math.isnan(inception_score(same[:9]))


def test_inception_score_matches_naive_loops_and_depends_on_the_order():
    values = np.random.default_rng(0).dirichlet(np.ones(5), size=33)
    scores, start = [], 0
    for length in (4, 4, 4, 3, 3, 3, 3, 3, 3, 3):
        rows = values[start : start + length]
        start += length
        marginal = [sum(row[k] for row in rows) / length for k in range(5)]
        divergences = [sum(p * math.log(p / q) for p, q in zip(row, marginal, strict=True)) for row in rows]
        scores.append(math.exp(sum(divergences) / length))
    assert inception_score(values) == pytest.approx(np.mean(scores))
    assert inception_score(values[::-1]) != pytest.approx(np.mean(scores), rel=1e-6)
