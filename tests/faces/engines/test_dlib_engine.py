import dlib
import numpy as np
import pytest

from likeness import faces
from likeness.faces.engines.dlib_engine import _CHIP_POINTS, DlibEngine, load_detector


def dlib_shape(engine, picture, detection):
    left, top, right, bottom = (int(edge) for edge in detection.box)
    return engine._predictor(picture, dlib.rectangle(left, top, right - 1, bottom - 1))


def best_of(engine, picture):
    return max(engine.detect(picture), key=faces.prominence)


def test_dlib_has_the_members_of_an_engine():
    assert isinstance(DlibEngine(), faces.FaceEngine)


def test_landmarks_stand_in_picture_order(photograph):
    x = best_of(DlibEngine(), photograph).landmarks[:, 0]
    assert x[0] < x[1] < x[4] < x[2] < x[3]


def test_aligned_chip_matches_dlib(photograph):
    engine = DlibEngine()
    detection = best_of(engine, photograph)
    expected = dlib.get_face_chip(photograph, dlib_shape(engine, photograph, detection), 150, 0.25)
    ours = faces.warp(photograph, faces.fit_similarity(detection.landmarks, _CHIP_POINTS), 150, fill=0)
    assert np.abs(expected.astype(float) - ours).mean() < 1.5


def test_embedding_from_landmarks_matches_dlib_from_detection(photograph):
    engine = DlibEngine()
    detection = best_of(engine, photograph)
    shape = dlib_shape(engine, photograph, detection)
    expected = np.asarray(engine._recognizer.compute_face_descriptor(photograph, shape))
    ours = engine.embed(photograph, detection.landmarks)
    assert ours.shape == (engine.embedding_width,)
    assert np.linalg.norm(expected - ours) < 0.05, "two photographs of one person differ by 0.41 on average"


def test_a_copy_of_the_detector_sees_what_dlibs_own_sees(photograph, tmp_path):
    photograph = np.ascontiguousarray(photograph[40:200, 144:304])
    copy = tmp_path / "cache" / "detector.svm"
    own, copied = load_detector(copy), load_detector(copy)
    assert [path.name for path in copy.parent.iterdir()] == ["detector.svm"]
    found = own.run(photograph, 0, -0.3)
    assert found[0]
    assert copied.run(photograph, 0, -0.3) == found
    copy.write_bytes(copy.read_bytes()[:9000])
    assert load_detector(copy).run(photograph, 0, -0.3) == found
    (tmp_path / "file").touch()
    assert load_detector(tmp_path / "file" / "detector.svm").run(photograph, 0, -0.3) == found


@pytest.mark.parametrize(
    ("score", "verified", "width_px", "expected", "searches"),
    [
        (0.7, None, 10, 0.7, 0),  # HOG is sure.
        (0.5, 0.2, 10, 0.5, 1),  # The crop agrees.
        (0.5, 0.1, 10, 0.1, 1),  # A false box.
        (0.1, None, 40, 0.4, 0),  # A close-up.
        (-0.1, 0.8, 40, 0.45, 1),
        (0.2, 0.8, 10, 0.45, 1),  # A turned face, which the crop shows upright.
        (0.2, 0.3, 10, 0.2, 1),
    ],
)
def test_where_hog_is_not_sure_the_upright_crop_is_searched_once(
    monkeypatch, score, verified, width_px, expected, searches
):
    engine, calls = DlibEngine(), []
    monkeypatch.setattr(engine, "_verify", lambda *_: calls.append(1) or verified)
    box = dlib.rectangle(0, 0, width_px - 1, width_px - 1)
    found = engine._calibrate(np.zeros((100, 100, 3), np.uint8), box, np.zeros((5, 2)), score)
    assert found == pytest.approx(expected)
    assert len(calls) == searches
