import json

from likeness.cli import main


def test_doctor_says_what_is_here(capsys):
    assert main(["doctor", "--json"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert found["machine"]["num_usable_cores"] >= 1
    assert {row["name"] for row in found["weights"]} >= {"dlib-landmarks", "dlib-recognizer"}
    assert {row["preset"] for row in found["runs"]} == {"tiny", "open", "research"}
    assert all(row["can_run"] or row["reason"] for row in found["runs"])


def test_doctor_speaks_to_people(capsys):
    assert main(["doctor"]) == 0
    assert "What can run" in capsys.readouterr().out
