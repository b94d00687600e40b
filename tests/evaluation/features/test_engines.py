"""Similarity by one engine, landmarks by another: an engine of the papers' five points, made of dlib's detections."""

import numpy as np
import pytest

from likeness.errors import ConfigError, FaceError, WeightsError
from likeness.evaluation.evaluate import EvaluationSettings, evaluate
from likeness.evaluation.features import engines as module
from likeness.evaluation.features.cache import FeatureCache
from likeness.evaluation.features.engines import check_weights, choose_engines
from likeness.evaluation.features.landmarks import landmarks_at, overlap
from likeness.evaluation.features.references import read_references
from likeness.evaluation.features.registry import FEATURES
from likeness.faces import EYE_CENTERS, DlibEngine
from likeness.faces.engines import registry as choose
from likeness.media import write_image, write_video
from likeness.puppets import sample_clip, sample_person
from likeness.records import Detection

METRICS = ["average_id_similarity", "fm_ref", "fm_inter", "fm_ref_frame", "fm_inter_frame"]


class PaperPoints(DlibEngine):
    """dlib's boxes, with the five points of RetinaFace laid into them; every embedding is the same."""

    name = "open/sface"
    layout = EYE_CENTERS
    sees = True

    def detect(self, picture):
        return [self._replace(found) for found in super().detect(picture)] if self.sees else []

    def embed(self, picture, landmarks):
        del picture, landmarks
        return np.ones(self.embedding_width, dtype=np.float32)

    def _replace(self, found):
        left, top, right, bottom = found.box
        side = np.array([right - left, bottom - top])
        points = np.array([left, top]) + np.clip(EYE_CENTERS.template, 0, 1) * side
        return Detection(box=found.box, landmarks=points.astype(np.float32), score=found.score, layout=EYE_CENTERS.name)


@pytest.fixture
def paper_points(monkeypatch):
    engine, build = PaperPoints(), choose._build
    monkeypatch.setattr(choose, "_build", lambda name: engine if name == engine.name else build(name))
    monkeypatch.setattr(module, "locate", lambda name: name)
    return engine


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    folder = tmp_path_factory.mktemp("engines")
    frames = sample_clip(0, person=sample_person(0), action="tilt", num_frames=2, size_px=96).frames
    write_image(folder / "ann.png", np.repeat(np.repeat(frames[0], 4, 0), 4, 1))
    write_video(folder / "ann.mp4", frames, 8)
    return folder


def run(folder, cache=None, **settings):
    return evaluate(
        [folder / "ann.mp4"],
        {"ann": [folder / "ann.png"]},
        metrics=METRICS,
        settings=EvaluationSettings(cache=cache, **settings),
    )


def test_similarity_stays_and_face_motion_is_the_other_engines(folder, tmp_path, paper_points):
    del paper_points
    alone, both = run(folder, tmp_path), run(folder, tmp_path, landmark_engine="open/sface")
    assert (both.settings["engine"], both.settings["landmark_engine"]) == ("dlib", "open/sface")
    assert "tip of the nose" in both.settings["landmarks"]
    (one,), (two,) = alone.videos, both.videos
    assert one.scores["average_id_similarity"] == two.scores["average_id_similarity"]
    for name in METRICS[1:]:
        assert two.scores[name] is not None
        assert two.scores[name] != one.scores[name]
    # Its points keep their places in the box, which does not turn: normalized, only box jitter is left of a tilt.
    assert two.scores["fm_ref"] < one.scores["fm_ref"]


def test_what_is_cached_of_one_pair_of_engines_is_not_taken_for_another(folder, tmp_path, paper_points):
    first = run(folder, tmp_path, landmark_engine="open/sface")
    assert run(folder, tmp_path, landmark_engine="open/sface").videos == first.videos
    assert run(folder, tmp_path).videos == run(folder).videos
    pair = choose_engines(None, paper_points.name)
    assert FEATURES["faces"].cache_key(pair) == "faces-1-dlib"
    assert FEATURES["landmarks"].cache_key(pair) == "landmarks-1-open_sface"


def test_a_reference_whose_face_the_landmark_engine_misses_is_refused(folder, paper_points, monkeypatch):
    monkeypatch.setattr(paper_points, "sees", False)
    with pytest.raises(FaceError, match="`open/sface` finds no face where `dlib` has found one"):
        read_references(
            {"ann": [folder / "ann.png"]},
            ("faces",),
            FeatureCache(None),
            engines=choose_engines("dlib", "open/sface"),
        )


def test_a_frame_takes_the_detection_that_overlaps_its_face():
    boxes = np.array([[0, 0, 10, 10], [0, 0, 10, 10], [np.nan] * 4])
    points = np.arange(3)[:, None, None] * np.ones((3, 5, 2))
    detections = {
        "frame": np.array([0, 0, 1]),
        "box": np.array([[1, 1, 11, 11], [8, 8, 18, 18], [9, 9, 19, 19]], dtype=np.float32),
        "landmarks": points,
    }
    found = landmarks_at(boxes, detections)
    assert (found[0] == 0).all()
    assert np.isnan(found[1:]).all()
    assert overlap(boxes[0], np.array([[0, 0, 10, 10], [5, 0, 15, 10], [20, 20, 30, 30]])) == pytest.approx(
        [1, 1 / 3, 0]
    )


def test_missing_weights_are_reported_for_the_engine_that_lacks_them(monkeypatch, tmp_path):
    monkeypatch.setenv("LIKENESS_HOME", str(tmp_path))
    with pytest.raises(WeightsError, match=r"face engine `open/sface` lacks weights(.|\n)*yunet(.|\n)*sface"):
        check_weights(choose_engines("dlib", "open/sface"))
    with pytest.raises(ConfigError, match="No face engine is called `retinaface`"):
        choose_engines("dlib", "retinaface")


def test_an_engine_without_weights_is_refused_before_a_video_is_opened(folder, monkeypatch, tmp_path):
    monkeypatch.setenv("LIKENESS_HOME", str(tmp_path))
    monkeypatch.setattr("likeness.evaluation.evaluate.measure", None)
    with pytest.raises(WeightsError):
        run(folder, landmark_engine="research")
