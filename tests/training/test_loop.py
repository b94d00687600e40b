import json
import os
import signal
import subprocess
import sys
import textwrap

import pytest
import torch
from torch import nn
from torch.testing import assert_close

from likeness.errors import CheckpointError
from likeness.training import checkpoints, loop
from likeness.training.loop import InterruptedRunError, LoopSettings, finish, finished, train
from likeness.training.optimizers import OptimizerSettings


class Line:
    """A two-layer network that learns a line, with something random in every step."""

    def __init__(self):
        torch.manual_seed(0)
        self.model = nn.Sequential(nn.Linear(3, 8), nn.GELU(), nn.Linear(8, 1))
        self.modules = {"line": self.model}

    def loss(self, step):
        inputs = torch.randn(16, 3)
        loss = (self.model(inputs) - inputs.sum(dim=1, keepdim=True)).square().mean()
        return loss, {"step_parity": float(step % 2)}

    def sheet(self, path):  # noqa: ARG002
        return {"weight": float(self.model[0].weight.detach().sum())}


def settings(kind="muon", **changes):
    values = {
        "name": "line",
        "steps": 20,
        "checkpoint_steps": 4,
        "optimizer": OptimizerSettings(kind=kind, ema=0.9),
    }
    return LoopSettings(**{**values, **changes})


@pytest.mark.parametrize("kind", ["adamw", "muon"])
def test_a_resumed_run_equals_an_undisturbed_one_bit_by_bit(tmp_path, kind):
    straight, resumed = Line(), Line()
    train(straight, settings(kind), tmp_path / "a", seed=3)
    with pytest.raises(InterruptedRunError):
        train(resumed, settings(kind), tmp_path / "b", seed=3, after_steps=10)
    resumed = Line()
    nn.init.zeros_(resumed.model[0].weight)  # What a new process builds does not matter.
    train(resumed, settings(kind), tmp_path / "b", seed=3)
    for ours, theirs in zip(straight.model.parameters(), resumed.model.parameters(), strict=True):
        assert torch.equal(ours, theirs)
    logged = [json.loads(line)["step"] for line in (tmp_path / "b" / "log.jsonl").read_text().splitlines()]
    assert logged == sorted(logged)


def test_the_log_of_a_run_killed_before_its_first_checkpoint_is_begun_anew(tmp_path):
    (tmp_path / "log.jsonl").write_text('{"step": 3, "loss": 1.0}\n{"step": 4, "lo')
    train(Line(), settings(), tmp_path, seed=0)
    logged = [json.loads(line) for line in (tmp_path / "log.jsonl").read_text().splitlines()]
    assert [line["step"] for line in logged] == [20]


def test_training_lowers_the_loss(tmp_path):
    stage = Line()
    torch.manual_seed(1)
    before = float(stage.loss(0)[0].detach())
    optimizer = OptimizerSettings(learning_rate=1e-2, warmup_steps=5, ema=0.9)
    train(stage, settings(steps=200, checkpoint_steps=None, optimizer=optimizer), tmp_path, seed=0)
    torch.manual_seed(1)
    assert float(stage.loss(0)[0].detach()) < 0.1 * before


def test_only_the_last_two_checkpoints_are_kept(tmp_path):
    train(Line(), settings(), tmp_path, seed=0)
    assert [path.name for path in checkpoints.complete(tmp_path / "checkpoints")] == [
        "step_00000016",
        "step_00000020",
    ]


def test_another_seed_is_refused(tmp_path):
    train(Line(), settings(), tmp_path, seed=0)
    with pytest.raises(CheckpointError, match="seed 0"):
        train(Line(), settings(), tmp_path, seed=1)


def test_a_run_that_goes_on_in_another_dtype_says_so(tmp_path, monkeypatch, caplog):
    with pytest.raises(InterruptedRunError):
        train(Line(), settings(), tmp_path, seed=0, after_steps=10)
    monkeypatch.setattr(loop, "choose_training_dtype", lambda _: torch.float16)
    train(Line(), settings(), tmp_path, seed=0)
    assert "here it is torch.float16" in caplog.text


def test_a_finished_stage_is_loaded_as_it_was(tmp_path):
    stage, other = Line(), Line()
    nn.init.normal_(stage.model[0].weight)
    assert not finished(tmp_path, other.modules)
    finish(tmp_path, stage.modules)
    assert finished(tmp_path, other.modules)
    assert_close(other.model[0].weight, stage.model[0].weight)


def test_a_kill_in_the_middle_of_saving_leaves_the_last_checkpoint(tmp_path):
    script = textwrap.dedent(f"""
        import os, signal, torch
        from pathlib import Path
        from likeness.training import checkpoints
        folder = Path({str(tmp_path)!r})
        checkpoints.save(folder, 1, {{"model": {{"w": torch.ones(4)}}}}, {{"seed": 0}})
        save_file, saved = checkpoints.save_file, []
        def save_then_die(tensors, path):
            save_file(tensors, path)
            os.kill(os.getpid(), signal.SIGKILL)
        checkpoints.save_file = save_then_die
        checkpoints.save(folder, 2, {{"model": {{"w": torch.zeros(4)}}, "more": {{"w": torch.zeros(4)}}}}, {{"seed": 0}})
    """)
    done = subprocess.run(
        [sys.executable, "-c", script], env={**os.environ, "OMP_NUM_THREADS": "1"}, check=False
    )
    assert done.returncode == -signal.SIGKILL
    assert len(list(tmp_path.iterdir())) == 2  # the complete one, and the remains of the other
    (last,) = checkpoints.complete(tmp_path)
    tensors, state = checkpoints.load(last)
    assert state["step"] == 1
    assert torch.equal(tensors["model"]["w"], torch.ones(4))
    checkpoints.save(tmp_path, 2, {"model": {"w": torch.zeros(4)}}, {"seed": 0})
    assert len(checkpoints.complete(tmp_path)) == 2
