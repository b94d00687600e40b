"""Several processes give the loss of one, and checkpoints move between numbers of processes and kinds of sharding."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
from safetensors.torch import load_file
from torch.testing import assert_close

from likeness.training.engine import checkpoints
from likeness.training.engine.schedules import learning_rate_factor

WORKER = Path(__file__).parent / "train_small_method.py"


def train(folder, processes, *, parallel="ddp", steps=4, stop_after=None, accumulation=1, name="magic_mirror"):
    """Train a small method by torchrun, and return the loss of each step."""
    settings = {
        "folder": str(folder), "parallel": parallel, "steps": steps, "stop_after": stop_after,
        "accumulation": accumulation, "method": name,
    }  # fmt: skip
    command = [sys.executable, "-m", "torch.distributed.run", "--standalone", f"--nproc-per-node={processes}"]
    done = subprocess.run(
        [*command, str(WORKER), json.dumps(settings)],
        env={**os.environ, "OMP_NUM_THREADS": "1", "PYTHONPATH": os.pathsep.join(sys.path)},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr[-3000:]
    return [line["loss"] for line in map(json.loads, (folder / "losses.jsonl").read_text().splitlines())]


def weights(folder):
    return load_file(folder / "weights.safetensors")


@pytest.mark.slow
@pytest.mark.parametrize("name", ["magic_mirror", "fantasy_id"])
def test_two_and_four_processes_with_ddp_and_fsdp2_give_the_loss_of_one(tmp_path, name):
    alone = train(tmp_path / "alone", 1, name=name)
    for processes in (2, 4):
        for parallel in ("ddp", "fsdp2"):
            folder = tmp_path / f"{parallel}_{processes}"
            found = train(folder, processes, parallel=parallel, name=name)
            assert found == pytest.approx(alone, rel=1e-5), folder.name
            assert_close(weights(folder), weights(tmp_path / "alone"), rtol=1e-4, atol=1e-5)


@pytest.mark.slow
def test_micro_batches_give_the_gradients_of_a_whole_batch_and_resume_in_the_middle_of_an_epoch(tmp_path):
    train(tmp_path / "straight", 2, accumulation=2)
    train(tmp_path / "stopped", 2, accumulation=2, stop_after=2)
    train(tmp_path / "stopped", 2, accumulation=2)
    straight, stopped = weights(tmp_path / "straight"), weights(tmp_path / "stopped")
    assert all(straight[key].equal(stopped[key]) for key in straight)


@pytest.mark.slow
def test_a_run_moves_from_one_process_to_two_to_four_to_one(tmp_path):
    alone = train(tmp_path / "alone", 1, steps=8)
    losses = []
    for number, (processes, parallel) in enumerate([(1, "ddp"), (2, "fsdp2"), (4, "ddp"), (1, "ddp")]):
        stop = 2 * (number + 1)
        found = train(tmp_path / "moved", processes, parallel=parallel, steps=8, stop_after=stop if stop < 8 else None)
        losses += found
    assert losses == pytest.approx(alone, rel=1e-5)
    (last,) = checkpoints.list_checkpoints(tmp_path / "moved" / "checkpoints")[-1:]
    assert checkpoints.load(last)[1]["step"] == 8


@pytest.mark.parametrize("schedule", ["cosine", "cosine_with_restarts", "linear", "constant"])
def test_schedules_warm_up_and_end_where_they_should(schedule):
    def factor(progress, step=1000):
        return learning_rate_factor(
            schedule, step=step, progress=progress, warmup_steps=10, final_fraction=0.1, cycles=3
        )

    assert factor(0.0, step=0) == pytest.approx(0.1)
    assert factor(0.0) == pytest.approx(1.0)
    assert factor(1.0) == pytest.approx(1.0 if schedule == "constant" else 0.1)
    restarted = factor(1 / 3 + 1e-9)
    assert restarted == pytest.approx(1.0) if schedule == "cosine_with_restarts" else restarted <= 1.0
