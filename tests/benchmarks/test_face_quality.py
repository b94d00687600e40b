import sys
from pathlib import Path

import numpy as np
import pytest

from likeness.puppets import sample_image

ROOT = Path(__file__).parents[2]


@pytest.fixture
def face_quality(monkeypatch):
    monkeypatch.syspath_prepend(str(ROOT / "benchmarks"))
    import face_quality

    yield face_quality
    sys.modules.pop("face_quality")


@pytest.fixture(scope="module")
def pictures():
    return [sample_image(seed, size_px=128, max_yaw_deg=3).frames[0] for seed in range(2)]


def broken(picture):
    """Half of the face is drawn a third of a head lower."""
    picture = picture.copy()
    half = picture.shape[1] // 2
    picture[:, half:] = np.roll(picture[:, half:], picture.shape[0] // 8, axis=0)
    return picture


def test_whole_faces_are_as_good_as_themselves_and_broken_ones_are_not(face_quality, pictures):
    whole = [face_quality.look(picture) for picture in pictures]
    same = face_quality.compare(whole, whole)
    assert same.face_rate > 0.7
    assert (same.score_share, same.mirror_ratio, same.eye_agreement_share) == (1, 1, 1)
    assert same.face_distance == pytest.approx(0, abs=1e-6)
    worse = face_quality.compare([face_quality.look(broken(picture)) for picture in pictures], whole)
    assert worse.score_share < 0.8
    assert np.isnan(worse.mirror_ratio) or worse.mirror_ratio > 1.1


def test_eyes_agree_that_mirror_each_other(face_quality):
    rng = np.random.default_rng(0)
    half = np.repeat(rng.uniform(60, 200, (96, 48, 1)), 3, axis=2)
    assert face_quality.eye_agreement(np.concatenate([half, half[:, ::-1]], axis=1)) > 0.98
    darker = np.concatenate([half, 0.5 * half[:, ::-1]], axis=1)  # Light from one side is no difference.
    assert face_quality.eye_agreement(darker) > 0.98
    assert face_quality.eye_agreement(rng.uniform(0, 255, (96, 96, 3))) < 0.3


def test_a_frame_without_a_face_scores_nothing(face_quality):
    nothing = face_quality.look(np.full((64, 64, 3), 128, np.uint8))
    assert nothing.score == 0
    assert np.isnan(nothing.embedding).all()
