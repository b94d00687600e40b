"""A worker that is killed is noticed, and the run goes on from its checkpoint to the weights of an undisturbed run."""

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from safetensors.torch import load_file

from likeness import weights

WORKER = Path(__file__).parent / "train_small_method.py"
LAUNCHER = Path(__file__).parents[3] / "recipes" / "cluster" / "ray_train.py"
TINY = weights.CHECKPOINTS / "tiny"
RECIPE = f"""
kind = "magic_mirror"
base = "{TINY}"
recognizer = "{TINY / "recognizer"}"
faces = {{ kind = "faces", count = 12, people = 6, size_px = 128, shard = 6 }}
clips = {{ kind = "clips", count = 4, people = 4, shard = 4 }}
validation = {{ kind = "faces", count = 8, people = 4, size_px = 128, seed = 90, shard = 8 }}
[[stages]]
name = "images"
data = "images"
steps = 60
batch = 4
checkpoint_steps = 4
sheet_minutes = 1000
identity_samples = 1
"""


def environment():
    return {**os.environ, "OMP_NUM_THREADS": "1", "PYTHONPATH": os.pathsep.join(sys.path)}


def equal(one, other):
    mine, theirs = load_file(one), load_file(other)
    return mine.keys() == theirs.keys() and all(mine[name].equal(theirs[name]) for name in mine)


@pytest.mark.slow
def test_torchrun_starts_a_killed_worker_again(tmp_path):
    for name, kill_at in (("straight", None), ("killed", 5)):
        settings = {
            "folder": str(tmp_path / name), "parallel": "ddp", "steps": 8, "stop_after": None, "accumulation": 1,
            "method": "magic_mirror", "kill_at": kill_at,
        }  # fmt: skip
        command = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node=2"]
        done = subprocess.run(
            [*command, "--max-restarts=2", str(WORKER), json.dumps(settings)],
            env=environment(),
            capture_output=True,
            text=True,
            check=False,
        )
        assert done.returncode == 0, done.stderr[-3000:]
    assert (tmp_path / "killed" / "was_killed").exists()
    assert equal(tmp_path / "straight" / "weights.safetensors", tmp_path / "killed" / "weights.safetensors")


@pytest.mark.slow
def test_ray_starts_a_killed_worker_again(tmp_path):
    pytest.importorskip("ray.train")
    recipe = tmp_path / "recipe.toml"
    recipe.write_text(RECIPE)
    straight = tmp_path / "straight"
    command = [sys.executable, "-m", "likeness", "train", str(recipe), "-o", str(straight), "--processes", "2"]
    done = subprocess.run(command, env=environment(), capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr[-3000:]
    killed = tmp_path / "killed"
    command = [sys.executable, str(LAUNCHER), str(recipe), "-o", str(killed), "--workers", "2"]
    with (tmp_path / "ray.log").open("w") as log:
        running = subprocess.Popen(command, env=environment(), stdout=log, stderr=subprocess.STDOUT)
        while running.poll() is None and not list((killed / "images" / "checkpoints").glob("step_*")):
            time.sleep(0.2)
        assert running.poll() is None, (tmp_path / "ray.log").read_text()[-3000:]
        os.kill(ray_workers()[-1], signal.SIGKILL)
        code = running.wait(timeout=900)
    assert code == 0, (tmp_path / "ray.log").read_text()[-3000:]
    # The model and not the log is compared: that of steps that were repeated is written again.
    assert equal(straight / "images" / "finished.safetensors", killed / "images" / "finished.safetensors")


def ray_workers():
    """Process ids of the training workers of the local cluster."""
    found = []
    for folder in Path("/proc").glob("[0-9]*"):
        try:
            words = (folder / "cmdline").read_bytes().decode(errors="replace")
        except OSError:
            continue
        if words.startswith("ray::") and "RayTrainWorker" in words:
            found.append(int(folder.name))
    assert found
    return found
