import json
import math
import re
from collections.abc import Iterable
from dataclasses import replace
from fractions import Fraction
from pathlib import Path

import av
import numpy as np
import pytest

from likeness.errors import ConfigError, FaceError, MediaError
from likeness.evaluation import evaluate as module
from likeness.evaluation.evaluate import EvaluationSettings, evaluate
from likeness.evaluation.features.base import DecodedVideo, normalize_embeddings
from likeness.evaluation.features.cache import FeatureCache, VideoInfo
from likeness.evaluation.features.registry import FEATURES, sort_by_dependency
from likeness.evaluation.inputs.video_items import VideoItem, resolve_items
from likeness.evaluation.metrics.inputs import ReferenceSet, choose_faces, first_face
from likeness.evaluation.metrics.registry import METRICS, reason_unavailable, select
from likeness.evaluation.results.records import load, summarize
from likeness.faces import find_faces
from likeness.media import write_video
from likeness.puppets import sample_clip, sample_person
from likeness.records import Face

PEOPLE = ("ann", "bob")


def face_of(frame) -> Face:
    (face,) = find_faces(frame, enlarge_to_px=384)
    return face


@pytest.fixture(scope="module")
def clips():
    """Three frames of two puppets; dlib scores each face well above its threshold."""
    return {
        name: sample_clip(seed, person=sample_person(seed), action="tilt", num_frames=3, size_px=96).frames
        for name, seed in zip(PEOPLE, (0, 4), strict=True)
    }


@pytest.fixture(scope="module")
def references(clips):
    return {name: [face_of(frames[0]), face_of(frames[2])] for name, frames in clips.items()}


@pytest.fixture(scope="module")
def videos(clips, tmp_path_factory):
    folder = tmp_path_factory.mktemp("videos")
    for name, frames in clips.items():
        write_video(folder / f"{name}_park.mp4", frames, 8)
    blank = np.full((2, 64, 64, 3), 120, dtype=np.uint8)
    write_video(folder / "bob_nobody.mp4", blank, 8)
    (folder / "ann_broken.mp4").write_bytes((folder / "ann_park.mp4").read_bytes()[:900])
    return folder


@pytest.fixture(scope="module")
def cache(tmp_path_factory):
    return tmp_path_factory.mktemp("cache")


@pytest.fixture(scope="module")
def result(videos, references, cache):
    return evaluate(sorted(videos.iterdir()), references, settings=EvaluationSettings(cache=cache))


def video_of(result, name):
    (video,) = (video for video in result.videos if video.name == name)
    return video


def test_people_are_distinguished(result):
    for name in PEOPLE:
        video = video_of(result, f"{name}_park")
        assert video.identity == name
        assert video.scores["face_rate"] == 1
        assert video.scores["average_id_similarity"] > 0.95
        assert video.scores["rank1_rate"] == 1
        assert len(video.frames["cosine"]) == video.num_frames == 3
        assert video.frames["face_flow"][-1] is None


def test_a_video_that_cannot_be_read_is_an_error_and_in_no_mean(result):
    broken = video_of(result, "ann_broken")
    assert "ann_broken.mp4" in broken.error
    assert broken.scores == {}
    (system,) = result.systems
    assert (system.num_videos, system.num_failed) == (4, 1)
    assert system.scores["face_rate"].mean == pytest.approx(2 / 3)
    assert system.scores["average_id_similarity"].num_videos == 2


def test_a_video_without_a_face_has_rates_but_no_similarity(result):
    nobody = video_of(result, "bob_nobody")
    assert nobody.error is None
    assert nobody.scores["average_id_similarity"] is None
    assert (nobody.scores["face_rate"], nobody.scores["match_rate"], nobody.scores["rank1_rate"]) == (0, 0, 0)
    assert nobody.frames["distance"] == [None, None]
    assert nobody.scores["motion_score"] == pytest.approx(0, abs=1e-3)


def test_metrics_without_weights_are_left_out_and_named(result):
    for name, reason in result.left_out.items():
        assert name not in result.metrics
        assert name not in result.systems[0].scores
        assert "likeness models pull" in reason or "no prompts" in reason
    assert set(result.left_out) | set(result.metrics) == set(METRICS)


def test_results_are_json_and_come_back(result, tmp_path):
    path = result.save(tmp_path / "deep" / "result.json")
    assert load(path).to_dict() == result.to_dict()
    assert json.loads(path.read_text())["systems"][0]["scores"]["face_rate"]["num_videos"] == 3
    path.write_text("{}")
    with pytest.raises(MediaError, match="not a result"):
        load(path)


def test_what_was_measured_is_not_measured_again(videos, references, cache, result, monkeypatch):
    def refuse(path):
        raise AssertionError(f"{path} was decoded again")

    monkeypatch.setattr(module, "read_video", refuse)
    whole = [videos / f"{name}_park.mp4" for name in PEOPLE]
    done: list[tuple[int, int]] = []
    # Another reference: its metrics are new numbers of the same features.
    fewer = {name: faces[:1] for name, faces in references.items()}
    again = evaluate(
        whole,
        fewer,
        settings=EvaluationSettings(cache=cache),
        on_progress=lambda *counts: done.append(counts),
    )
    assert done == [(1, 2), (2, 2)]
    assert again.videos[0].scores["fm_inter"] == video_of(result, "ann_park").scores["fm_inter"]
    assert (
        again.videos[0].scores["average_id_similarity"] != video_of(result, "ann_park").scores["average_id_similarity"]
    )


def test_a_killed_evaluation_goes_on_where_it_stopped(videos, references, tmp_path, monkeypatch):
    def die(*_):
        raise KeyboardInterrupt

    path, settings = videos / "ann_park.mp4", EvaluationSettings(cache=tmp_path)
    with monkeypatch.context() as patch:
        patch.setitem(FEATURES, "flow", replace(FEATURES["flow"], compute=die))
        with pytest.raises(KeyboardInterrupt):
            evaluate([path], references, settings=settings)
    monkeypatch.setitem(FEATURES, "faces", replace(FEATURES["faces"], compute=die))
    assert evaluate([path], references, settings=settings).videos[0].scores["face_flow"] > 0


def test_features_are_kept_by_content(tmp_path):
    cache = FeatureCache(tmp_path)
    info = VideoInfo(num_frames=2, fps=8.0, width_px=4, height_px=4)
    cache.write("ab12", "faces-1", info, {"frame": np.arange(3)})
    known = cache.read("ab12", "faces-1")
    assert known is not None
    assert known[0] == info
    assert known[1]["frame"].tolist() == [0, 1, 2]
    assert cache.read("ab12", "faces-2") is None
    assert cache.read("ab13", "faces-1") is None
    cache.path("ab12", "faces-1").write_bytes(b"half")
    assert cache.read("ab12", "faces-1") is None
    assert [path for path in tmp_path.rglob("*") if "draft" in path.name] == []


def test_scores_match_a_naive_loop_over_the_file(videos, references, result):
    from likeness.media import read_video

    frames, _ = read_video(videos / "bob_park.mp4")
    mean = np.mean([face.embedding for face in references["bob"]], axis=0)
    cosines = []
    for frame in frames:
        embedding = face_of(frame).embedding
        cosines.append(float(embedding @ mean / (np.linalg.norm(embedding) * np.linalg.norm(mean))))
    video = video_of(result, "bob_park")
    assert video.frames["cosine"] == pytest.approx(cosines, abs=1e-5)
    assert video.scores["average_id_similarity"] == pytest.approx(np.mean(cosines), abs=1e-5)


def test_without_references_a_video_is_held_against_its_own_first_face(videos, cache):
    result = evaluate(
        [videos / "ann_park.mp4", videos / "bob_nobody.mp4"], None, settings=EvaluationSettings(cache=cache)
    )
    ann, nobody = result.videos
    assert ann.frames["distance"][0] == pytest.approx(0, abs=1e-6)
    assert ann.scores["rank1_rate"] is None
    assert nobody.scores["average_id_similarity"] is None
    assert "reference pictures" in result.left_out["reference_similarity"]
    assert result.settings["references"] == "first face of the video"


def test_one_frame_is_enough(clips, references, tmp_path):
    write_video(tmp_path / "ann.mp4", clips["ann"][:1], 8)
    (video,) = evaluate([tmp_path / "ann.mp4"], references).videos
    assert video.num_frames == 1
    assert video.scores["average_id_similarity"] > 0.95
    assert all(video.scores[name] is None for name in ("fm_inter", "face_flow", "motion_score", "similarity_decay"))


@pytest.mark.slow
def test_processes_give_the_same_numbers(videos, references, result):
    parallel = evaluate(sorted(videos.iterdir()), references, settings=EvaluationSettings(workers=2))
    for one, two in zip(parallel.videos, result.videos, strict=True):
        assert one.scores == pytest.approx(two.scores, abs=1e-6, nan_ok=True)


def test_two_faces_are_counted_and_the_rule_decides():
    faces = {
        "frame": np.array([0, 0, 2]),
        "prominence": np.array([5.0, 9.0, 1.0]),
        "embedding": np.array([[1.0, 0], [0, 1], [0, 1]]),
        "landmarks": np.zeros((3, 5, 2)),
    }
    reference = np.array([1.0, 0])
    assert choose_faces(faces, 4, "prominent", reference).tolist() == [1, -1, 2, -1]
    assert choose_faces(faces, 4, "nearest", reference).tolist() == [0, -1, 2, -1]
    assert first_face(faces).embeddings.tolist() == [[0, 1]]


def test_a_second_person_is_counted_and_the_rule_says_who_is_measured(videos, references, monkeypatch):
    def two_faces(video, _):
        ann, bob = (references[name][0] for name in PEOPLE)
        count = len(video.frames)
        return {
            "frame": np.repeat(np.arange(count), 2),
            "box": np.tile([ann.box, bob.box], (count, 1)),
            "landmarks": np.tile([ann.landmarks, bob.landmarks], (count, 1, 1)),
            "prominence": np.tile([1.0, 2.0], count),
            "embedding": np.tile([ann.embedding, bob.embedding], (count, 1)),
        }

    monkeypatch.setitem(FEATURES, "faces", replace(FEATURES["faces"], compute=two_faces))
    names = ["rank1_rate", "several_faces_rate"]
    for which, rank1_rate in (("prominent", 0), ("nearest", 1)):
        result = evaluate(
            [videos / "ann_park.mp4"],
            references,
            metrics=names,
            settings=EvaluationSettings(which_face=which),
        )
        assert result.videos[0].scores == {"rank1_rate": rank1_rate, "several_faces_rate": 1}
        assert result.settings["which_face"] == which


def items_of(names: Iterable[str], references) -> list[str | None]:
    return [item.identity for item in resolve_items(list(names), references, None)]


def test_videos_find_their_identity_by_the_longest_name():
    references = {"amy": [], "amy_lee": [], "raj": []}
    assert items_of(["amy_1.mp4", "amy_lee_2.mp4", "raj.mp4"], references) == ["amy", "amy_lee", "raj"]
    with pytest.raises(ConfigError, match="matches no reference"):
        items_of(["amyx.mp4"], references)
    with pytest.raises(ConfigError, match="no reference"):
        resolve_items([VideoItem(path="a.mp4", identity="zoe")], references, None)


def test_names_are_unique_in_a_system_alone():
    pair = [VideoItem(path="one/amy.mp4"), VideoItem(path="two/amy.mp4")]
    with pytest.raises(ConfigError, match="Two videos"):
        resolve_items(pair, None, None)
    systems = resolve_items([pair[0], replace(pair[1], system="other")], None, {"amy": "a woman smiles"})
    assert [(item.system, item.prompt) for item in systems] == [
        ("other", "a woman smiles"),
        ("videos", "a woman smiles"),
    ]


def test_wrong_questions_are_refused_before_anything_is_opened(references):
    with pytest.raises(ConfigError, match="average_id_similarity"):
        evaluate(["a.mp4"], references, metrics=["average_id_similarty"])
    with pytest.raises(ConfigError, match="No videos"):
        evaluate([], references)
    with pytest.raises(ConfigError, match="no reference picture"):
        evaluate(["ann.mp4"], {"ann": []})
    other = replace(references["ann"][0], engine="other")
    with pytest.raises(FaceError, match="other"):
        evaluate(["ann.mp4"], {"ann": [other]})


def test_a_missing_file_is_that_videos_error(references):
    (video,) = evaluate(["ann_gone.mp4"], references, metrics=["face_rate"]).videos
    assert "ann_gone.mp4" in video.error


def test_features_come_after_what_they_build_on():
    assert sort_by_dependency({"flow", "face_inception"}) == ("faces", "face_inception", "flow")
    for metric in METRICS.values():
        assert set(sort_by_dependency(metric.required_features)) <= set(FEATURES)
        assert (metric.compute_for_video is None) != (metric.compute_for_system is None)


def test_every_metric_is_documented_and_nothing_else_is():
    page = (Path(__file__).parents[2] / "docs" / "metrics.md").read_text()
    assert set(re.findall(r"^\| `(\w+)` \|", page, flags=re.MULTILINE)) == set(METRICS)


def test_a_metric_says_what_it_lacks(tmp_path, monkeypatch):
    monkeypatch.setenv("LIKENESS_HOME", str(tmp_path))
    metrics = {metric.name: metric for metric in select(None)}
    assert reason_unavailable(metrics["fm_ref"], has_prompts=False, has_references=True) is None
    reason = reason_unavailable(metrics["dynamic_degree"], has_prompts=False, has_references=True)
    assert "likeness models pull raft" in reason
    assert "no prompts" in reason_unavailable(metrics["text_video_consistency"], has_prompts=False, has_references=True)


def test_means_are_over_the_figures_that_exist():
    summary = summarize([1.0, None, 3.0])
    assert (summary.mean, summary.num_videos) == (2, 2)
    assert summary.standard_deviation == pytest.approx(math.sqrt(2))
    assert summarize([None]).mean is None
    assert summarize([4.0]).standard_deviation is None


def test_flow_of_a_still_video_is_nothing(clips):
    still = DecodedVideo(frames=np.repeat(clips["ann"][:1], 2, axis=0), fps=8.0)
    faces = FEATURES["faces"].compute(still, {})
    flow = FEATURES["flow"].compute(still, {"faces": faces})
    assert faces["frame"].tolist() == [0, 1]
    assert flow["magnitude_px"] == pytest.approx([0], abs=0.01)
    assert np.isnan(flow["face_px"]).tolist() == [False, True]


def test_embeddings_of_an_engine_that_compares_by_cosine_become_unit_vectors():
    embeddings = np.array([[3.0, 4.0], [0.0, 2.0]])
    assert normalize_embeddings(embeddings, "cosine").tolist() == [[0.6, 0.8], [0, 1]]
    assert normalize_embeddings(embeddings, "distance") is embeddings
    references = ReferenceSet(embeddings=np.eye(2), landmarks=np.zeros((2, 5, 2)), arrays={}, metric="cosine")
    assert references.mean == pytest.approx([math.sqrt(0.5)] * 2)


def test_of_a_variable_frame_rate_the_times_of_the_frames_count(tmp_path):
    path = tmp_path / "variable.mp4"
    with av.open(str(path), "w") as container:
        stream = container.add_stream("libx264", rate=30)
        stream.width = stream.height = 64
        stream.pix_fmt = "yuv420p"
        stream.options = {"x264-params": "bframes=0"}
        stream.codec_context.time_base = Fraction(1, 30)
        for place in (0, 1, 2, 20, 40, 59):
            frame = av.VideoFrame.from_ndarray(np.full((64, 64, 3), 4 * place, dtype=np.uint8), format="rgb24")
            frame.pts, frame.time_base = place, Fraction(1, 30)
            container.mux(stream.encode(frame))
        container.mux(stream.encode())
    (video,) = evaluate([path], None, metrics=["motion_score"]).videos
    assert video.num_frames == 6
    assert video.fps == pytest.approx(5 * 30 / 59)
