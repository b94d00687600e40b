import numpy as np
import pytest

from likeness.evaluation.puppet_checks.color import cheek_color, clothing_color, skin_difference, to_encoded, to_linear
from likeness.puppets import sample_image, sample_person


def test_linear_light_and_back():
    values = np.arange(256)
    assert np.abs(to_encoded(to_linear(values)) * 255 - values).max() < 1e-9


def test_exposure_alone_makes_no_difference():
    skin = np.array([0.40, 0.22, 0.14])
    assert skin_difference(skin, 0.5 * skin) == pytest.approx(0, abs=1e-6)


def test_hue_makes_a_difference():
    assert skin_difference(np.array([0.40, 0.22, 0.14]), np.array([0.14, 0.22, 0.40])) > 20


def test_cheeks_are_read_beside_the_nose():
    picture = np.zeros((100, 100, 3), dtype=np.uint8)
    picture[45:65] = (200, 150, 120)
    landmarks = np.array([[30, 40], [42, 40], [58, 40], [70, 40], [50, 56]], dtype=np.float32)
    assert to_encoded(cheek_color(picture, landmarks)) * 255 == pytest.approx([200, 150, 120])


def test_two_pictures_of_a_puppet_have_nearer_skin_than_two_puppets():
    colors = []
    for seed in range(4):
        person = sample_person(seed)
        takes = [sample_image(10 * seed + take, person=person, size_px=128) for take in range(2)]
        colors.append([cheek_color(take.frames[0], take.landmarks[0]) for take in takes])
    same = np.median([skin_difference(*pair) for pair in colors])
    other = np.median([skin_difference(colors[a][0], colors[b][1]) for a in range(4) for b in range(4) if a != b])
    assert same < other
    assert same < 12


def test_clothing_is_read_at_the_bottom():
    frames = np.zeros((2, 64, 64, 3), dtype=np.uint8)
    frames[:, 56:] = (200, 20, 20)
    lightness, green_red, _ = clothing_color(frames)
    assert 35 < lightness < 50
    assert green_red > 50
