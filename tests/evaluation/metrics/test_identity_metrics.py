import math

import numpy as np
import pytest
from made_inputs import make_inputs, make_references

from likeness.evaluation.metrics.identity import (
    consecutive_cosines,
    copy_gap,
    cosines_to,
    decay,
    face_similarity,
    fitted_drop,
    mean_all,
    mean_found,
    pair_cosines,
    rank1_rates,
)
from likeness.evaluation.metrics.registry import METRICS

NAN = [math.nan, math.nan]


def value(name, inputs):
    return METRICS[name].compute_for_video(inputs)


def naive_cosine(a, b):
    return sum(x * y for x, y in zip(a, b, strict=True)) / math.sqrt(sum(x * x for x in a) * sum(y * y for y in b))


def test_average_id_similarity_by_hand():
    # References (2, 0) and (0, 2): their mean points to 45 degrees. Frames at 0, 45 and 90 degrees.
    inputs = make_inputs([[1, 0], [3, 3], [0, 5]], make_references([[2, 0], [0, 2]]))
    assert value("average_id_similarity", inputs) == pytest.approx((1 + 2 * math.sqrt(0.5)) / 3)
    # Over the pairs: (1 + 0) / 2, (r + r) / 2, (0 + 1) / 2.
    assert value("average_id_similarity_pairs", inputs) == pytest.approx((1 + math.sqrt(0.5)) / 3)


def test_frames_without_a_face_are_skipped_in_one_figure_and_count_nothing_in_the_other():
    inputs = make_inputs([[1, 0], NAN, NAN, [1, 0]], make_references([[1, 0]]))
    assert value("average_id_similarity", inputs) == 1
    assert value("average_id_similarity_all", inputs) == 0.5
    assert value("face_rate", inputs) == 0.5
    assert value("id_distance", inputs) == 0
    assert value("match_rate", inputs) == 0.5


def test_no_face_at_all_has_no_similarity():
    inputs = make_inputs([NAN, NAN], make_references([[1, 0]]), person=0, gallery=[[1, 0], [0, 1]])
    for name in ("average_id_similarity", "id_distance", "similarity_decay", "rank1_rate_found", "copy_gap"):
        assert math.isnan(value(name, inputs)), name
    for name in ("average_id_similarity_all", "match_rate", "face_rate", "rank1_rate"):
        assert value(name, inputs) == 0, name


def test_distance_and_match_rate_by_hand():
    inputs = make_inputs([[0.5, 0], [1, 0.7], [1, 0]], make_references([[1, 0]]))
    assert value("id_distance", inputs) == pytest.approx((0.5 + 0.7 + 0) / 3)
    assert value("match_rate", inputs) == pytest.approx(2 / 3)


def test_distance_is_to_the_mean_reference():
    inputs = make_inputs([[0, 0]], make_references([[4, 0], [0, 0]]))
    assert value("id_distance", inputs) == pytest.approx(2)


def test_rank1_by_hand():
    gallery = [[0, 0], [4, 0]]
    inputs = make_inputs([[1, 0], [3, 0], NAN, [0, 0]], make_references([[0, 0]]), person=0, gallery=gallery)
    assert value("rank1_rate", inputs) == pytest.approx(2 / 4)
    assert value("rank1_rate_found", inputs) == pytest.approx(2 / 3)


def test_rank1_needs_others():
    inputs = make_inputs([[1, 0]], make_references([[1, 0]]), person=None, gallery=[[1, 0]])
    assert math.isnan(value("rank1_rate", inputs))


def test_decay_is_first_half_less_second():
    assert decay(np.array([1.0, 0.9, 0.8, 0.7])) == pytest.approx(0.95 - 0.75)
    assert decay(np.array([1.0, 0.9, 0.2, 0.8, 0.7])) == pytest.approx(0.95 - 0.75)  # The middle is in neither.
    assert decay(np.array([1.0, np.nan, np.nan, 0.7])) == pytest.approx(0.3)
    assert math.isnan(decay(np.array([1.0, 0.9, np.nan, np.nan])))
    assert math.isnan(decay(np.array([1.0])))


def test_fitted_drop_of_a_line_is_its_fall():
    assert fitted_drop(np.linspace(0.9, 0.7, 9)) == pytest.approx(0.2)
    line = np.linspace(0.9, 0.7, 9)
    line[[0, 3, 8]] = np.nan
    assert fitted_drop(line) == pytest.approx(0.2)
    assert math.isnan(fitted_drop(np.array([0.9, np.nan])))


def test_consecutive_pairs_need_a_face_in_both():
    embeddings = np.array([[1, 0], [0, 1], NAN, [1, 0], [1, 1]], dtype=float)
    assert consecutive_cosines(embeddings) == pytest.approx([0, np.nan, np.nan, math.sqrt(0.5)], nan_ok=True)
    assert value("interframe_similarity_dlib", make_inputs(embeddings)) == pytest.approx(math.sqrt(0.5) / 2)


def test_a_copy_of_one_reference_has_a_gap_and_somebody_in_between_has_none():
    references = np.array([[1.0, 0], [0, 1]])
    assert copy_gap(np.array([[1.0, 0], [2, 0]]), references) == pytest.approx(1)
    assert copy_gap(np.array([[1.0, 1]]), references) == pytest.approx(0)
    assert math.isnan(copy_gap(np.array([[1.0, 1]]), references[:1]))


def test_facesim_clips_samples_and_skips():
    assert face_similarity(np.array([0.5, -0.4]), skips_zero=False) == pytest.approx(0.5 * 31 / 32)
    assert face_similarity(np.array([0.5, -0.4]), skips_zero=True) == pytest.approx(0.5)
    assert face_similarity(np.full(5, np.nan), skips_zero=False) == 0
    # 63 frames: every second one is looked at, and only the others differ.
    cosines = np.where(np.arange(63) % 2 == 0, 0.25, 0.9)
    assert face_similarity(cosines, skips_zero=False) == pytest.approx(0.25)


def test_matches_naive_loops():
    random = np.random.default_rng(0)
    embeddings, references = random.normal(size=(9, 6)), random.normal(size=(3, 6))
    gallery = random.normal(size=(4, 6))
    embeddings[4] = np.nan
    found = [row for row in embeddings if not math.isnan(row[0])]
    mean = references.mean(axis=0)

    assert mean_found(cosines_to(embeddings, mean)) == pytest.approx(
        np.mean([naive_cosine(row, mean) for row in found])
    )
    assert mean_all(cosines_to(embeddings, mean)) == pytest.approx(sum(naive_cosine(row, mean) for row in found) / 9)
    pairs = [[naive_cosine(row, reference) for reference in references] for row in found]
    assert mean_found(pair_cosines(embeddings, references)) == pytest.approx(np.mean(pairs))
    gaps = [max(row) - (sum(row) - max(row)) / 2 for row in pairs]
    assert copy_gap(embeddings, references) == pytest.approx(np.mean(gaps))
    nearest = [min(range(4), key=lambda person, row=row: math.dist(row, gallery[person])) for row in found]
    assert rank1_rates(embeddings, gallery, 2) == pytest.approx((nearest.count(2) / 9, nearest.count(2) / 8))
