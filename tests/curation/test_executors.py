import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from toy_stages import MODULES, STAGES, file_hashes, make_recipe, write_pictures

from likeness.curation.run import curate
from likeness.curation.settings import ExecutorSettings
from likeness.curation.verify import read_dropped, verify
from likeness.errors import ResourceError

HERE = Path(__file__).parent


def with_executor(recipe, **settings):
    return recipe.model_copy(update={"executor": ExecutorSettings(**settings)})


def run_with_killer(tmp_path, *, executor, times=100, **killer):
    folder, log = write_pictures(tmp_path / "raw", 4, people=4), tmp_path / "attempts"
    log.mkdir()
    killer_stage = {"name": "toy_killer", "person": "person1", "folder": str(log), "times": times, **killer}
    recipe = with_executor(make_recipe(folder, [killer_stage, *STAGES]), **executor)
    result = curate(recipe, tmp_path / "out", modules=MODULES)
    return recipe, result, len(list(log.iterdir()))


@pytest.mark.slow
def test_a_dead_worker_costs_one_source_after_three_attempts(tmp_path):
    recipe, result, attempts = run_with_killer(tmp_path, executor={"workers": 1})
    assert attempts == 3
    (row,) = read_dropped(result.folder)
    assert (row["name"], row["stage"]) == ("person1/001.png", "worker")
    assert row["reason"] == "its worker was ended by SIGKILL"
    assert result.manifest["counts"]["samples"] == 3
    # Finished work is not tried again, unless it is asked for.
    assert not curate(recipe, tmp_path / "out", modules=MODULES).is_new


def test_a_worker_that_dies_once_loses_nothing(tmp_path):
    _, result, attempts = run_with_killer(tmp_path, executor={"workers": 1}, times=1)
    assert attempts == 1
    assert result.manifest["counts"]["samples"] == 4
    assert result.failed == {}


@pytest.mark.slow
def test_a_source_that_takes_too_long_is_left_out(tmp_path):
    executor = {"workers": 1, "time_limit_s": 15.0, "attempts": 1}
    started_s = time.monotonic()
    _, result, _ = run_with_killer(tmp_path, executor=executor, pause_s=600)
    assert time.monotonic() - started_s < 120
    assert result.manifest["dropped"]["worker"] == {"it took longer than 15 s": 1}


@pytest.mark.slow
def test_a_source_that_takes_too_much_memory_is_left_out(tmp_path):
    executor = {"workers": 1, "memory_gb": 1.0, "attempts": 2}
    _, result, attempts = run_with_killer(tmp_path, executor=executor, allocate_gb=4.0)
    assert attempts == 2
    assert result.manifest["dropped"] == {"worker": {"out of memory": 1}}


def test_a_mistake_in_a_stage_is_tried_once_and_can_be_tried_again(tmp_path):
    recipe, result, attempts = run_with_killer(tmp_path, executor={"workers": 0}, times=1, error="a mistake")
    assert attempts == 1
    (row,) = read_dropped(result.folder)
    assert (row["reason"], row["value"]) == ("a stage failed", "RuntimeError: a mistake")
    again = curate(recipe, tmp_path / "out", modules=MODULES, retry_failed=True)
    assert again.failed == {}
    assert again.manifest["counts"]["samples"] == 4


def test_a_recipe_that_fails_everywhere_stops(tmp_path):
    folder, log = write_pictures(tmp_path / "raw", 8, people=1), tmp_path / "attempts"
    log.mkdir()
    stage = {"name": "toy_killer", "person": "person0", "folder": str(log), "error": "a mistake"}
    with pytest.raises(ResourceError, match="The first 5 sources all failed"):
        curate(make_recipe(folder, [stage]), tmp_path / "out", modules=MODULES)


DRIVER = """
import sys
from pathlib import Path
from toy_stages import MODULES, STAGES, make_recipe
from likeness.curation.run import curate

if __name__ == "__main__":
    stages = [{**STAGES[0], "pause_s": 0.02}, *STAGES[1:]]
    curate(make_recipe(Path(sys.argv[1]), stages, workers=int(sys.argv[3])), sys.argv[2], modules=MODULES)
"""


def run_driver(tmp_path, output, *, kill_after_s=None, workers=2):
    script = tmp_path / "driver.py"
    script.write_text(DRIVER)
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join([str(HERE), *sys.path])}
    process = subprocess.Popen(
        [sys.executable, str(script), str(tmp_path / "raw"), str(output), str(workers)], env=environment
    )
    try:
        return process.wait(timeout=kill_after_s)
    except subprocess.TimeoutExpired:
        process.send_signal(signal.SIGKILL)
        return process.wait()


@pytest.mark.slow
def test_kills_of_the_driver_change_no_byte(tmp_path):
    write_pictures(tmp_path / "raw", 60)
    assert run_driver(tmp_path, tmp_path / "clean", workers=0) == 0
    started_s = time.monotonic()
    assert run_driver(tmp_path, tmp_path / "timed") == 0
    whole_s = time.monotonic() - started_s
    codes = [run_driver(tmp_path, tmp_path / "killed", kill_after_s=whole_s * part) for part in (0.3, 0.5, 0.6, 0.7)]
    assert -signal.SIGKILL in codes
    assert run_driver(tmp_path, tmp_path / "killed") == 0
    assert file_hashes(tmp_path / "killed" / "data") == file_hashes(tmp_path / "clean" / "data")
    assert verify(tmp_path / "killed").problems == ()


@pytest.mark.slow
def test_ray_gives_the_same_bytes_and_survives_lost_workers(tmp_path):
    pytest.importorskip("ray")
    os.environ["PYTHONPATH"] = os.pathsep.join([str(HERE), *sys.path])
    folder = write_pictures(tmp_path / "raw", 6, people=6)
    (tmp_path / "attempts").mkdir()
    killer = {"name": "toy_killer", "person": "person1", "folder": str(tmp_path / "attempts"), "times": 1}
    recipe = make_recipe(folder, [killer, *STAGES])
    by_ray = curate(with_executor(recipe, kind="ray", workers=2), tmp_path / "ray", modules=MODULES)
    here = curate(recipe, tmp_path / "here", modules=MODULES)
    assert by_ray.failed == {}
    assert file_hashes(by_ray.folder) == file_hashes(here.folder)
