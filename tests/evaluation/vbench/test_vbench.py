import json
import os
import re
import signal
import stat
import subprocess
import sys
import time
from pathlib import Path

import pytest
from made_results import make_result, record

from likeness.errors import ConfigError, ResourceError
from likeness.evaluation.vbench.environment import _READY, environment, executable, set_up
from likeness.evaluation.vbench.run import DEFAULT, DIMENSIONS, add_vbench, run_vbench

FAKE = Path(__file__).with_name("fake_vbench.py")


@pytest.fixture
def command(tmp_path):
    """An environment that holds the stand-in."""
    scripts = tmp_path / "home" / "environments" / "vbench" / "bin"
    scripts.mkdir(parents=True)
    (scripts / "python").symlink_to(sys.executable)
    path = scripts / "vbench"
    path.write_text(f'#!/bin/sh\nexec "{sys.executable}" "{FAKE}" "$@"\n')
    path.chmod(path.stat().st_mode | stat.S_IXUSR)
    (scripts.parent / _READY).touch()
    return path


@pytest.fixture
def result(tmp_path):
    """Two systems; in each a video that cannot be read."""
    scores = {system: {name: {"up": 1.0} for name in ("a one", "b", "bad")} for system in ("ours", "theirs")}
    made = make_result(scores, [record("up")], failed=[("ours", "bad"), ("theirs", "bad")])
    for number, video in enumerate(made.videos):
        path = tmp_path / "some videos" / video.path
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(b"video")
        object.__setattr__(video, "path", str(path))
        object.__setattr__(video, "prompt", "word" * (number + 1))
    return made


def test_figures_come_back_to_the_videos_they_belong_to(command, result, tmp_path):
    calls: list[tuple[int, int]] = []
    found = run_vbench(
        command,
        result.videos,
        tmp_path / "out put",
        ("dynamic_degree",),
        on_dimension=lambda *n: calls.append(n),
    )
    # Prompts have 4, 8, (12,) 16 and 20 letters; the figure of the stand-in is the last digit over 10.
    assert found.values["dynamic_degree"] == {
        ("ours", "a one"): 0.4,
        ("ours", "b"): 0.8,
        ("theirs", "a one"): 0.6,
        ("theirs", "b"): 0.0,
    }
    assert found.totals["dynamic_degree"] == pytest.approx(0.45)
    assert found.failed == {}
    assert calls == [(1, 1)]


def test_rows_as_vbench_writes_them_are_read(command, result, tmp_path, monkeypatch):
    """`dynamic_degree` says true or false, `background_consistency` more than it needs, and no order is kept."""
    monkeypatch.setenv("FAKE_VBENCH", "rows")
    names = ("dynamic_degree", "background_consistency", "imaging_quality")
    found = run_vbench(command, result.videos, tmp_path / "out", names)
    assert not found.failed
    keys = [("ours", "a one"), ("ours", "b"), ("theirs", "a one"), ("theirs", "b")]
    assert [found.values["dynamic_degree"][key] for key in keys] == [0.0, 1.0, 1.0, 0.0]
    for name in names[1:]:
        assert [found.values[name][key] for key in keys] == pytest.approx([0.4, 0.8, 0.6, 0.0])
        assert found.totals[name] == pytest.approx(0.45)


def test_they_stand_in_our_table_and_failed_videos_in_none(command, result, tmp_path):
    found = run_vbench(command, result.videos, tmp_path / "out", ("dynamic_degree", "imaging_quality"))
    table = add_vbench(result, found)
    assert table.systems[0].scores["vbench_dynamic_degree"].mean == pytest.approx(0.6)
    assert table.systems[0].scores["vbench_dynamic_degree"].num_videos == 2
    # VBench divides the mean of this one by 100 and the single figures not; here both are shares.
    assert table.systems[0].scores["vbench_imaging_quality"].mean == pytest.approx(0.6)
    assert table.metrics["vbench_dynamic_degree"].direction == "higher"
    assert [video.scores.get("vbench_dynamic_degree") for video in table.videos if video.error] == [
        None,
        None,
    ]
    assert table.settings["vbench"]["version"] == "0.1.5"
    json.dumps(table.to_dict(), allow_nan=False)


def test_what_was_measured_is_kept_until_videos_or_prompts_change(command, result, tmp_path):
    def run():
        return run_vbench(command, result.videos, tmp_path / "out", ("dynamic_degree",))

    calls = tmp_path / "out" / "calls.txt"
    first = run()
    assert run() == first
    assert calls.read_text().count("dynamic_degree") == 1
    object.__setattr__(result.videos[0], "prompt", "another")
    assert run() != first
    assert calls.read_text().count("dynamic_degree") == 2


FAULTS = {
    "fail": "exit code 0, and it wrote no result.*NVIDIA GPU.*Last output: RuntimeError: Found no NVIDIA driver on",
    "die": "exit code 0, and it wrote no result",
    "garbage": "has an unexpected layout",
    "short": "lacks 1 of 4 videos",
    "nan": "not finite",
}
"""Of the stand-in, and what is reported."""


def test_a_run_that_fails_is_reported_and_loses_no_other(command, result, tmp_path, monkeypatch):
    run_vbench(command, result.videos, tmp_path / "out", ("dynamic_degree",))
    for wrong, message in FAULTS.items():
        monkeypatch.setenv("FAKE_VBENCH", wrong)
        found = run_vbench(command, result.videos, tmp_path / "out", ("dynamic_degree", "motion_smoothness"))
        assert found.values.keys() == {"dynamic_degree"}, wrong
        assert re.search(message, found.failed["motion_smoothness"]), wrong
        assert str(tmp_path / "out" / "motion_smoothness" / "log.txt") in found.failed["motion_smoothness"]
        assert add_vbench(result, found).left_out.keys() == {"absent", "vbench_motion_smoothness"}
    monkeypatch.delenv("FAKE_VBENCH")
    again = run_vbench(command, result.videos, tmp_path / "out", ("dynamic_degree", "motion_smoothness"))
    assert again.failed == {}


def test_who_interrupts_us_interrupts_vbench(command, tmp_path):
    script = (
        # A shell that starts tests in the background has them ignore interrupts.
        "import signal, sys\nsignal.signal(signal.SIGINT, signal.default_int_handler)\n"
        "from pathlib import Path\nfrom likeness.evaluation.vbench.run import run_vbench\n"
        "from likeness.evaluation.results.records import VideoResult\n"
        "video = VideoResult(name='a', path=sys.argv[2], system='s', identity=None, prompt='p', sha256='0', "
        "num_frames=1, fps=1, width_px=1, height_px=1)\n"
        "run_vbench(Path(sys.argv[1]), [video], Path(sys.argv[3]), ('dynamic_degree',))\n"
    )
    (tmp_path / "a.mp4").write_bytes(b"video")
    words = [sys.executable, "-c", script, str(command), str(tmp_path / "a.mp4"), str(tmp_path / "out")]
    process = subprocess.Popen(words, env=os.environ | {"FAKE_VBENCH": "hang"}, stderr=subprocess.DEVNULL)
    pid = tmp_path / "out" / "dynamic_degree" / "pid"
    end = time.monotonic() + 120
    while not (pid.is_file() and pid.read_text()) and process.poll() is None and time.monotonic() < end:
        time.sleep(0.1)
    process.send_signal(signal.SIGINT)
    process.wait(60)
    inner = Path("/proc") / pid.read_text()
    while inner.exists() and "Z" not in inner.joinpath("stat").read_text() and time.monotonic() < end:
        time.sleep(0.1)
    assert not inner.exists() or "Z" in inner.joinpath("stat").read_text()


def test_prompts_are_needed_only_where_they_are_read(command, result, tmp_path):
    for video in result.videos:
        object.__setattr__(video, "prompt", None)
    found = run_vbench(command, result.videos, tmp_path / "out", ("dynamic_degree", "overall_consistency"))
    assert found.values.keys() == {"dynamic_degree"}
    assert "needs prompts" in found.failed["overall_consistency"]
    assert not (tmp_path / "out" / "dynamic_degree" / "prompts.json").exists()


def test_dimensions_that_need_vbenchs_own_prompts_are_refused(command, result, tmp_path):
    with pytest.raises(ConfigError, match="does not measure `object_class`"):
        run_vbench(command, result.videos, tmp_path, ("object_class",))
    assert set(DEFAULT) <= set(DIMENSIONS)


def test_an_environment_that_is_not_whole_says_how_to_make_it(command, monkeypatch, tmp_path):
    monkeypatch.setenv("LIKENESS_HOME", str(tmp_path / "home"))
    assert executable(environment()) == command
    (environment() / _READY).unlink()
    with pytest.raises(ResourceError, match=r"only half made. Make it with `likeness eval --vbench-setup`"):
        executable(environment())
    with pytest.raises(ResourceError, match="not there"):
        executable(tmp_path / "elsewhere")


def fake_python(path, version, exit_code=0):
    path.write_text(
        f'#!/bin/sh\nif [ "$1" = "-c" ]; then echo {version}; exit 0; fi\n'
        f'echo "no room on the disk"\nexit {exit_code}\n'
    )
    path.chmod(0o755)
    return str(path)


def test_setting_up_refuses_what_cannot_work(tmp_path):
    def calls(_: str) -> None: ...

    with pytest.raises(ResourceError, match="without spaces"):
        set_up(tmp_path / "a folder" / "vbench", calls)
    with pytest.raises(ResourceError, match=r"is Python 3\.13; VBench's pins"):
        set_up(tmp_path / "vbench", calls, fake_python(tmp_path / "new", "3 13"))
    with pytest.raises(ResourceError, match="There is no Python at"):
        set_up(tmp_path / "vbench", calls, str(tmp_path / "none"))


def test_setting_up_that_fails_shows_why_and_leaves_no_whole_environment(tmp_path):
    lines: list[str] = []
    python = fake_python(tmp_path / "python", "3 11", exit_code=1)
    with pytest.raises(
        ResourceError, match=r"(?s)failed at .*no room on the disk.*run `likeness eval --vbench-setup` again"
    ):
        set_up(tmp_path / "vbench", lines.append, python)
    assert lines == ["no room on the disk"]
    with pytest.raises(ResourceError, match="not there"):
        executable(tmp_path / "vbench")
