from dataclasses import replace
from functools import lru_cache

import numpy as np
import pytest

from likeness.errors import ConfigError
from likeness.evaluation.puppet_checks.actions import RULES, change, excursions, is_seen
from likeness.evaluation.puppet_checks.color import name_clothing
from likeness.evaluation.puppet_checks.face_track import FaceTrack, overlap, track_face
from likeness.faces import head_pose
from likeness.puppets import sample_clip

POSE_RULES = [action for action in RULES if action != "smile"]


@lru_cache
def true_track(action, seed):
    """The track that a perfect detector would give."""
    clip = sample_clip(seed, action=action, size_px=16)  # Landmarks alone are read, and those are exact.
    poses = [head_pose(points) for points in clip.landmarks]
    return FaceTrack(
        height_px=16,
        is_sure=np.ones(len(clip.frames), dtype=bool),
        pose_deg=np.array([(pose.yaw_deg, pose.pitch_deg, pose.roll_deg) for pose in poses]),
        size_px=np.linalg.norm(clip.landmarks[:, 3] - clip.landmarks[:, 0], axis=1)
        / np.cos(np.radians([pose.yaw_deg for pose in poses])),
        landmarks=clip.landmarks,
        heads=np.zeros((len(clip.frames), 96, 96, 3), dtype=np.uint8),
    )


@pytest.mark.parametrize("action", POSE_RULES)
def test_rule_sees_its_action_on_true_landmarks(action):
    assert sum(is_seen(action, true_track(action, seed)) for seed in range(4)) >= 3


@pytest.mark.parametrize("action", POSE_RULES)
def test_rule_does_not_see_it_in_somebody_who_only_looks(action):
    assert sum(is_seen(action, true_track("look", seed)) for seed in range(4)) <= 1


def test_left_is_not_right():
    for seed in range(4):
        assert not is_seen("turn_right", true_track("turn_left", seed))
        assert not is_seen("turn_left", true_track("turn_right", seed))


def test_unknown_action_is_refused():
    with pytest.raises(ConfigError, match="turn_left"):
        is_seen("wink", true_track("look", 0))


def test_too_few_frames_show_nothing():
    track = replace(true_track("turn_left", 0), size_px=np.array([20.0] * 3 + [np.nan] * 14))
    assert not is_seen("turn_left", track)


def test_change_is_last_less_first_and_skips_missing_frames():
    assert change(np.array([0.0, 0, 0, 0, np.nan, 9, 10, 10, 10, 10])) == 10


def test_excursions_are_split_at_turning_points():
    there_and_back = np.concatenate([np.linspace(0, 10, 6), np.linspace(9, 2, 6)])
    assert excursions(there_and_back, 3) == pytest.approx([7, -5.6])  # The median of three rounds the peak off.
    assert excursions(np.linspace(0, 10, 8), 3) == pytest.approx([10 - 2 * 10 / 7])
    assert excursions(np.zeros(8), 3) == []


def test_one_wrong_frame_is_no_motion():
    values = np.zeros(17)
    values[8] = 50
    assert excursions(values, 3) == []


def test_overlap_of_boxes():
    assert overlap((0, 0, 2, 2), (0, 0, 2, 2)) == 1
    assert overlap((0, 0, 2, 2), (1, 0, 3, 2)) == pytest.approx(1 / 3)
    assert overlap((0, 0, 1, 1), (1, 1, 2, 2)) == 0


def test_detector_follows_a_face():
    clip = sample_clip(500_003, action="come_closer", num_frames=9, size_px=64)
    track = track_face(clip.frames)
    assert track.face_rate > 0.5
    assert np.nanmedian(np.abs(track.landmarks - clip.landmarks)) < 3
    assert is_seen("come_closer", track)


def test_clothing_is_named():
    clips = [sample_clip(seed, action="look", num_frames=2) for seed in range(12)]
    assert sum(name_clothing(clip.frames) == clip.clothing for clip in clips) >= 11
