"""The harness of the robustness benchmarks finds what is bad; the benchmarks themselves run by `make bench`."""

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest

from likeness.media import write_image

ROOT = Path(__file__).parents[2]


@pytest.fixture
def trials(monkeypatch):
    monkeypatch.setenv("OMP_NUM_THREADS", "1")
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    monkeypatch.syspath_prepend(str(ROOT / "benchmarks" / "robustness"))
    before = signal.getsignal(signal.SIGINT)
    import trials

    yield trials
    signal.signal(signal.SIGINT, before)
    sys.modules.pop("trials")


def test_damaged_files_and_rests_are_found_and_whole_ones_are_not(trials, tmp_path):
    write_image(tmp_path / "whole.png", np.zeros((8, 8, 3), np.uint8))
    (tmp_path / "whole.json").write_text("{}")
    assert trials.damaged(tmp_path) == []
    assert trials.left_over(tmp_path) == []
    whole = (tmp_path / "whole.png").read_bytes()
    (tmp_path / "cut.png").write_bytes(whole[: len(whole) // 2])
    (tmp_path / "cut.json").write_text('{"a": ')
    (tmp_path / "cut.html").write_text("<html><body>")
    (tmp_path / "cut.safetensors").write_bytes(b"\x08\0\0\0\0\0\0\0{}")
    rest = tmp_path / f"{trials.TEMPORARY_PREFIX}x"
    rest.mkdir()
    (rest / "half.json").write_text("{")
    (tmp_path / "a.safetensors.part").write_bytes(b"")
    found = trials.damaged(tmp_path)
    assert [line.split()[1] for line in found] == ["cut.html:", "cut.json:", "cut.png:", "cut.safetensors:"]
    assert len(trials.left_over(tmp_path)) == 2


def test_every_command_with_numbers_has_words(trials, tmp_path):
    assert trials.ROOT == ROOT
    import option_values

    commands = {command for command, _, _ in option_values.numeric_options()}
    assert {"generate", "train plan"} <= commands <= option_values.bases(tmp_path).keys()


def test_differences_name_what_is_missing_or_other(trials, tmp_path):
    (tmp_path / "a.txt").write_text("a")
    (tmp_path / "log.txt").write_text("1")
    meant = trials.digests(tmp_path, ["log.*"])
    (tmp_path / "log.txt").write_text("2")
    assert trials.differences(trials.digests(tmp_path, ["log.*"]), meant) == []
    (tmp_path / "a.txt").write_text("b")
    (tmp_path / "c.txt").write_text("c")
    assert trials.differences(trials.digests(tmp_path), meant) == ["result differs: a.txt, c.txt, log.txt"]


@pytest.mark.parametrize(
    ("ended", "fault"),
    [
        ((None, "", 1.0, 0), "hangs"),
        ((1, "why", 1.0, 0), "exit code 1: why"),
        ((0, "Traceback (most recent call last):\n  x\nKeyError: 1", 1.0, 0), "traceback: KeyError: 1"),
        ((0, "", 1.0, 2), "2 processes survive"),
        ((0, "", 1.0, 0), None),
        ((2, "refused", 1.0, 0), None),
    ],
)
def test_how_a_command_ends_is_judged(trials, ended, fault):
    assert trials.Ended(*ended).faults([0, 2]) == ([] if fault is None else [fault])


@pytest.fixture
def start(trials, tmp_path):
    """Starts a script of the shell as a trial."""

    def start(script):
        with (tmp_path / "log").open("w") as log:
            process = subprocess.Popen(
                ["sh", "-c", script],
                stdout=log,
                env=os.environ | {"LIKENESS_TRIAL": "test"},
                start_new_session=True,
            )
        command = trials.Command.__new__(trials.Command)
        command.pid, command.process, command.code, command.marker = process.pid, process, None, "LIKENESS_TRIAL=test"
        command.log, command.began_s = tmp_path / "log", 0.0
        return command

    return start


def test_a_surviving_process_is_seen_and_ended(trials, start, monkeypatch):
    monkeypatch.setattr(trials, "LONGEST_SURVIVAL_S", 0.2)
    command = start("sleep 60 & setsid sleep 60 & sleep 0.2; exit 7")
    ended = command.end(10)
    assert (ended.code, ended.survivors) == (7, 2)
    end_s = time.monotonic() + 5
    while trials.session_of(command.pid, command.marker) and time.monotonic() < end_s:
        time.sleep(0.01)
    assert trials.session_of(command.pid, command.marker) == []


def test_a_peer_is_killed_and_not_the_process_that_started_it(start):
    ended = start("LIKENESS_RANK=1 setsid --wait sleep 60; exit 7").disturb(0, signal.SIGKILL, is_of_peer=True)
    assert (ended.code, ended.survivors) == (7, 0)


def test_a_bad_trial_falls_short(trials, tmp_path, capsys):
    benchmark = trials.benchmark_of("kills", ["generate"])
    benchmark.arguments(["--output", str(tmp_path)])
    tally = trials.Tally(benchmark)
    tally.add("SIGKILL of x", [])
    tally.add("SIGKILL of x", ["hangs", "traceback: y"])
    tally.done("SIGKILL of x")
    assert tally.finish() == 1
    assert "| SIGKILL of x | 2 | 1 |" in capsys.readouterr().out.replace("  ", " ")
    assert benchmark.notes["SIGKILL of x"]["faults"] == {"hangs": 1, "traceback: y": 1}
