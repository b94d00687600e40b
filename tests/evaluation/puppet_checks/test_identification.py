import numpy as np
import pytest

from likeness.evaluation.puppet_checks.rank1 import identify


def test_frames_at_their_own_reference_are_all_found():
    gallery = np.eye(4)
    result = identify(gallery[[0, 0, 3]], np.array([0, 0, 3]), gallery)
    assert (result.face_rate, result.rank1_rate, result.right_distance) == (1, 1, 0)
    assert result.other_distance == pytest.approx(2**0.5)
    assert result.distance_ratio == 0


def test_frames_at_another_reference_are_none():
    gallery = np.eye(4)
    result = identify(gallery[[1, 2]], np.array([0, 3]), gallery)
    assert result.rank1_rate == 0
    assert result.distance_ratio == pytest.approx(1.5)  # sqrt(2) over the mean of 0, sqrt(2) and sqrt(2)


def test_a_frame_without_a_face_finds_nobody():
    embeddings = np.array([[1.0, 0.0], [np.nan, np.nan]])
    result = identify(embeddings, np.array([0, 1]), np.eye(2))
    assert (result.face_rate, result.rank1_rate, result.num_frames) == (0.5, 0.5, 2)


def test_distances_and_the_second_rate_are_over_the_frames_with_a_face():
    embeddings = np.array([[1.0, 0.0], [np.nan, np.nan]])
    result = identify(embeddings, np.array([0, 1]), np.eye(2))
    assert (result.found_rank1_rate, result.right_distance) == (1, 0)


def test_no_face_at_all_is_no_error():
    result = identify(np.full((3, 2), np.nan), np.zeros(3, dtype=int), np.eye(2))
    assert result.face_rate == 0
    assert result.rank1_rate == 0
    assert np.isnan(result.found_rank1_rate)
    assert np.isnan(result.distance_ratio)


def test_random_frames_are_at_chance():
    random = np.random.default_rng(0)
    result = identify(random.normal(size=(4000, 16)), random.integers(40, size=4000), random.normal(size=(40, 16)))
    assert result.rank1_rate == pytest.approx(1 / 40, abs=0.01)
    assert result.distance_ratio == pytest.approx(1, abs=0.02)
