import contextlib
import io
import json
import subprocess
import sys

import numpy as np
import pytest

from likeness.cli import main
from likeness.errors import FileWriteError
from likeness.evaluation import evaluate as module
from likeness.media import read_image, write_image, write_video
from likeness.puppets import sample_clip, sample_person

QUICK = "average_id_similarity,id_distance,face_rate,rank1_rate"


@pytest.fixture(scope="module")
def tree(tmp_path_factory):
    """Two puppets, one picture of each; one system shows the right people, the other the wrong ones."""
    folder = tmp_path_factory.mktemp("eval")
    clips = {
        name: sample_clip(seed, person=sample_person(seed), action="tilt", num_frames=2, size_px=96).frames
        for name, seed in (("ann", 0), ("bob", 4))
    }
    for name, frames in clips.items():
        write_image(folder / "people" / f"{name}.png", np.repeat(np.repeat(frames[0], 4, 0), 4, 1))
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


@pytest.fixture(scope="module")
def first(run):
    """What the first run prints."""
    with contextlib.redirect_stdout(io.StringIO()) as printed:
        assert run() == 0
    return printed.getvalue()


def test_the_table_distinguishes_right_people_from_wrong_ones(first, tree):
    row = next(line for line in first.splitlines() if "rank1_rate" in line).split()
    assert (float(row[2]), float(next(cell for cell in row[3:] if "[" not in cell and "]" not in cell))) == (
        1,
        0,
    )
    assert "- id_distance" in first
    assert "report.html" in first
    for name in ("evaluation.json", "comparison.json", "videos.parquet", "frames.parquet", "report.html"):
        assert (tree / "out" / name).stat().st_size > 100


@pytest.mark.usefixtures("first")
def test_json_is_one_object_and_a_second_run_measures_nothing(run, capsys, monkeypatch):
    def refuse(path):
        raise AssertionError(f"{path} was decoded again")

    monkeypatch.setattr(module, "read_video", refuse)
    assert run("--json") == 0
    printed = json.loads(capsys.readouterr().out)
    scores = {(video["system"], video["name"]): video["scores"] for video in printed["videos"]}
    assert scores["right", "ann_park"]["id_distance"] < scores["wrong", "ann_park"]["id_distance"]
    assert {row["metric"] for row in printed["comparison"]["differences"]} == set(QUICK.split(","))
    assert all("frames" not in video for video in printed["videos"])


def test_a_bad_video_is_listed_and_gives_its_exit_code(run, tree, capsys):
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
        ([], 2, "No reference was given, or two kinds"),
        (["x", "--references", "y", "--first-face"], 2, "one of the two"),
        (["--first-face"], 2, "No video was given. Name a folder"),
        (["gone", "--first-face"], 2, "gone does not exist"),
        (["{right}", "--first-face", "--face", "largest"], 2, "`--face` is largest"),
        (["{right}", "--first-face", "--engine", "arcface"], 2, "No face engine is called `arcface`"),
        (
            ["{right}", "--first-face", "--landmark-engine", "open"],
            4,
            "The face engine `open/auraface` lacks weights",
        ),
        (["{right}", "--first-face", "--workers", "1000000"], 2, "`--workers` is 1000000; use 1 to"),
        (["{right}", "--first-face", "--pick", "2"], 2, "Leave one of them out"),
        (["{right}", "--first-face", "--metrics", "fid"], 2, "There is no metric `fid`"),
        (["{right}", "--first-face", "--metrics", " ,"], 2, "names nothing"),
        (["{right}", "--first-face", "-o", "{right}/ann_park.mp4/out"], 4, "cannot be written: Not a directory"),
        (["{right}", "--first-face", "-o", "{taken}"], 2, "is a folder, a file is to be written there"),
        (["{right}", "--first-face", "--vbench"], 4, "likeness eval --vbench-setup"),
        (["{right}", "--first-face", "--vbench-dimensions", "scene"], 2, "VBench does not measure `scene`"),
    ],
)
def test_what_cannot_be_done_is_refused_before_anything_is_measured(
    tree, tmp_path, capsys, monkeypatch, words, code, message
):
    monkeypatch.setenv("LIKENESS_HOME", str(tmp_path))
    monkeypatch.setattr(module, "measure", None)
    (tmp_path / "taken" / "report.html").mkdir(parents=True)
    words = [word.format(right=tree / "right", taken=tmp_path / "taken") for word in words]
    assert main(["eval", "-o", str(tmp_path / "out"), *words]) == code
    assert message in capsys.readouterr().err


def test_what_is_left_out_is_listed_in_the_terminal_the_json_and_the_page(run, tree, capsys):
    """A folder as people have them; the exit code says that one of the videos has no figures."""
    strange = {
        "._ann_park.mp4": b"attributes",
        "ann_old.avi": b"RIFF\0\0\0\0AVI LIST",
        "cover.webp": b"RIFF\0\0\0\0WEBPVP8 " + bytes(20),
    }
    for name, data in strange.items():
        (tree / "right" / name).write_bytes(data)
    try:
        assert run() == 3
        printed = capsys.readouterr()
        assert run("--json") == 3
        record = json.loads(capsys.readouterr().out)
    finally:
        for name in strange:
            (tree / "right" / name).unlink()
    assert "1 left out (hidden file of macOS" in printed.err
    assert "cover.webp" in printed.err
    assert "2 of 3" in printed.out
    assert "ann_old.avi" in printed.err
    assert {file["path"].rsplit("/", 1)[1] for file in record["skipped"]} == {"._ann_park.mp4", "cover.webp"}
    page = (tree / "out" / "report.html").read_text()
    assert "Files left out" in page
    assert "._ann_park.mp4" in page


def test_control_characters_and_markup_in_names_and_prompts_are_shown_as_text(tree, capsys, tmp_path):
    prompts = tmp_path / "p.json"
    prompts.write_text(json.dumps({"ann_park": "<script>alert(1)</script> \ud800 \x1b[2J", "bob_park": "x"}))
    system = f"\x1b[31m<b>={tree / 'right'}"
    words = [system, "--references", str(tree / "people"), "--metrics", QUICK, "-o", str(tree / "out")]
    assert main(["eval", *words, "--prompts", str(prompts), "--title", "<i>"]) == 0
    printed = capsys.readouterr()
    assert "\x1b" not in printed.out
    assert "\\x1b[31m<b>" in printed.out
    page = (tree / "out" / "report.html").read_text()
    for markup in ("<script>", "<b>=", "<i>"):
        assert markup not in page
    assert "&lt;script&gt;" in page


def test_figures_are_printed_where_the_disk_refuses_the_files(run, capsys, monkeypatch):
    from likeness.evaluation.report import export

    def refuse(*_, **__):
        raise FileWriteError("videos.parquet cannot be written: No space left on device.")

    monkeypatch.setattr(export, "write_videos", refuse)
    assert run() == 4
    printed = capsys.readouterr()
    assert "rank1_rate" in printed.out
    assert "report.html" not in printed.out
    assert "No space left on device" in printed.err


def test_a_group_picture_is_a_reference_with_pick(tree, tmp_path, capsys):
    ann, bob = (read_image(tree / "people" / f"{name}.png") for name in ("ann", "bob"))
    write_image(tmp_path / "people" / "ann.png", np.concatenate([bob, ann], axis=1))
    words = [
        "eval",
        str(tree / "right" / "ann_park.mp4"),
        "--references",
        str(tmp_path / "people"),
        "-o",
        str(tree / "out"),
    ]
    words += ["--metrics", "match_rate,id_distance"]
    assert main(words) == 3
    assert "`--pick N`" in capsys.readouterr().err
    distances = []
    for number in ("1", "2"):
        assert main([*words, "--json", "--pick", number]) == 0
        distances.append(json.loads(capsys.readouterr().out)["videos"][0]["scores"]["id_distance"])
    assert distances[1] < distances[0]


def test_what_is_not_there_is_refused_before_anything_heavy_is_imported():
    calls = [["gone", "--first-face"], [".", "--references", "gone"], ["x"]]
    heavy = {"torch", "cv2", "scipy", "av", "pyarrow", "dlib"}
    code = (
        f"import sys; from likeness.cli import main; codes = [main(['eval', *words]) for words in {calls!r}]; "
        f"print(codes, {heavy!r} & set(sys.modules))"
    )
    printed = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout
    assert printed == "[2, 2, 2] set()\n"
