"""Tracks and quality, with an engine that finds colored squares."""

from dataclasses import replace

import numpy as np
import pytest

from likeness.curation.people.tracker import FaceTracker, overlap
from likeness.curation.people.tracks import Tracks, TrackSettings
from likeness.curation.stages.quality import Quality, QualitySettings, measure_face
from likeness.faces.read import find_faces

SETTINGS = TrackSettings(sample_fps=8.0, enlarge_to_px=1, min_samples=3)


def test_people_who_cross_keep_their_tracks(view, engine, squares):
    frames = [[(0, 4 * k, 36), (1, 72 - 4 * k, 36)] for k in range(19)]
    frames[9] = [(1, 36, 36)]  # One is hidden behind the other.
    source = view(squares(frames))
    red, green = Tracks(SETTINGS, engine)([source.whole()], source)
    assert red.arrays["frames"].tolist() == [k for k in range(19) if k != 9]
    assert green.arrays["frames"].tolist() == list(range(19))
    assert (red.arrays["embeddings"].argmax(axis=1) == 0).all()
    assert (green.arrays["embeddings"].argmax(axis=1) == 1).all()
    assert red.facts["num_others"] == green.facts["num_others"] == 1
    assert red.facts["coverage"] == pytest.approx(18 / 19)
    assert red.id != green.id
    assert (red.first_frame, red.num_frames) == (0, 19)


def test_tracks_end_after_a_longer_gap_and_other_people_begin_new_ones(view, engine, squares):
    frames = [[(0, 36, 36)]] * 6 + [[]] * 12 + [[(0, 36, 36)]] * 6 + [[(2, 36, 36)]] * 6
    source = view(squares(frames))
    found = Tracks(SETTINGS, engine)([source.whole()], source)
    assert [(track.first_frame, track.num_frames) for track in found] == [(0, 6), (18, 6), (24, 6)]
    assert [track.facts["num_others"] for track in found] == [0, 0, 0]


def test_a_wider_step_samples_frames_and_reaches_the_ends_of_the_shot(view, engine, squares):
    source = view(squares([[(0, 36, 36)]] * 22), fps=24.0)
    (track,) = Tracks(TrackSettings(sample_fps=8.0, enlarge_to_px=1), engine)([source.whole().split(1, 21)], source)
    assert track.arrays["frames"].tolist() == [1, 4, 7, 10, 13, 16, 19]
    assert (track.first_frame, track.num_frames) == (1, 21)


def test_boxes_are_in_pixels_of_the_source(view, engine, squares):
    frames = squares([[(0, 36, 12)]] * 4).repeat(2, axis=1).repeat(2, axis=2)
    source = view(frames)
    settings = TrackSettings(sample_fps=8.0, enlarge_to_px=1, max_side_px=96)
    (track,) = Tracks(settings, engine)([source.whole()], source)
    assert np.allclose(track.arrays["boxes"][0], [72, 24, 120, 72], atol=2)
    assert np.allclose(track.arrays["landmarks"][0, 0], [72 + 0.3 * 48, 24 + 0.35 * 48], atol=2)


def test_each_face_of_a_picture_is_a_candidate_and_nothing_is_a_drop(view, engine, squares):
    picture = view(squares([[(0, 4, 36), (1, 60, 36)]]), kind="image")
    found = Tracks(SETTINGS, engine)([picture.whole()], picture)
    assert [track.arrays["embeddings"].argmax() for track in found] == [0, 1]
    assert all(track.dropped is None for track in found)
    empty = view(squares([[]] * 3))
    (dropped,) = Tracks(SETTINGS, engine)([empty.whole()], empty)
    assert (dropped.dropped.stage, dropped.dropped.reason) == ("tracks", "no face")


def test_short_tracks_are_dropped(view, engine, squares):
    source = view(squares([[(0, 36, 36)], [(0, 36, 36)], [], [], []]))
    (track,) = Tracks(SETTINGS, engine)([source.whole()], source)
    assert (track.dropped.reason, track.dropped.value) == ("track too short", 2)


def test_a_face_far_away_must_be_the_same_person(engine, squares):
    tracker = FaceTracker(max_gap=3)
    for marks in ([(0, 0, 0)], [(0, 70, 70)], [(1, 0, 0)]):
        tracker.add(find_faces(squares([marks])[0], engine))
    assert [track.samples for track in tracker.finish()] == [[0, 1], [2]]


def test_overlap_is_intersection_over_union():
    assert overlap((0, 0, 2, 2), (1, 0, 3, 2)) == pytest.approx(1 / 3)
    assert overlap((0, 0, 1, 1), (2, 2, 3, 3)) == 0


@pytest.fixture
def track(view):
    """A source with a textured face, and its track."""
    rng = np.random.default_rng(0)
    frames = np.full((9, 192, 192, 3), 128, np.uint8)
    frames[:, 40:140, 50:150] = rng.integers(60, 200, (100, 100, 1), dtype=np.uint8)
    source, count = view(frames), 9
    arrays = {
        "frames": np.arange(count),
        "boxes": np.tile(np.array([50, 40, 150, 140], np.float32), (count, 1)),
        "poses": np.zeros((count, 3), np.float32),
        "scores": np.full(count, 0.95, np.float32),
    }
    facts = {"engine": "research/buffalo_l", "coverage": 1.0, "num_others": 0}
    return source, replace(source.whole(**facts), arrays=arrays)


def test_a_good_face_is_kept_with_its_figures(track):
    source, candidate = track
    (kept,) = Quality(QualitySettings())([candidate], source)
    assert kept.dropped is None
    assert kept.facts["face_px"] == 100
    assert kept.facts["face_share"] == pytest.approx(100 * 100 / 192**2)


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        ({"scores": 0.85}, "face uncertain"),
        ({"poses": [80, 0, 0]}, "turned sideways"),
        ({"poses": [0, -50, 0]}, "turned up or down"),
        ({"poses": [0, 0, 50]}, "tilted"),
        ({"boxes": [50, 40, 100, 140]}, "face too small"),
    ],
)
def test_each_limit_has_its_reason(track, change, reason):
    source, candidate = track
    arrays = {name: np.broadcast_to(np.float32(value), candidate.arrays[name].shape) for name, value in change.items()}
    (judged,) = Quality(QualitySettings())([replace(candidate, arrays={**candidate.arrays, **arrays})], source)
    assert judged.dropped is not None
    assert judged.dropped.reason == reason


@pytest.mark.parametrize(
    ("edit", "reason"),
    [
        (lambda frames: np.full_like(frames, 120), "blurred"),
        (lambda frames: frames // 12, "too dark"),
        (lambda frames: 255 - (255 - frames) // 6, "too bright"),
        (lambda frames: np.where(frames > 120, 255, 0).astype(np.uint8), "clipped"),
    ],
)
def test_pixels_of_the_face_are_judged(track, view, edit, reason):
    source, candidate = track
    (judged,) = Quality(QualitySettings(min_sharpness=5.0))([candidate], view(edit(source.pixels)))
    assert judged.dropped is not None
    assert judged.dropped.reason == reason


def test_facts_are_judged_and_none_switches_a_limit_off(track):
    source, candidate = track
    crowd = replace(candidate, facts={**candidate.facts, "num_others": 2, "coverage": 0.5})
    strict = QualitySettings(max_others=0, min_coverage=None)
    assert Quality(strict)([crowd], source)[0].dropped.reason == "other people"
    assert Quality(QualitySettings())([crowd], source)[0].dropped.reason == "face often lost"
    assert Quality(QualitySettings(min_coverage=None))([crowd], source)[0].dropped is None


def test_dlibs_score_is_no_probability(track):
    source, candidate = track
    arrays = {**candidate.arrays, "scores": np.full(9, 0.3, np.float32)}
    dlib = replace(candidate, arrays=arrays, facts={**candidate.facts, "engine": "dlib"})
    assert Quality(QualitySettings())([dlib], source)[0].dropped is None


def test_sharpness_falls_with_blur_and_not_with_size():
    rng = np.random.default_rng(1)
    sharp = rng.integers(0, 255, (28, 28, 1), dtype=np.uint8).repeat(4, 0).repeat(4, 1).repeat(3, 2)
    import cv2

    blurred = cv2.GaussianBlur(sharp, (0, 0), 4)
    larger = sharp.repeat(2, 0).repeat(2, 1)
    assert measure_face(blurred)[0] < measure_face(sharp)[0] / 4
    assert measure_face(larger)[0] == pytest.approx(measure_face(sharp)[0], rel=0.05)


def test_settings_name_the_engine_that_the_environment_chose(monkeypatch):
    monkeypatch.setenv("LIKENESS_ENGINE", "open/sface")
    assert Tracks(TrackSettings()).settings.engine == "open/sface"
    assert Tracks(TrackSettings(engine="dlib")).settings.engine == "dlib"
