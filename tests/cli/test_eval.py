import json

import numpy as np
import pytest

from likeness.cli import main
from likeness.evaluation import evaluate as module
from likeness.media import write_picture, write_video
from likeness.puppets import sample_clip, sample_person

QUICK = "average_id_similarity,id_distance,face_rate,rank1_rate"


@pytest.fixture(scope="module")
def tree(tmp_path_factory):
    """Two puppets, one picture of each; one system shows the right people, the other the wrong ones."""
    folder = tmp_path_factory.mktemp("eval")
    clips = {
        name: sample_clip(seed, person=sample_person(seed), action="tilt", num_frames=2, size_px=96).frames
        for name, seed in (("ann", 0), ("bob", 2))
    }
    for name, frames in clips.items():
        write_picture(folder / "people" / f"{name}.png", np.repeat(np.repeat(frames[0], 4, 0), 4, 1))
        write_video(folder / "right" / f"{name}_park.mp4", frames, 8)
    write_video(folder / "wrong" / "ann_park.mp4", clips["bob"], 8)
    write_video(folder / "wrong" / "bob_park.mp4", clips["ann"], 8)
    return folder


@pytest.fixture(scope="module")
def run(tree):
    """Runs into one folder, so that what was measured is measured once."""

    def call(*words):
        systems = [str(tree / "right"), str(tree / "wrong")]
        fixed = ["--references", str(tree / "people"), "--metrics", QUICK, "-o", str(tree / "out")]
        return main(["eval", *systems, *fixed, *words])

    return call


def test_the_table_tells_right_people_from_wrong_ones(run, tree, capsys):
    assert run() == 0
    printed = capsys.readouterr().out
    row = next(line for line in printed.splitlines() if "rank1_rate" in line).split()
    assert (float(row[2]), float(next(cell for cell in row[3:] if "[" not in cell and "]" not in cell))) == (
        1,
        0,
    )
    assert "- id_distance" in printed
    assert "report.html" in printed
    for name in ("evaluation.json", "comparison.json", "videos.parquet", "frames.parquet", "report.html"):
        assert (tree / "out" / name).stat().st_size > 100


def test_json_is_one_object_and_a_second_run_measures_nothing(run, capsys, monkeypatch):
    def refuse(path):
        raise AssertionError(f"{path} was decoded again")

    monkeypatch.setattr(module, "read_video", refuse)
    assert run("--json") == 0
    told = json.loads(capsys.readouterr().out)
    scores = {(video["system"], video["name"]): video["scores"] for video in told["videos"]}
    assert scores["right", "ann_park"]["id_distance"] < scores["wrong", "ann_park"]["id_distance"]
    assert {row["metric"] for row in told["comparison"]["differences"]} == set(QUICK.split(","))
    assert all("frames" not in video for video in told["videos"])


def test_a_bad_video_is_listed_and_the_exit_code_tells(run, tree, capsys):
    bad = tree / "right" / "ann_zero.mp4"
    bad.touch()
    try:
        assert run() == 3
    finally:
        bad.unlink()
    printed = capsys.readouterr()
    assert "1 of 5 videos have no figures" in printed.err
    assert "ann_zero.mp4 holds zero bytes" in printed.err
    assert "rank1_rate" in printed.out
    assert "holds zero bytes" in (tree / "out" / "report.html").read_text()


@pytest.mark.parametrize(
    ("words", "code", "message"),
    [
        ([], 2, "Whom should the videos show?"),
        (["x", "--references", "y", "--first-face"], 2, "one of the two"),
        (["gone", "--first-face"], 2, "gone does not exist"),
        (["{right}", "--first-face", "--face", "largest"], 2, "`--face` is largest"),
        (["{right}", "--first-face", "--metrics", "fid"], 2, "There is no metric `fid`"),
        (["{right}", "--first-face", "--metrics", " ,"], 2, "names nothing"),
        (["{right}", "--first-face", "-o", "{right}/ann_park.mp4/out"], 2, "cannot be written to"),
        (["{right}", "--first-face", "-o", "{taken}"], 2, "is a folder, a file is to be written there"),
        (["{right}", "--first-face", "--vbench"], 4, "likeness eval --vbench-setup"),
        (["{right}", "--first-face", "--vbench-dimensions", "scene"], 2, "VBench measures no `scene`"),
    ],
)
def test_what_cannot_be_done_is_told_before_anything_is_measured(
    tree, tmp_path, capsys, monkeypatch, words, code, message
):
    monkeypatch.setenv("LIKENESS_HOME", str(tmp_path))
    monkeypatch.setattr(module, "measure", None)
    (tmp_path / "taken" / "report.html").mkdir(parents=True)
    words = [word.format(right=tree / "right", taken=tmp_path / "taken") for word in words]
    assert main(["eval", "-o", str(tmp_path / "out"), *words]) == code
    assert message in capsys.readouterr().err
