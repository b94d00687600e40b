import json
import os
import socket
import subprocess
import sys

import pytest

from likeness.cli import main
from likeness.media import read_metadata, read_video, write_image

PROMPT = "a woman img in a red sweater nods"
pytestmark = pytest.mark.usefixtures("small_frames")


@pytest.fixture(scope="module")
def photograph(tmp_path_factory):
    data = pytest.importorskip("skimage.data")
    path = tmp_path_factory.mktemp("photograph") / "astronaut.png"
    write_image(path, data.astronaut()[:300, 100:400])
    return path


def words(checkpoint, photograph, output, *more):
    models = ["--backbone", str(checkpoint)]
    return [
        "generate",
        PROMPT,
        "--face",
        str(photograph),
        "-o",
        str(output),
        "--steps",
        "2",
        "--frames",
        "9",
        *models,
        *more,
    ]


def test_generate_writes_a_video_with_its_record(checkpoint, photograph, tmp_path, capsys):
    output = tmp_path / "made" / "clip.mp4"
    assert main(words(checkpoint, photograph, output, "--seed", "4")) == 0
    assert capsys.readouterr().out.startswith(f"{output}: 1.1 s, MagicMirror, seed 4")
    assert read_video(output)[0].shape == (9, 256, 256, 3)
    record = json.loads(output.with_suffix(".json").read_text())
    assert record == read_metadata(output)
    assert record["settings"]["references"][0]["file"] == "astronaut.png"


def test_json_is_all_that_is_printed(checkpoint, photograph, tmp_path, capsys):
    output = tmp_path / "clip.mp4"
    assert main(words(checkpoint, photograph, output, "--json", "--enlarge", "1")) == 0
    printed = capsys.readouterr()
    assert json.loads(printed.out)["video"] == str(output)
    assert read_video(output)[0].shape == (9, 64, 64, 3)


def test_more_than_one_picture_of_one_person(checkpoint, photograph, tmp_path):
    more = ["--face", str(photograph), "--frames", "1"]
    assert main(words(checkpoint, photograph, tmp_path / "clip.png", *more)) == 0
    record = json.loads((tmp_path / "clip.json").read_text())
    assert len(record["settings"]["references"]) == 2


def test_prompt_without_trigger_is_refused_before_anything_loads(tmp_path, capsys):
    assert main(["generate", "a woman waves", "--face", str(tmp_path / "absent.jpg")]) == 3
    assert 'Try: "a woman img waves"' in capsys.readouterr().err


def test_output_that_is_no_mp4_is_refused_before_anything_loads(tmp_path, capsys):
    face = str(tmp_path / "absent.jpg")
    assert main(["generate", PROMPT, "--face", face, "-o", str(tmp_path / "clip.gif")]) == 3
    assert "Use .mp4" in capsys.readouterr().err


def test_negative_seed_is_a_usage_error(tmp_path, capsys):
    assert main(["puppets", str(tmp_path / "sheet.png"), "--seed", "-1"]) == 2
    assert "--seed" in capsys.readouterr().err


def test_bad_picture_is_refused(tmp_path, capsys):
    (tmp_path / "empty.jpg").touch()
    assert main(["generate", PROMPT, "--face", str(tmp_path / "empty.jpg")]) == 3
    assert "zero bytes" in capsys.readouterr().err


def test_bad_setting_is_refused(checkpoint, photograph, tmp_path, capsys):
    output = tmp_path / "clip.mp4"
    assert main([*words(checkpoint, photograph, output), "--frames", "16"]) == 2
    assert "Try 17" in capsys.readouterr().err
    assert not output.exists()


def test_generating_opens_no_connection(checkpoint, photograph, tmp_path, monkeypatch):
    def refuse(*_):
        raise AssertionError("a connection was opened")

    monkeypatch.setattr(socket.socket, "connect", refuse)
    monkeypatch.setattr(socket, "getaddrinfo", refuse)
    assert main(words(checkpoint, photograph, tmp_path / "clip.png", "--frames", "1")) == 0


@pytest.mark.slow
def test_no_network_is_asked(checkpoint, photograph, tmp_path):
    """A fresh process that cannot open a connection, and has no offline setting, generates all the same."""
    guard = (
        "import socket, sys\n"
        "def refuse(*_): raise AssertionError('a connection was opened')\n"
        "socket.socket.connect = refuse\n"
        "socket.getaddrinfo = refuse\n"
        "from likeness.cli import main\n"
        "sys.exit(main(sys.argv[1:]))\n"
    )
    command = [sys.executable, "-c", guard, *words(checkpoint, photograph, tmp_path / "clip.mp4")]
    environment = {name: value for name, value in os.environ.items() if not name.startswith("HF_")}
    done = subprocess.run(command, capture_output=True, text=True, env=environment, check=False)
    assert done.returncode == 0, done.stderr
