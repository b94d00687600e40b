from itertools import combinations

import numpy as np
import pytest

from likeness.errors import ConfigError, NoFaceError
from likeness.faces import head_pose
from likeness.faces.views import choose_views, read_views
from likeness.puppets import sample_clip, sample_person
from likeness.records import Pose


def poses_of(angles) -> list[Pose]:
    return [Pose(yaw_deg=yaw, pitch_deg=pitch, roll_deg=roll) for yaw, pitch, roll in angles]


def test_choice_matches_farthest_points_written_as_loops():
    angles = np.random.default_rng(0).normal(size=(30, 3)) * (25, 12, 8)
    weighted = angles * (1, 1, 0.5)
    expected = [min(range(30), key=lambda number: np.linalg.norm(weighted[number]))]
    while len(expected) < 6:
        rest = [number for number in range(30) if number not in expected]
        expected.append(
            max(
                rest,
                key=lambda number: min(np.linalg.norm(weighted[number] - weighted[other]) for other in expected),
            )
        )
    assert choose_views(poses_of(angles)) == expected


def test_choice_ends_early_where_nothing_differs_and_prefers_the_sharper_of_equals():
    poses = poses_of([(0, 0, 0), (1, 0, 0), (30, 0, 0), (30, 0, 0), (0, 0, 6)])
    assert choose_views(poses, min_difference_deg=4.0) == [0, 2]
    assert choose_views(poses, min_difference_deg=4.0, sharpness=[1, 1, 1, 2, 1]) == [0, 3]
    assert choose_views(poses, min_difference_deg=2.0)[:3] == [0, 2, 4]
    assert choose_views([]) == []
    with pytest.raises(ConfigError, match="at least 1"):
        choose_views(poses, 0)


def test_views_of_a_puppet_differ_more_than_most_choices_by_its_true_pose():
    clip = sample_clip(5, action="turn_left", num_frames=13, size_px=64)
    chosen = choose_views([head_pose(points) for points in clip.landmarks], 4)
    assert len(set(chosen)) == 4

    def least_difference(numbers):
        true = clip.pose_deg * (1, 1, 0.5)
        return min(np.linalg.norm(true[a] - true[b]) for a, b in combinations(numbers, 2))

    every = [least_difference(numbers) for numbers in combinations(range(13), 4)]
    assert least_difference(chosen) >= np.quantile(every, 0.9)


def test_a_video_gives_views_of_the_person_seen_most():
    person, passer_by = sample_person(3), sample_person(8)
    clip = sample_clip(5, person=person, action="turn_left", num_frames=7, size_px=128)
    other = sample_clip(6, person=passer_by, action="smile", num_frames=1, size_px=128)
    frames = np.concatenate([clip.frames, other.frames])
    views = read_views(frames, 3, enlarge_to_px=384)
    assert 2 <= len(views) <= 3
    assert not any(view.source.startswith("frame 7 ") for view in views)
    yaws = [view.pose.yaw_deg for view in views]
    assert abs(yaws[0]) == min(map(abs, yaws))
    assert np.ptp(yaws) > 8


def test_a_video_without_a_face_is_an_error_that_says_so():
    with pytest.raises(NoFaceError, match="No face found in video"):
        read_views(np.full((2, 64, 64, 3), 128, np.uint8))
