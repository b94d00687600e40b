"""`likeness train` around what is trained: locks, records, stopping, processes."""

import json
import os
import signal
import subprocess
import sys
import textwrap
import threading
import time

import pytest

from likeness import files
from likeness.errors import CheckpointError, ConfigError, FileWriteError, LockedError, ResourceError, WeightsError
from likeness.training import run
from likeness.training.base.pipelines import read_base, read_transformer_config
from likeness.training.engine import distributed
from likeness.training.engine.loop import InterruptedRunError
from likeness.training.recipes import resume

RECIPE = """
kind = "vae"
[images]
kind = "images"
count = 2
people = 2
size_px = 32
[clips]
kind = "clips"
count = 2
people = 2
size_px = 32
[validation]
kind = "clips"
count = 2
people = 2
size_px = 32
[[stages]]
name = "images"
data = "images"
steps = 5
batch = 2
"""


@pytest.fixture
def recipe(tmp_path):
    path = tmp_path / "small.toml"
    path.write_text(RECIPE, encoding="utf-8-sig")  # With a byte-order mark, as Windows writes it.
    return path


@pytest.fixture
def trained(monkeypatch):
    """In the place of training: what was trained, and a model that says so."""
    done = []

    def train(settings, folder):
        done.append(settings)
        (folder / "images").mkdir(exist_ok=True)
        (folder / "images" / "finished.safetensors").write_bytes(b"")
        (folder / "model" / "vae").mkdir(parents=True, exist_ok=True)
        return folder / "model" / "vae"

    monkeypatch.setattr(run, "_run", train)
    return done


def test_a_complete_run_is_not_trained_again_and_other_data_are_refused(recipe, trained, tmp_path):
    target = run.train(recipe, output=tmp_path / "a", processes=1)
    assert run.train(recipe, output=tmp_path / "a", processes=1) == target == tmp_path / "a" / "model" / "vae"
    before = (tmp_path / "a" / resume.RECORD_FILE).read_text()
    with pytest.raises(CheckpointError, match=r"images\.seed"):
        run.train(recipe, overrides=["images.seed=3"], output=tmp_path / "a", processes=1)
    assert (tmp_path / "a" / resume.RECORD_FILE).read_text() == before
    assert len(trained) == 1


def test_the_record_is_not_written_for_a_recipe_that_is_refused(recipe, trained, tmp_path):
    with pytest.raises(ConfigError, match="disk"):
        run.train(recipe, overrides=["clips.count=1000000000000"], output=tmp_path / "a", processes=1)
    assert not (tmp_path / "a").exists()
    assert not trained


def test_a_second_one_in_a_folder_is_refused_and_says_who_is_there(recipe, trained, tmp_path):
    with files.lock(tmp_path / "a" / ".lock"), pytest.raises(LockedError, match=f"process {os.getpid()}"):
        run.train(recipe, output=tmp_path / "a", processes=1)
    assert not trained
    assert not (tmp_path / "a" / resume.RECORD_FILE).exists()


def test_a_file_in_the_place_of_the_run_is_reported(recipe, trained, tmp_path):
    (tmp_path / "afile").write_text("mine")
    for output in (tmp_path / "afile", tmp_path / "afile" / "run"):
        with pytest.raises(FileWriteError, match="afile"):
            run.train(recipe, output=output, processes=1)
    assert (tmp_path / "afile").read_text() == "mine"
    assert not trained


@pytest.mark.parametrize("kind", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_outside_of_the_loop_says_what_is_left(recipe, tmp_path, monkeypatch, kind):
    monkeypatch.setattr(run, "_run", lambda *_: os.kill(os.getpid(), kind) or time.sleep(5))
    before = signal.getsignal(signal.SIGTERM)
    inherited = signal.signal(signal.SIGINT, signal.default_int_handler)  # Background jobs of a shell ignore it.
    try:
        with pytest.raises(InterruptedRunError, match="the same command continues") as caught:
            run.train(recipe, output=tmp_path / "a", processes=1)
    finally:
        signal.signal(signal.SIGINT, inherited)
    assert caught.value.exit_code == 128 + kind
    assert signal.getsignal(signal.SIGTERM) == before


def test_a_full_disk_anywhere_is_reported_and_other_errors_are_not_taken_for_one(recipe, tmp_path, monkeypatch):
    def fail(number):
        def write(*_):
            raise OSError(number, os.strerror(number))

        return write

    monkeypatch.setattr(run, "_run", fail(28))
    with pytest.raises(FileWriteError, match="Free space"):
        run.train(recipe, output=tmp_path / "a", processes=1)
    monkeypatch.setattr(run, "_run", fail(2))
    with pytest.raises(FileNotFoundError):
        run.train(recipe, output=tmp_path / "a", processes=1)


@pytest.mark.usefixtures("trained")
def test_processes_do_not_outnumber_a_batch(recipe, tmp_path, monkeypatch):
    asked = []
    launch = distributed.launch
    monkeypatch.setattr(distributed, "launch", lambda count: asked.append(count) or launch(1))
    monkeypatch.setattr(os, "cpu_count", lambda: 16)
    run.train(recipe, output=tmp_path / "a")
    assert asked == [2]
    with pytest.raises(ConfigError, match="--processes 2"):
        run.train(recipe, output=tmp_path / "b", processes=3)


def test_a_peer_that_ends_before_all_have_met_ends_the_others_at_once(monkeypatch):
    monkeypatch.setattr(sys, "argv", ["likeness", "nonsense"])
    began_s = time.monotonic()
    with (
        pytest.raises(ResourceError, match=r"(?s)process 1 ended with code 2.*No such command"),
        distributed.launch(2),
    ):
        pytest.fail("nobody was there to begin with")
    assert time.monotonic() - began_s < 60


@pytest.mark.parametrize("code", [130, 143])
def test_a_peer_that_was_stopped_alone_is_reported(tmp_path, monkeypatch, code):
    """Process 0 learns of it by an error of torch's collectives."""
    peers = object.__new__(distributed._Peers)
    (tmp_path / "errors_1").touch()
    peers.folder, peers.has_ended = tmp_path, threading.Event()
    peers.processes = [subprocess.Popen(["sh", "-c", f"exit {code}"])]
    monkeypatch.setattr(peers, "wait_until_ready", lambda: None)
    monkeypatch.setattr(distributed, "_Peers", lambda *_: peers)
    monkeypatch.setattr(distributed, "_join", lambda *_: None)
    with pytest.raises(ResourceError, match=f"process 1 ended with code {code}"), distributed.launch(2):
        raise RuntimeError("Connection closed by peer")


def test_peers_do_not_run_modules_of_the_working_directory(monkeypatch, tmp_path):
    """The command line imports `random`, which a file beside a recipe must not be."""
    (tmp_path / "random.py").write_text("from pathlib import Path\nPath('was_run').touch()\n")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "argv", ["likeness", "nonsense"])
    with pytest.raises(ResourceError), distributed.launch(2):
        pass
    assert [path.name for path in tmp_path.iterdir()] == ["random.py"]


@pytest.mark.slow
def test_workers_that_draw_do_not_run_modules_of_the_working_directory(tmp_path):
    here = tmp_path / "here"
    here.mkdir()
    (here / "random.py").write_text("from pathlib import Path\nPath('was_run').touch()\n")
    (tmp_path / "draw.py").write_text(
        textwrap.dedent("""
        from pathlib import Path
        from likeness.training.data import render_puppets
        if __name__ == "__main__":
            settings = render_puppets.PuppetSettings(kind="images", count=1, people=1, size_px=16)
            print(list(render_puppets.render_missing(settings, Path("cache"), processes=1)))
        """)
    )
    done = subprocess.run(
        [sys.executable, str(tmp_path / "draw.py")], cwd=here, capture_output=True, text=True, check=True
    )
    assert done.stdout.strip() == "[(0, 1), (1, 1)]"
    assert sorted(path.name for path in here.iterdir()) == ["cache", "random.py"]


@pytest.mark.slow
@pytest.mark.parametrize("who", ["first", "peer"])
def test_the_rest_ends_when_one_of_two_is_killed(tmp_path, who):
    """Both wait for each other in a barrier of torch, where Python handles no signal."""
    script = tmp_path / "both.py"
    script.write_text(
        textwrap.dedent("""
        import sys, time, likeness.cli
        from likeness.training.engine import distributed
        def body():
            with distributed.launch(2):
                print("joined", distributed.rank(), flush=True)
                time.sleep(120)
        likeness.cli.main = body
        if __name__ == "__main__":
            distributed._Peers.__init__.__globals__["sys"].argv = [__file__]
            body()
        """)
    )
    beside = {**os.environ, "PYTHONPATH": f"{tmp_path}{os.pathsep}{os.environ.get('PYTHONPATH', '')}"}
    (tmp_path / "sitecustomize.py").write_text("import os\nif 'LIKENESS_RANK' in os.environ:\n    import both\n")
    with subprocess.Popen([sys.executable, str(script)], stdout=subprocess.PIPE, env=beside, text=True) as first:
        assert first.stdout.readline() == "joined 0\n"
        listed = subprocess.run(
            ["ps", "--ppid", str(first.pid), "-o", "pid="], capture_output=True, text=True, check=True
        )
        (peer,) = map(int, listed.stdout.split())
        os.kill(first.pid if who == "first" else peer, signal.SIGKILL)
        assert first.wait(timeout=60) != 0
        until_s = time.monotonic() + 30
        while os.path.exists(f"/proc/{peer}") and time.monotonic() < until_s:  # noqa: PTH110
            time.sleep(0.2)
        assert not os.path.exists(f"/proc/{peer}")  # noqa: PTH110


def test_the_record_can_be_read_as_settings_of_the_run(recipe, trained, tmp_path):
    run.train(recipe, output=tmp_path / "a", processes=1)
    record = json.loads((tmp_path / "a" / resume.RECORD_FILE).read_text())
    assert record["complete"] is True
    assert run._read_recorded_recipe(tmp_path / "a") == trained[0]


@pytest.mark.slow
def test_processes_average_gradients_and_stop_when_the_first_is_asked_to(tmp_path):
    script = textwrap.dedent(f"""
        import sys, torch
        import torch.distributed as dist
        from pathlib import Path
        from likeness.training.engine import distributed
        number = int(sys.argv[1])
        distributed._join(Path({str(tmp_path)!r}), number, 2)
        gradients = [torch.full((2, 3), float(number)), torch.tensor([4.0 * number])]
        print(*distributed.broadcast_stop(10.0 + number, is_stopping=number == 0))
        distributed.sync_gradients(gradients)
        print(gradients[0].mean().item(), gradients[1].item())
        dist.barrier()
        dist.destroy_process_group()
    """)
    started = [
        subprocess.Popen([sys.executable, "-c", script, str(number)], stdout=subprocess.PIPE, text=True)
        for number in range(2)
    ]
    said = [process.communicate(timeout=120)[0].split() for process in started]
    assert said == [["10.0", "True", "0.5", "2.0"]] * 2


def test_an_interrupted_precompute_says_that_what_is_encoded_is_kept(tmp_path, monkeypatch):
    def stop(*_args, **_kwargs):
        raise KeyboardInterrupt

    monkeypatch.setattr("likeness.training.recipes.read", stop)
    with pytest.raises(InterruptedRunError, match="What is encoded is kept") as caught:
        run.precompute(tmp_path / "recipe.toml", output=tmp_path / "run")
    assert "checkpoint" not in str(caught.value)


@pytest.mark.parametrize("read", [read_base, read_transformer_config])
def test_a_folder_without_a_pipeline_is_refused_with_what_base_needs(tmp_path, read):
    with pytest.raises(WeightsError, match=r"No pipeline at .*Set `base` to a folder with `model_index\.json`"):
        read(tmp_path)
