"""One video may be broken in any way: it has an error, and the others their figures."""

import os
from pathlib import Path

import numpy as np
import pytest

from likeness.errors import FileWriteError, WeightsError
from likeness.evaluation import evaluate as module
from likeness.evaluation.evaluate import EvaluationSettings, evaluate, measure_video
from likeness.evaluation.features.cache import FeatureCache, MeasuredVideo, VideoInfo
from likeness.evaluation.results import score as scoring
from likeness.evaluation.results.records import SkippedFile, load
from likeness.evaluation.workers import measure_in_processes
from likeness.media import write_video

METRICS = ["face_rate", "motion_score"]


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    folder = tmp_path_factory.mktemp("isolation")
    for name in ("good", "bad"):
        frames = np.full((2, 64, 64, 3), 80 if name == "good" else 120, dtype=np.uint8)
        write_video(folder / f"{name}.mp4", frames, 8)
    return folder


def errors_of(folder, **settings):
    result = evaluate(
        [folder / "good.mp4", folder / "bad.mp4"],
        None,
        metrics=METRICS,
        settings=EvaluationSettings(**settings),
    )
    return result, {video.name: video.error for video in result.videos}


@pytest.mark.parametrize(
    "failure", [ValueError("all arrays must have the same shape"), MemoryError(), RecursionError("deep")]
)
def test_an_unexpected_failure_is_reported_with_the_files_name(folder, monkeypatch, failure):
    read = module.read_video

    def refuse(path):
        if "bad" in str(path):
            raise failure
        return read(path)

    monkeypatch.setattr(module, "read_video", refuse)
    result, errors = errors_of(folder)
    assert errors["good"] is None
    assert str(folder / "bad.mp4") in errors["bad"]
    assert result.systems[0].num_failed == 1
    assert result.systems[0].scores["face_rate"].num_videos == 1


def test_figures_that_cannot_be_computed_are_one_videos_error(folder, monkeypatch):
    build_metric_inputs = scoring.build_metric_inputs

    def refuse(known, *args, **more):
        if known.sha256 == module.sha256_of(folder / "bad.mp4"):
            raise IndexError("out of bounds")
        return build_metric_inputs(known, *args, **more)

    monkeypatch.setattr(scoring, "build_metric_inputs", refuse)
    result, errors = errors_of(folder)
    assert errors["good"] is None
    assert "bad.mp4: its metrics cannot be computed (IndexError" in errors["bad"]
    assert result.systems[0].num_failed == 1


@pytest.mark.parametrize("failure", [FileWriteError("full"), WeightsError("damaged")])
def test_what_is_no_fault_of_a_video_ends_the_evaluation(folder, monkeypatch, failure):
    def refuse(_):
        raise failure

    monkeypatch.setattr(module, "read_video", refuse)
    with pytest.raises(type(failure)):
        errors_of(folder)


def test_a_full_disk_is_reported_by_the_cache(folder, tmp_path, monkeypatch):
    def refuse(*_, **__):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("likeness.evaluation.features.cache.np.savez", refuse)
    with pytest.raises(FileWriteError, match=r"No space left on device\. Free space"):
        measure_video(str(folder / "good.mp4"), ("faces",), tmp_path)


def test_a_pipe_is_not_waited_for(tmp_path):
    os.mkfifo(tmp_path / "pipe.mp4")
    assert "not a regular file" in (measure_video(str(tmp_path / "pipe.mp4"), ("faces",), None).error or "")


def test_what_a_killed_writer_left_is_removed_by_the_next(tmp_path):
    cache = FeatureCache(tmp_path)
    stale = cache.path("ab", "faces-1-dlib").parent / ".likeness-write-killed"
    stale.mkdir(parents=True)
    info = VideoInfo(num_frames=1, fps=8.0, width_px=4, height_px=4)
    cache.write("ab", "faces-1-dlib", info, {"frame": np.zeros(1)})
    assert [path.name for path in stale.parent.iterdir()] == ["ab-faces-1-dlib.npz"]


def test_skipped_files_and_notes_come_back_from_the_json(folder, tmp_path):
    from dataclasses import replace

    result, _ = errors_of(folder)
    skipped = (SkippedFile(path="x.avi", reason="because", is_video=True),)
    saved = replace(result, skipped=skipped, notes=("a note",)).save(tmp_path / "evaluation.json")
    assert load(saved).skipped == skipped
    assert load(saved).notes == ("a note",)


def die_at_three(path: str) -> MeasuredVideo:
    if Path(path).name == "3":
        os._exit(1)
    return MeasuredVideo(sha256=path)


@pytest.mark.slow
def test_a_process_that_dies_loses_its_own_file_alone():
    found = dict(measure_in_processes(die_at_three, [str(number) for number in range(7)], 2))
    assert [path for path, measured in found.items() if measured.error] == ["3"]
    assert len(found) == 7
    assert "3: the process that measured it was killed" in (found["3"].error or "")
