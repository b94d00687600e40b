import numpy as np
import pytest

from likeness.errors import ConfigError
from likeness.puppets import GROUPS, NUM_IDENTITY, sample_person


def test_a_seed_is_a_person():
    assert np.array_equal(sample_person(3).numbers, sample_person(3).numbers)
    assert not np.array_equal(sample_person(3).numbers, sample_person(4).numbers)


def test_a_person_has_at_least_45_numbers():
    assert NUM_IDENTITY >= 45
    assert sample_person(0).numbers.shape == (NUM_IDENTITY,)


def test_every_group_occurs_and_can_be_asked_for():
    assert {sample_person(seed).group for seed in range(200)} == set(GROUPS)
    assert all(sample_person(1, group).group == group for group in GROUPS)


def test_beards_grow_on_men_only():
    bearded = {person.group for person in map(sample_person, range(300)) if person.beard_style != "none"}
    assert bearded == {"man", "elderly man"}


def test_unknown_group_is_refused_with_the_known_ones():
    with pytest.raises(ConfigError, match="elderly woman"):
        sample_person(0, "robot")
