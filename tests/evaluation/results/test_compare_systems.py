from itertools import product

import numpy as np
import pytest
from made_results import make_result, record
from numpy.testing import assert_allclose

from likeness.evaluation.results.compare_systems import compare_systems
from likeness.evaluation.results.statistics import are_enough, correct, groups_of, mean_estimate, sign_flip_test


def naive_p(differences):
    observed = abs(sum(differences))
    outcomes = [
        abs(sum(s * d for s, d in zip(signs, differences, strict=True)))
        for signs in product((1, -1), repeat=len(differences))
    ]
    return np.mean([outcome >= observed - 1e-12 for outcome in outcomes])


def test_the_test_tries_every_sign():
    differences = np.random.default_rng(0).normal(0.4, 1, 9)
    assert_allclose(sign_flip_test(differences, np.arange(9)), naive_p(differences), atol=1e-12)


def test_the_test_by_hand():
    # Of 16 signs only + + + + and - - - - are as far out.
    assert sign_flip_test(np.array([1.0, 2.0, 3.0, 4.0]), np.arange(4)) == 2 / 16
    assert sign_flip_test(np.array([1.0, -1.0]), np.arange(2)) == 1
    assert sign_flip_test(np.zeros(5), np.arange(5)) == 1
    assert np.isnan(sign_flip_test(np.array([]), np.array([], dtype=int)))


def test_videos_of_one_person_flip_together():
    differences, people = np.array([1.0, 1.0, 1.0, 2.0, 2.0, 3.0]), np.array([0, 0, 0, 1, 1, 2])
    assert sign_flip_test(differences, people) == naive_p([3.0, 4.0, 3.0])
    assert sign_flip_test(differences, np.arange(6)) < sign_flip_test(differences, people)


def test_false_alarms_are_as_rare_as_promised():
    random = np.random.default_rng(3)
    alarms = [sign_flip_test(random.normal(0, 1, 8), np.arange(8)) <= 0.05 for _ in range(150)]
    assert 0 < np.mean(alarms) < 0.1


def test_correction_by_hand():
    # Sorted .01 .02 .03 .5 of four tests: .01*4/1, .02*4/2, .03*4/3, .5*4/4, each at most the next.
    assert_allclose(correct([0.5, 0.01, 0.03, 0.02]), [0.5, 0.04, 0.04, 0.04])
    assert_allclose(correct([0.02, float("nan"), 0.01]), [0.02, np.nan, 0.02])
    assert correct([]) == []


def test_intervals_hold_the_mean_as_often_as_promised():
    random = np.random.default_rng(1)
    held = 0
    for seed in range(60):
        found = mean_estimate(random.normal(5, 1, 40), np.arange(40), seed=seed)
        held += found.low <= 5 <= found.high
    assert held / 60 >= 0.85


def test_dependent_videos_widen_the_interval():
    people = np.repeat(np.arange(8), 5)
    values = np.random.default_rng(2).normal(0, 1, 8)[people]
    wide, narrow = mean_estimate(values, people), mean_estimate(values, np.arange(40))
    assert wide.high - wide.low > 1.7 * (narrow.high - narrow.low)
    assert wide.value == narrow.value


def test_few_or_unknown_people_are_no_groups():
    assert not are_enough(["a", "a", "b", "b"])
    assert not are_enough([None, *"abcde"])
    assert are_enough([*"abcde", "a"])
    assert groups_of([*"abcde", "a"], by_label=True).tolist() == [0, 1, 2, 3, 4, 0]
    assert groups_of(["a", "a", "b"], by_label=False).tolist() == [0, 1, 2]


def test_who_lacks_a_figure_does_not_turn_videos_into_people():
    """Five people of four videos each; one of them has no figure, and four signs of people are too few to be sure."""
    own = {f"{person}_{take}": {"up": 1.0 + take / 10} for person in "abcde" for take in range(4)}
    other = {name: {"up": 0.0} for name in own}
    for take in range(4):
        own[f"e_{take}"]["up"] = None
    found = compare_systems(make_result({"ours": own, "theirs": other}, [record("up")]))
    (row,) = found.differences
    assert found.resampled == "people"
    assert (row.num_pairs, row.num_groups, row.p_value, row.better) == (16, 4, 2 / 16, None)
    assert np.isnan([row.difference.low, found.means["ours"]["up"].low]).all()
    assert np.isfinite(found.means["theirs"]["up"].low)


def test_one_value_and_none_have_no_interval():
    one, none = (
        mean_estimate(np.array([0.5]), np.array([0])),
        mean_estimate(np.array([]), np.array([], dtype=int)),
    )
    assert (one.value, np.isnan(one.low)) == (0.5, True)
    assert np.isnan(none.value)


@pytest.fixture
def result():
    base = {f"{letter}_park": number / 10 for number, letter in enumerate("abcdefgh")}
    metrics = [
        record("up"),
        record("down", "lower"),
        record("flat", "neither"),
        record("set", level="system"),
    ]
    scores = {
        "ours": {name: {"up": value + 0.1, "down": value, "flat": value} for name, value in base.items()},
        "theirs": {name: {"up": value, "down": value - 0.1, "flat": 1.0} for name, value in base.items()},
    }
    scores["ours"]["a_park"]["up"] = None
    scores["ours"]["i_alone"] = {"up": 9.0, "down": 9.0, "flat": 9.0}
    return make_result(scores, metrics, failed=[("theirs", "b_park")])


def test_differences_are_paired_and_say_who_is_better(result):
    rows = {row.metric: row for row in compare_systems(result).differences}
    assert rows.keys() == {"up", "down", "flat"}
    assert_allclose(rows["up"].difference.value, 0.1)  # Means differ by far more: `i_alone` and the holes.
    assert (rows["up"].num_pairs, rows["up"].num_common) == (6, 7)
    assert (rows["up"].better, rows["down"].better) == ("ours", "theirs")
    assert rows["up"].p_value == 2 / 64
    assert_allclose(rows["down"].p_value, 2 / 128)
    assert_allclose(rows["up"].p_corrected, 2 / 64)
    assert rows["flat"].better is None
    assert np.isnan(rows["flat"].p_value)


def test_means_cover_all_videos_of_a_system_and_sets_have_no_interval(result):
    comparison = compare_systems(result)
    own = comparison.means["ours"]
    assert_allclose(own["up"].value, np.mean([*np.arange(0.2, 0.85, 0.1), 9.0]))
    assert own["up"].low < own["up"].value < own["up"].high
    assert np.isnan(own["set"].value)
    assert comparison.resampled == "people"
    assert comparison.only_in == {"ours": ("b_park", "i_alone"), "theirs": ()}


def test_a_comparison_is_json(result):
    import json

    record = json.loads(json.dumps(compare_systems(result).to_dict(), allow_nan=False))
    assert record["means"]["ours"]["set"]["value"] is None
    assert "Benjamini" in record["correction"]
    assert len(record["differences"]) == 3


def test_one_system_is_compared_with_nobody():
    alone = make_result({"ours": {"a": {"up": 1.0}}}, [record("up")])
    comparison = compare_systems(alone)
    assert comparison.differences == ()
    assert comparison.only_in == {}
    assert comparison.resampled == "videos"
