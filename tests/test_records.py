import json

import numpy as np
import pytest

from likeness.media import read_metadata, read_video
from likeness.records import Clip, Similarity


def make_similarity(distances, cosines):
    return Similarity(distances=np.array(distances, np.float32), cosines=np.array(cosines, np.float32), threshold=0.6)


def test_similarity_counts_frames_without_a_face_as_no_match():
    similarity = make_similarity([0.3, np.nan, 0.7, 0.5], [0.98, np.nan, 0.9, 0.94])
    assert similarity.face_rate == 0.75
    assert similarity.match_rate == 0.5
    assert similarity.mean == pytest.approx(0.94)
    assert similarity.mean_distance == pytest.approx(0.5)


def test_a_clip_without_any_face_is_still_json():
    similarity = make_similarity([np.nan], [np.nan])
    assert json.loads(json.dumps(similarity.to_dict(), allow_nan=False))["mean_cosine"] is None


def test_a_clip_saves_its_record_in_and_beside_the_video(tmp_path):
    frames = np.full((3, 16, 16, 3), 90, np.uint8)
    clip = Clip(frames=frames, fps=8, prompt="a man img nods", settings={"seed": 7})
    path = clip.save(tmp_path / "out" / "clip.mp4", enlarge=1)
    assert read_video(path)[0].shape == frames.shape
    assert json.loads(path.with_suffix(".json").read_text()) == read_metadata(path)
    assert read_metadata(path)["settings"] == {"seed": 7}


@pytest.mark.parametrize(
    ("distances", "score"),
    [([0.6], 0.5), ([0.0], 1.0), ([1.5], 0.0), ([0.3, np.nan], 0.375), ([np.nan], 0.0), ([], 0.0)],
)
def test_score_counts_frames_without_a_face(distances, score):
    values = np.array(distances, np.float32)
    similarity = Similarity(distances=values, cosines=values, threshold=0.6)
    assert similarity.score == pytest.approx(score, abs=1e-6)
    assert similarity.to_dict()["score"] == similarity.score
