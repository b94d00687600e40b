"""References from a short video: grouping of faces by person, choice of views, refusals."""

import dataclasses

import numpy as np
import pytest

from likeness.errors import FaceError, MediaError, NoFaceError, SmallFaceError
from likeness.faces import video_faces
from likeness.faces.video_faces import find_people, read_video_faces
from likeness.media import sample_video, write_video
from likeness.records import Pose

FRAMES = np.zeros((8, 8, 8, 3), np.uint8)


@pytest.fixture
def shown(monkeypatch, face_of):
    """Make frames show whom a table says: per frame, seeds of people and how far from the left they stand."""

    def show(table, side_px=100.0):
        frames = iter(table)

        def find(frame, engine, *, source):
            del frame, engine
            faces = []
            for seed, left in next(frames):
                face = face_of(seed)
                box = (left, 0.0, left + side_px, side_px)
                faces.append(dataclasses.replace(face, box=box, source=source))
            return faces

        monkeypatch.setattr(video_faces, "find_faces", find)

    return show


def test_faces_are_sorted_into_people_from_left_to_right(shown):
    shown([[(1, 10), (2, 300)]] * 6 + [[(2, 310)], []])
    left, right = find_people(FRAMES)
    assert len(left) == 6
    assert len(right) == 7
    assert {face.box[0] for face in left} == {10}


def test_who_shows_in_few_frames_passes_by(shown):
    shown([[(1, 10)]] * 7 + [[(2, 300)]])
    (faces,) = find_people(FRAMES)
    assert len(faces) == 7
    shown([[(1, 10)]] * 6 + [[(2, 300)]] * 2)
    assert len(find_people(FRAMES)) == 1  # A person needs three frames, however short the video.


def test_frames_without_a_usable_face_are_reported(shown):
    shown([[]] * 8)
    with pytest.raises(NoFaceError, match=r"No face found in me\.mp4"):
        find_people(FRAMES, source="me.mp4")
    shown([[(1, 10)]] * 8, side_px=20)
    with pytest.raises(SmallFaceError, match="20 px wide"):
        find_people(FRAMES)
    shown([[(1, 10)]] * 2 + [[]] * 6)
    with pytest.raises(FaceError, match="a face in 2 of 8 frames"):
        find_people(FRAMES)


@pytest.fixture
def video(tmp_path):
    path = tmp_path / "me.mp4"
    write_video(path, np.zeros((30, 16, 16, 3), np.uint8), 15)
    return path


def test_two_people_are_listed_and_one_can_be_picked(shown, video):
    table = [[(1, 10), (2, 300)]] * 40
    shown(table)
    with pytest.raises(FaceError, match=r"2 people are seen in .*me\.mp4(.|\n)*--pick N"):
        read_video_faces(video)
    shown(table)
    assert {face.box[0] for face in read_video_faces(video, pick=2)} == {300}
    shown(table)
    with pytest.raises(FaceError, match="shows 2 people"):
        read_video_faces(video, pick=3)


def test_views_that_differ_most_are_chosen(monkeypatch, face_of, video):
    angles = iter(np.linspace(-20, 20, 40))

    def find(frame, engine, *, source):
        del frame, engine
        pose = Pose(yaw_deg=float(next(angles)), pitch_deg=0.0, roll_deg=0.0)
        return [dataclasses.replace(face_of(1), pose=pose, source=source)]

    monkeypatch.setattr(video_faces, "find_faces", find)
    yaws = [face.pose.yaw_deg for face in read_video_faces(video)]
    assert abs(yaws[0]) == min(map(abs, yaws))
    assert len(yaws) >= 4
    assert np.diff(sorted(yaws)).min() >= 4.0


def test_a_video_that_is_too_short_is_reported(tmp_path):
    write_video(tmp_path / "blink.mp4", np.zeros((5, 16, 16, 3), np.uint8), 10)
    with pytest.raises(MediaError, match=r"lasts 0\.5 s; at least 1 s"):
        read_video_faces(tmp_path / "blink.mp4")


def test_sampling_spreads_over_videos_of_any_length(tmp_path):
    frames = np.repeat(np.arange(0, 200, 2, dtype=np.uint8), 16 * 16 * 3).reshape(100, 16, 16, 3)
    write_video(tmp_path / "long.mp4", frames, 25)
    sampled, duration_s = sample_video(tmp_path / "long.mp4", 16)
    assert 8 <= len(sampled) <= 16
    assert duration_s == pytest.approx(4.0)
    shades = sampled.mean(axis=(1, 2, 3))
    assert np.ptp(np.diff(shades)) < 3
    assert shades[0] < 5
    assert shades[-1] > 160


@pytest.fixture(scope="module")
def filmed(real_folder):
    return sorted((real_folder / "videos").glob("*.mp4"))


@pytest.mark.real
def test_a_real_video_gives_views_of_one_person(filmed, monkeypatch):
    from likeness.faces import compare

    monkeypatch.setattr(video_faces, "NUM_FRAMES", 12)
    path = next(path for path in filmed if path.stem == "d12")
    first, *others = read_video_faces(path)
    assert len(others) >= 3
    assert all(compare(first, other).is_same for other in others)


@pytest.mark.real
@pytest.mark.slow
def test_every_real_video_gives_several_views(filmed):
    assert all(len(read_video_faces(path)) >= 2 for path in filmed)
