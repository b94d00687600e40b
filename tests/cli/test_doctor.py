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


def plans_of(capsys, *words):
    assert main(["doctor", "--json", *words]) == 0
    found = json.loads(capsys.readouterr().out)
    return {row["preset"]: row["plan"] for row in found["plans"] if row["is_chosen"]}, found


def test_doctor_plans_for_another_card(capsys):
    assert plans_of(capsys, "--memory-gb", "80")[0] == {"open": "resident", "research": "resident"}
    chosen, found = plans_of(capsys, "--memory-gb", "8")
    assert chosen == {"open": "cast", "research": "cast"}
    assert found["card_gb"] == 8
    assert all(row["card_gb"] <= 8 for row in found["plans"] if row["is_chosen"])
    assert plans_of(capsys, "--memory-gb", "2")[0] == {}


def test_the_table_of_plans_is_readable(capsys, monkeypatch):
    monkeypatch.setenv("COLUMNS", "160")
    assert main(["doctor", "--memory-gb", "24"]) == 0
    printed = capsys.readouterr().out
    assert "Memory plans, predicted GB (a GPU with 24 GB)" in printed
    (taken,) = [line for line in printed.splitlines() if "research" in line and "<- taken" in line]
    assert "offloaded" in taken
    assert "one model at a time" in taken
