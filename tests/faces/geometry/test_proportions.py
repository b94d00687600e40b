"""Proportions in pictures follow the puppets' own shape numbers."""

import numpy as np
import pytest

from likeness.errors import FaceError
from likeness.faces import EYE_CENTERS, EYE_CORNERS
from likeness.faces.geometry.proportions import measure_landmarks, measure_mask, skin_mask
from likeness.puppets import IDENTITY_NUMBERS, PuppetPerson, sample_image, sample_person

STEPS = (-3.0, 0.0, 3.0)


def pictures(number: str):
    person = sample_person(11)
    for step in STEPS:
        numbers = person.numbers.copy()
        numbers[IDENTITY_NUMBERS.index(number)] += step
        yield sample_image(51, person=PuppetPerson(person.group, numbers), size_px=96, zoom=1.0)


@pytest.mark.parametrize("number", ["nose_length", "eye_spacing"])
def test_landmarks_give_lengths(number):
    measured = [measure_landmarks(clip.landmarks[0])[number] for clip in pictures(number)]
    assert (np.diff(measured) > 0.05).all(), measured


@pytest.mark.parametrize("number", ["jaw_width", "face_width"])
def test_skin_gives_widths(number):
    measured = [
        measure_mask(skin_mask(clip.frames[0], clip.landmarks[0]), clip.landmarks[0])[number]
        for clip in pictures(number)
    ]
    assert (np.diff(measured) > 0.01).all(), measured


def test_turn_size_and_place_of_a_picture_change_nothing():
    points = EYE_CORNERS.template * 100
    cosine, sine = np.cos(0.4), np.sin(0.4)
    matrix = 3 * np.array([[cosine, -sine, 5.0], [sine, cosine, -9.0]])
    turned = points @ matrix[:, :2].T + matrix[:, 2]
    expected = measure_landmarks(points)
    assert measure_landmarks(turned) == pytest.approx(expected)
    assert expected["nose_length"] == pytest.approx(0.16 / 0.35, rel=1e-5)
    assert expected["eye_spacing"] == pytest.approx(0.17 / 0.35, rel=1e-5)


def test_a_known_mask_is_measured_in_pixels():
    landmarks = np.array([[30, 40], [42, 40], [58, 40], [70, 40], [50, 60]], dtype=np.float32)
    mask = np.zeros((120, 100), dtype=bool)
    mask[45:60, 20:80] = True
    mask[68:80, 35:65] = True
    measured = measure_mask(mask, landmarks)
    assert measured == pytest.approx({"face_width": 60 / 20, "jaw_width": 30 / 60})
    assert np.isnan(measure_mask(np.zeros_like(mask), landmarks)["jaw_width"])


def test_landmarks_of_another_layout_are_refused():
    with pytest.raises(FaceError, match="eye centers"):
        measure_landmarks(EYE_CENTERS.template * 100)
