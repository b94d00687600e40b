import json
import os
import signal

import pytest
import torch
from torch import nn
from torch.testing import assert_close

from likeness.errors import CheckpointError, FileWriteError, InterruptedRunError
from likeness.training.engine import checkpoints, state
from likeness.training.engine.checkpoints import DivergedError
from likeness.training.engine.loop import (
    FINAL_WEIGHTS_FILE,
    LoopSettings,
    load_final_weights,
    save_final_weights,
    train,
)
from likeness.training.engine.optimizers import OptimizerSettings

pytestmark = pytest.mark.usefixtures("without_curves")


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

    def validate(self, path):  # noqa: ARG002
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
        train(resumed, settings(kind), tmp_path / "b", seed=3, stop_after_steps=10)
    resumed = Line()
    nn.init.zeros_(resumed.model[0].weight)  # What a new process builds does not matter.
    train(resumed, settings(kind), tmp_path / "b", seed=3)
    for ours, theirs in zip(straight.model.parameters(), resumed.model.parameters(), strict=True):
        assert torch.equal(ours, theirs)
    logged = [json.loads(line)["step"] for line in (tmp_path / "b" / "log.jsonl").read_text().splitlines()]
    assert logged == sorted(logged)


class LineInParts(Line):
    """Validates in three parts."""

    def __init__(self):
        super().__init__()
        self.happened = []

    def loss(self, step):
        self.happened.append("step")
        return super().loss(step)

    def validation_parts(self, path):  # noqa: ARG002
        for number in range(2):
            self.happened.append(number)
            torch.randn(7)
            yield
        return {"weight": float(self.model[0].weight.detach().sum())}


def test_training_goes_on_between_the_parts_of_a_validation(tmp_path):
    plain, watched = Line(), LineInParts()
    train(plain, settings(steps=6), tmp_path / "a", seed=3)
    train(watched, settings(steps=6, sheet_minutes=1e-9), tmp_path / "b", seed=3)
    assert watched.happened[:7] == ["step", 0, "step", 1, "step", "step", 0]
    for ours, theirs in zip(plain.model.parameters(), watched.model.parameters(), strict=True):
        assert torch.equal(ours, theirs)
    lines = [json.loads(line) for line in (tmp_path / "b" / "log.jsonl").read_text().splitlines()]
    assert sum("weight" in line for line in lines) == 3  # After steps 3 and 6, and at the end.


def test_the_log_of_a_run_killed_before_its_first_checkpoint_is_begun_anew(tmp_path):
    (tmp_path / "log.jsonl").write_text('{"step": 3, "loss": 1.0}\n{"step": 4, "lo')
    train(Line(), settings(), tmp_path, seed=0)
    logged = [json.loads(line) for line in (tmp_path / "log.jsonl").read_text().splitlines()]
    assert [line["step"] for line in logged] == [20, 20]  # The means of all steps, then the sheet.
    assert ["loss" in line for line in logged] == [True, False]


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
    assert [path.name for path in checkpoints.list_checkpoints(tmp_path / "checkpoints")] == [
        "step_00000016",
        "step_00000020",
    ]


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_ends_a_run_after_its_step_with_the_code_of_the_signal(tmp_path, number):
    class Stopped(Line):
        def loss(self, step):
            if step == 6:
                os.kill(os.getpid(), number)
            return super().loss(step)

    with pytest.raises(InterruptedRunError, match="Stopped at step 7 and saved") as caught:
        train(Stopped(), settings(), tmp_path, seed=0)
    assert caught.value.exit_code == 128 + number


def test_another_seed_is_refused(tmp_path):
    train(Line(), settings(), tmp_path, seed=0)
    with pytest.raises(CheckpointError, match="seed 0"):
        train(Line(), settings(), tmp_path, seed=1)


def test_a_run_that_goes_on_in_another_dtype_says_so(tmp_path, monkeypatch, caplog):
    with pytest.raises(InterruptedRunError):
        train(Line(), settings(), tmp_path, seed=0, stop_after_steps=10)
    monkeypatch.setattr(state, "choose_training_dtype", lambda _: torch.float16)
    train(Line(), settings(), tmp_path, seed=0)
    assert "here it is torch.float16" in caplog.text


def test_a_finished_stage_is_loaded_as_it_was(tmp_path):
    stage, other = Line(), Line()
    nn.init.normal_(stage.model[0].weight)
    assert not load_final_weights(tmp_path, other.modules)
    save_final_weights(tmp_path, stage.modules)
    assert load_final_weights(tmp_path, other.modules)
    assert_close(other.model[0].weight, stage.model[0].weight)


def save_and_die_in_between(folder):
    """Save a checkpoint, and end by a signal after the first file of the next."""
    checkpoints.save(folder, 1, {"model": {"w": torch.ones(4)}}, {"seed": 0})
    save_file = checkpoints.save_file

    def save_then_die(tensors, path):
        save_file(tensors, path)
        os.kill(os.getpid(), signal.SIGKILL)

    checkpoints.save_file = save_then_die
    zeros = {"w": torch.zeros(4)}
    checkpoints.save(folder, 2, {"model": zeros, "more": zeros}, {"seed": 0})


@pytest.mark.filterwarnings("ignore:.*multi-threaded, use of fork:DeprecationWarning")
def test_a_kill_in_the_middle_of_saving_leaves_the_last_checkpoint(tmp_path):
    child = os.fork()  # A new process would import torch first, for seconds.
    if child == 0:
        try:
            save_and_die_in_between(tmp_path)
        finally:
            os._exit(1)
    _, status = os.waitpid(child, 0)
    assert os.waitstatus_to_exitcode(status) == -signal.SIGKILL
    assert len(list(tmp_path.iterdir())) == 2  # the complete one, and the remains of the other
    (last,) = checkpoints.list_checkpoints(tmp_path)
    tensors, state = checkpoints.load(last)
    assert state["step"] == 1
    assert torch.equal(tensors["model"]["w"], torch.ones(4))
    checkpoints.save(tmp_path, 2, {"model": {"w": torch.zeros(4)}}, {"seed": 0})
    assert len(list(tmp_path.iterdir())) == 2  # The remains are gone.


def interrupted(folder, **changes):
    with pytest.raises(InterruptedRunError):
        train(Line(), settings(**changes), folder, seed=0, stop_after_steps=10)
    return checkpoints.list_checkpoints(folder / "checkpoints")[-1]


@pytest.mark.parametrize("changes", [{"batch": 4}, {"optimizer": OptimizerSettings(learning_rate=0.5)}])
def test_other_settings_are_refused(tmp_path, changes):
    interrupted(tmp_path)
    with pytest.raises(CheckpointError, match=f"other settings: {next(iter(changes))}"):
        train(Line(), settings(**changes), tmp_path, seed=0)


def test_a_run_can_be_made_longer_after_its_end(tmp_path):
    train(Line(), settings(), tmp_path, seed=0)
    train(Line(), settings(steps=24, checkpoint_steps=8), tmp_path, seed=0)
    assert checkpoints.list_checkpoints(tmp_path / "checkpoints")[-1].name == "step_00000024"


@pytest.mark.parametrize(
    "name", ["model.line", "optimizer.adamw", "optimizer.muon", "average", "state"], ids=lambda name: name
)
@pytest.mark.parametrize("damage", ["missing", "cut", "empty", "altered"])
def test_a_damaged_checkpoint_says_to_go_on_from_the_one_before(tmp_path, name, damage):
    last = interrupted(tmp_path)
    path = last / (f"{name}.json" if name == "state" else f"{name}.safetensors")
    data = path.read_bytes()
    if damage == "missing":
        path.unlink()
    else:
        changed = {"cut": data[: len(data) // 2], "empty": b"", "altered": data[:-1] + bytes([data[-1] ^ 1])}
        path.write_bytes(changed[damage])
    with pytest.raises(CheckpointError, match=r"step_00000010 cannot be read .* continue from step_00000008\."):
        train(Line(), settings(), tmp_path, seed=0)


@pytest.mark.parametrize("name", ["optimizer.adamw", "average", "model.line"])
def test_a_checkpoint_without_checksums_must_have_all_that_is_needed(tmp_path, name):
    """Those of earlier versions have none."""
    last = interrupted(tmp_path)
    state = json.loads((last / "state.json").read_text())
    del state["files"]
    (last / "state.json").write_text(json.dumps(state))
    (last / f"{name}.safetensors").unlink()
    with pytest.raises(CheckpointError, match=f"{name} is missing"):
        train(Line(), settings(), tmp_path, seed=0)


@pytest.mark.parametrize("damage", [b"", b"\x10\0\0\0\0\0\0\0{}"])
def test_a_damaged_end_of_a_stage_says_to_delete_it(tmp_path, damage):
    (tmp_path / FINAL_WEIGHTS_FILE).write_bytes(damage)
    with pytest.raises(CheckpointError, match=r"finished\.safetensors cannot be read .* Delete this file"):
        load_final_weights(tmp_path, Line().modules)


def test_a_learning_rate_that_is_much_too_high_ends_with_an_error_and_nothing_that_is_not_finite(tmp_path):
    wild = OptimizerSettings(learning_rate=1e30, warmup_steps=0)
    with pytest.raises(DivergedError, match=r"diverged at step \d+: .*learning_rate"):
        train(Line(), settings(optimizer=wild, checkpoint_steps=1), tmp_path, seed=0)
    for path in checkpoints.list_checkpoints(tmp_path / "checkpoints"):
        checkpoints.load(path)
    assert not (tmp_path / FINAL_WEIGHTS_FILE).exists()


class Broken(Line):
    """Gives gradients that are not finite from step 6 on, below a loss that is."""

    def loss(self, step):
        loss, figures = super().loss(step)
        if step >= 6:
            self.model[0].weight.register_hook(lambda gradient: gradient * float("nan"))
        return loss, figures


def test_gradients_that_are_not_finite_leave_the_weights_and_the_last_checkpoint(tmp_path):
    stage = Broken()
    with pytest.raises(DivergedError, match=r"gradients is nan.*step_00000004 is the last"):
        train(stage, settings("adamw"), tmp_path, seed=0)
    assert all(torch.isfinite(parameter).all() for parameter in stage.model.parameters())
    assert [path.name for path in checkpoints.list_checkpoints(tmp_path / "checkpoints")] == ["step_00000004"]


def test_nothing_that_is_not_finite_is_kept(tmp_path):
    stage = Line()
    nn.init.constant_(stage.model[0].weight, float("inf"))
    with pytest.raises(DivergedError, match=r"line\.0\.weight"):
        save_final_weights(tmp_path, stage.modules)
    with pytest.raises(DivergedError, match=r"model\.w"):
        checkpoints.save(tmp_path / "c", 1, {"model": {"w": torch.tensor(float("nan"))}}, {})
    assert list(tmp_path.iterdir()) == []


def test_a_model_that_half_precision_cannot_hold_is_not_left(tmp_path):
    target = tmp_path / "model" / "vae"
    target.mkdir(parents=True)
    checkpoints.save_file({"w": torch.tensor([1e5]).half()}, target / "a.safetensors")
    with pytest.raises(DivergedError, match="half precision"):
        checkpoints.check_exported(tmp_path / "model")
    assert not (tmp_path / "model").exists()


def test_a_full_disk_is_reported_and_leaves_the_last_checkpoint(tmp_path, monkeypatch):
    save_file, calls = checkpoints.save_file, []

    def fill(tensors, path):
        calls.append(path)
        if len(calls) > 10:
            path.write_bytes(b"half")
            raise OSError(28, "No space left on device")
        save_file(tensors, path)

    monkeypatch.setattr(checkpoints, "save_file", fill)
    with pytest.raises(FileWriteError, match=r"No space left on device\. Free space"):
        train(Line(), settings(), tmp_path, seed=0)
    left = sorted(path.name for path in (tmp_path / "checkpoints").iterdir())
    assert left == ["step_00000004", "step_00000008"]
    monkeypatch.undo()
    straight, resumed = Line(), Line()
    train(resumed, settings(), tmp_path, seed=0)
    train(straight, settings(), tmp_path / "straight", seed=0)
    assert torch.equal(straight.model[0].weight, resumed.model[0].weight)


def test_a_log_with_a_figure_that_is_not_finite_stays_json(tmp_path):
    class Infinite(Line):
        def validate(self, path):  # noqa: ARG002
            return {"psnr_db": float("inf")}

    train(Infinite(), settings(), tmp_path, seed=0)
    lines = (tmp_path / "log.jsonl").read_text().splitlines()
    *_, sheet = [json.loads(line, parse_constant=pytest.fail) for line in lines]
    assert sheet["psnr_db"] is None


def test_final_weights_with_tied_tensors_are_saved(tmp_path):
    model = nn.ModuleDict({"shared": nn.Embedding(4, 3), "tied": nn.Linear(3, 4, bias=False)})
    model["tied"].weight = model["shared"].weight
    save_final_weights(tmp_path, {"model": model})
    other = nn.ModuleDict({"shared": nn.Embedding(4, 3), "tied": nn.Linear(3, 4, bias=False)})
    assert load_final_weights(tmp_path, {"model": other})
    assert torch.equal(other["tied"].weight, model["shared"].weight)
    assert torch.equal(other["shared"].weight, model["shared"].weight)
