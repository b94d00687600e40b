"""Sliders move heads, and measured proportions follow."""

import numpy as np
import pytest
from pydantic import ValidationError

from likeness.errors import ConfigError
from likeness.identity.face_shape.proportions import face_width, is_face, measure
from likeness.identity.face_shape.puppet import PuppetShape
from likeness.identity.face_shape.sliders import (
    SHAPE_NUMBERS,
    EditedShapeSource,
    FaceShape,
    derive_directions,
    load_directions,
)
from likeness.puppets import IDENTITY_NUMBERS, PuppetPerson, sample_person
from likeness.puppets.people.shape import build_head

STEPS = (-3.0, -1.5, 0.0, 1.5, 3.0)


def changed(person: PuppetPerson, number: str, deviations: float) -> np.ndarray:
    numbers = person.numbers.copy()
    numbers[IDENTITY_NUMBERS.index(number)] += deviations
    return build_head(PuppetPerson(person.group, numbers)).vertices


@pytest.fixture(scope="module")
def heads():
    return [build_head(sample_person(seed)).vertices for seed in (901, 902)]


@pytest.mark.parametrize("slider", SHAPE_NUMBERS)
def test_the_measured_proportion_follows_its_slider(heads, slider):
    for head in heads:
        measured = [measure(FaceShape(**{slider: step}).move(head))[SHAPE_NUMBERS[slider]] for step in STEPS]
        assert (np.diff(measured) > 0).all(), measured


@pytest.mark.parametrize("number", SHAPE_NUMBERS.values())
def test_a_proportion_follows_the_puppets_own_number(number):
    measured = [measure(changed(sample_person(903), number, step))[number] for step in (-1.5, 0.0, 1.5)]
    assert (np.diff(measured) > 0).all(), measured


def test_directions_that_ship_are_those_of_the_puppets():
    made, shipped = derive_directions(4), load_directions()
    assert set(made) == set(shipped)
    for name, direction in made.items():
        cosine = (direction * shipped[name]).sum() / np.linalg.norm(direction) / np.linalg.norm(shipped[name])
        assert cosine > 0.8, name


def test_sliders_add_up_and_zero_changes_nothing(heads):
    head = heads[0]
    assert np.array_equal(FaceShape().move(head), head)
    assert FaceShape().is_neutral
    assert not FaceShape(jaw=1).is_neutral
    both = FaceShape(jaw=1, nose=-2).move(head)
    assert np.allclose(both, FaceShape(nose=-2).move(FaceShape(jaw=1).move(head)), atol=1e-6)


def test_more_than_three_deviations_are_refused():
    with pytest.raises(ValidationError):
        FaceShape(jaw=3.5)


def test_a_source_is_moved_and_another_topology_refused(heads):
    source = PuppetShape(901)
    assert np.array_equal(EditedShapeSource(source, FaceShape(chin=2))([]), FaceShape(chin=2).move(heads[0]))
    source.topology = "flame"
    with pytest.raises(ConfigError, match="puppets' topology"):
        EditedShapeSource(source, FaceShape(chin=2))
    with pytest.raises(ConfigError, match=r"\(5, 3\)"):
        measure(np.zeros((5, 3)))


def test_widths_are_those_of_the_mesh(heads):
    head = heads[0]
    assert 1.0 < face_width(head) < 2.0
    assert face_width(2 * head) == pytest.approx(2 * face_width(head))
    wide = head * (1.3, 1, 1)
    assert measure(wide)["nose_length"] == pytest.approx(measure(head)["nose_length"] / 1.3)
    assert 1000 < is_face().sum() < 2000
