import re

import numpy as np
import pytest

from likeness.errors import ConfigError
from likeness.puppets import (
    ACTIONS,
    CLOTHING_COLORS,
    GROUPS,
    SETTINGS,
    sample_clip,
    sample_image,
    sample_person,
)
from likeness.puppets.rendering.maps import CHANNELS, PARTS
from likeness.puppets.scenes.captions import describe, describe_pair, vocabulary
from likeness.puppets.scenes.setting import GARMENTS


@pytest.fixture(scope="module")
def clip():
    return sample_clip(5, action="turn_right", num_frames=5, size_px=64)


def test_a_seed_is_a_clip_bit_for_bit(clip):
    again = sample_clip(5, action="turn_right", num_frames=5, size_px=64)
    assert np.array_equal(clip.frames, again.frames)
    assert clip.prompt == again.prompt


def test_truth_has_the_shapes_promised(clip):
    assert clip.frames.shape == (5, 64, 64, 3)
    assert clip.frames.dtype == np.uint8
    assert clip.landmarks.shape == (5, 5, 2)
    assert clip.pose_deg.shape == (5, 3)
    assert clip.face_mask.shape == (5, 64, 64)
    assert clip.vertices.shape == (2562, 3)


def test_turning_right_moves_the_nose_right(clip):
    eyes = clip.landmarks[:, :4, 0].mean(axis=1)
    ahead = clip.landmarks[:, 4, 0] - eyes
    assert clip.pose_deg[-1, 0] > 15
    assert ahead[-1] > ahead[0] + 1


def test_landmarks_lie_on_the_face(clip):
    columns, rows = np.round(clip.landmarks).astype(int).reshape(-1, 2).T
    frames = np.repeat(np.arange(5), 5)
    assert clip.face_mask[frames, rows, columns].all()


def test_landmark_order_is_that_of_the_picture():
    points = sample_image(2, max_yaw_deg=5).landmarks[0]
    assert (np.diff(points[:4, 0]) > 0).all()
    assert points[4, 1] > points[:4, 1].max()


def test_vertices_depend_on_the_person_alone():
    person = sample_person(8)
    first, second = (sample_clip(seed, person=person, num_frames=1).vertices for seed in (1, 2))
    assert np.array_equal(first, second)
    assert not np.array_equal(first, sample_clip(1, num_frames=1).vertices)


def test_tilting_the_head_clockwise_lowers_the_right_eye():
    clip = next(c for c in (sample_clip(s, action="tilt", num_frames=9) for s in range(9)) if c.pose_deg[-1, 2] > 8)
    left, right = clip.landmarks[-1, :2, 1].mean(), clip.landmarks[-1, 2:4, 1].mean()
    assert right > left


@pytest.mark.parametrize("action", ACTIONS)
def test_every_action_moves_something(action):
    frames = sample_clip(11, action=action, num_frames=9, size_px=32).frames.astype(int)
    assert np.abs(np.diff(frames, axis=0)).max() > 20


def test_sentences_name_class_word_then_trigger_and_the_clothing():
    for seed in range(20):
        clip = sample_clip(seed, num_frames=1, size_px=32)
        assert f"{clip.person.group} img" in clip.prompt
        assert clip.person.group in GROUPS
        assert clip.clothing in clip.prompt
        assert clip.clothing in CLOTHING_COLORS
        assert "img" not in clip.caption


def test_clothing_has_its_color():
    for seed in range(6):
        clip = sample_clip(seed, action="look", num_frames=1, size_px=64)
        seen = clip.frames[0, 60:63, 24:40].reshape(-1, 3).mean(axis=0) / 255
        wanted = np.array(CLOTHING_COLORS[clip.clothing])
        assert np.abs(seen / seen.max() - wanted / wanted.max()).max() < 0.35


def test_bad_requests_say_what_is_possible():
    with pytest.raises(ConfigError, match="turn_left"):
        sample_clip(0, action="fly")
    with pytest.raises(ConfigError, match="16 px"):
        sample_clip(0, size_px=4)


def test_the_vocabulary_has_every_word_of_a_sentence():
    known = set(re.findall(r"\w+", " ".join(vocabulary())))
    rng = np.random.default_rng(0)
    people = [sample_person(seed) for seed in range(60)]
    for number in range(600):
        pair = people[number % 60], people[(number + 1) % 60]
        action, setting = ACTIONS[number % len(ACTIONS)], SETTINGS[number % len(SETTINGS)]
        clothing = list(CLOTHING_COLORS)[number % len(CLOTHING_COLORS)]
        garment = GARMENTS[number % len(GARMENTS)]
        sentence = describe(pair[0], action, clothing, garment, setting, rng)
        sentence += " " + describe_pair(pair, (action, "nod"), (f"{clothing} {garment}", "red shirt"), setting, rng)
        assert set(re.findall(r"\w+", sentence)) - {"img", "img1", "img2"} <= known


def test_maps_show_what_is_where(clip):
    assert clip.maps.shape == (5, len(CHANNELS), 16, 16)
    maps = dict(zip(CHANNELS, clip.maps[0].astype(float) / 255, strict=True))
    coverage = sum(maps[part] for part in PARTS)
    assert coverage.max() <= 1.02
    face = clip.face_mask[0].reshape(16, 4, 16, 4).mean(axis=(1, 3))
    assert np.abs(face - maps["head"] - maps["ear"] - maps["hair"] - maps["glasses"]).mean() < 0.02
    columns = np.arange(16) * 4 + 2
    for eye, corners in (("left_eye", (0, 1)), ("right_eye", (2, 3))):
        where = (maps[eye].sum(axis=0) * columns).sum() / maps[eye].sum()
        assert abs(where - clip.landmarks[0, corners, 0].mean()) < 2
    nose = (maps["nose"].sum(axis=1) * columns).sum() / maps["nose"].sum()
    assert abs(nose - clip.landmarks[0, 4, 1]) < 2.5


def test_normals_and_places_show_the_pose(clip):
    maps = dict(zip(CHANNELS, clip.maps.astype(float).transpose(1, 0, 2, 3) / 255 * 2 - 1, strict=True))
    nose = clip.maps[:, CHANNELS.index("nose")].astype(float)
    facing = [(maps["normal_x"][i] * nose[i]).sum() / nose[i].sum() for i in (0, 4)]
    assert facing[1] - facing[0] > 0.2  # It turns right.
    assert maps["place_y"][0, 2:6].mean() > maps["place_y"][0, 10:].mean()
