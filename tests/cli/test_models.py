import json

import pytest

from likeness.cli import main
from likeness.weights import MODELS


@pytest.fixture(autouse=True)
def home(monkeypatch, tmp_path):
    monkeypatch.setenv("LIKENESS_HOME", str(tmp_path / "home"))
    monkeypatch.setenv("COLUMNS", "200")
    return tmp_path / "home"


def test_models_lists_every_weight(capsys):
    assert main(["models", "--json"]) == 0
    rows = {row["name"]: row for row in json.loads(capsys.readouterr().out)["weights"]}
    assert rows.keys() >= MODELS.keys() | {"tiny", "dlib-recognizer"}
    assert rows["tiny"]["is_here"]
    assert not rows["cogvideox-5b"]["is_here"]
    assert rows["cogvideox-5b"]["preset"] == "research"
    assert rows["yunet"]["licence"] == "MIT"


def test_models_speaks_to_people(capsys):
    assert main(["models"]) == 0
    shown = capsys.readouterr().out
    assert "what for" in shown
    assert "CogVideoX License" in shown
    assert main(["models", "list"]) == 0
    assert capsys.readouterr().out == shown


def test_a_forbidden_pull_says_what_to_pass(capsys):
    assert main(["models", "pull", "antelopev2"]) == 4
    message = capsys.readouterr().err
    assert "non-commercial research only" in message
    assert "likeness models pull antelopev2 --preset research" in message


def test_an_unknown_name_is_reported(capsys):
    assert main(["models", "pull", "cogvideo"]) == 4
    assert "`likeness models` says what each is for" in capsys.readouterr().err


def test_files_come_from_a_folder_and_altered_ones_are_refused(capsys, tmp_path, home):
    (tmp_path / "face_detection_yunet_2023mar.onnx").write_bytes(b"another model")
    assert main(["models", "pull", "yunet", "--from", str(tmp_path), "--quiet"]) == 4
    assert "holds 13 bytes instead of 232589" in capsys.readouterr().err
    assert not list(home.rglob("*.onnx"))


def test_check_reads_what_is_here(capsys, home):
    assert main(["models", "check", "tiny", "--json"]) == 0
    (row,) = json.loads(capsys.readouterr().out)["weights"]
    assert row["state"] == "whole"
    assert row["checked"] == row["files"] > 5
    folder = home / "models" / "yunet"
    folder.mkdir(parents=True)
    (folder / "face_detection_yunet_2023mar.onnx").write_bytes(bytes(232_589))
    assert main(["models", "check"]) == 4
    said = capsys.readouterr()
    assert "not whole" in said.out
    assert "SHA-256 differs" in said.err
