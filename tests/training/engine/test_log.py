"""What the loop logs, and where to."""

import importlib.util
import json
import sys
import time
from types import ModuleType

import pytest
import torch
from torch import nn

from likeness.errors import ConfigError
from likeness.training.engine import log_writers
from likeness.training.engine.loop import InterruptedRunError, LoopSettings, train
from likeness.training.engine.optimizers import OptimizerSettings
from likeness.training.objectives.noise_levels import loss_by_noise_level
from likeness.training.recipes import estimate

pytestmark = pytest.mark.usefixtures("without_curves")


class Line:
    """A layer that learns, and waits 10 ms a step for data."""

    def __init__(self):
        torch.manual_seed(0)
        self.model = nn.Linear(3, 1)
        self.modules = {"line": self.model}
        self.waited_s = 0.0

    def loss(self, step):
        del step
        begun_s = time.perf_counter()
        time.sleep(0.01)
        self.waited_s += time.perf_counter() - begun_s
        return self.model(torch.randn(4, 3)).square().mean(), {}

    def validate(self, path):
        del path
        return {"weight": 1.0}


def settings(**changes):
    optimizer = OptimizerSettings(learning_rate=0.1, warmup_steps=0, schedule="linear", final_fraction=0.0)
    return LoopSettings(**{"name": "line", "steps": 10, "optimizer": optimizer, **changes})


@pytest.fixture
def every_step(monkeypatch):
    """Lines of the log for every step, not every few seconds."""
    from likeness.training.engine import loop

    plain = loop.TrainingLogger
    monkeypatch.setattr(loop, "TrainingLogger", lambda folder, name: plain(folder, name, interval_s=0.0))


def lines_of(folder):
    return [json.loads(line) for line in (folder / "log.jsonl").read_text().splitlines()]


@pytest.mark.usefixtures("every_step")
def test_the_log_has_the_rate_of_each_step_and_the_share_of_time_that_waited_for_data(tmp_path):
    train(Line(), settings(), tmp_path, seed=0)
    steps = [line for line in lines_of(tmp_path) if "loss" in line]
    assert [line["learning_rate"] for line in steps] == pytest.approx([0.1 * (1 - n / 10) for n in range(10)], abs=1e-6)
    shares = [line["data_wait_share"] for line in steps]
    assert all(0.3 < share <= 1 for share in shares[1:])  # Ten milliseconds of a step that does little else.


def test_the_last_steps_of_a_stage_are_logged_however_short_it_is(tmp_path):
    train(Line(), settings(steps=2), tmp_path, seed=0)
    assert [line["step"] for line in lines_of(tmp_path) if "loss" in line] == [2]


@pytest.mark.usefixtures("every_step")
def test_a_stage_that_does_not_measure_waiting_logs_no_share(tmp_path):
    stage = Line()
    del stage.waited_s
    stage.loss = lambda step: (stage.model(torch.ones(1, 3)).sum() + 0 * step, {})
    train(stage, settings(), tmp_path, seed=0)
    assert all("data_wait_share" not in line for line in lines_of(tmp_path))


def test_the_loss_by_noise_level_is_the_mean_over_each_quarter_of_timesteps():
    error = torch.tensor([1.0, 3.0, 5.0, 7.0, 100.0])
    timesteps, weight = torch.tensor([0, 249, 250, 999, 999]), torch.tensor([1.0, 1, 1, 1, 0])
    assert loss_by_noise_level(error, timesteps, weight) == {
        "denoising_t0": 2.0, "denoising_t1": 5.0, "denoising_t3": 7.0,
    }  # fmt: skip


class FakeTracker(ModuleType):
    """The functions of trackio and wandb that are used."""

    def __init__(self, name):
        super().__init__(name)
        self.__spec__ = importlib.util.spec_from_loader(name, None)
        self.calls = []

    def init(self, *, project, name, config, **options):
        self.calls.append(("init", project, name, config["steps"], options))

    def log(self, data, *, step):
        self.calls.append(("log", data, step))

    def finish(self):
        self.calls.append(("finish",))


@pytest.mark.usefixtures("every_step")
@pytest.mark.parametrize("name", ["trackio", "wandb"])
def test_trackers_get_every_line_of_the_log_and_are_closed(tmp_path, monkeypatch, name):
    tracker = FakeTracker(name)
    monkeypatch.setitem(sys.modules, name, tracker)
    train(Line(), settings(log_to=[name]), tmp_path / "run" / "line", seed=0)
    first, *logged, last = tracker.calls
    assert first[:4] == ("init", "likeness", "run-line", 10)
    assert last == ("finish",)
    lines = lines_of(tmp_path / "run" / "line")
    assert [(step, data["loss"]) for _, data, step in logged[:-1]] == [
        (line["step"], line["loss"]) for line in lines[:-1]
    ]
    assert logged[-1] == ("log", {"weight": 1.0}, 10)
    if name == "wandb":  # A continued run goes on in the same record.
        tracker.calls.clear()
        with log_writers.open_writers(settings(log_to=[name]), tmp_path / "run" / "line", first_step=10):
            pass
        assert tracker.calls[0][4]["id"] == first[4]["id"]


def test_a_tracker_is_closed_where_the_run_is_interrupted(tmp_path, monkeypatch):
    tracker = FakeTracker("trackio")
    monkeypatch.setitem(sys.modules, "trackio", tracker)
    with pytest.raises(InterruptedRunError):
        train(Line(), settings(log_to=["trackio"]), tmp_path, seed=0, stop_after_steps=2)
    assert tracker.calls[-1] == ("finish",)


@pytest.mark.usefixtures("every_step")
def test_tensorboard_reads_what_was_logged(tmp_path):
    pytest.importorskip("tensorboard")
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    with pytest.raises(InterruptedRunError):
        train(Line(), settings(log_to=["tensorboard"]), tmp_path, seed=0, stop_after_steps=4)
    train(Line(), settings(log_to=["tensorboard"]), tmp_path, seed=0)
    events = EventAccumulator(str(tmp_path / "tensorboard")).Reload().Scalars("loss")
    lines = [line for line in lines_of(tmp_path) if "loss" in line]
    assert [event.step for event in events] == [line["step"] for line in lines] == list(range(1, 11))
    assert [event.value for event in events] == pytest.approx([line["loss"] for line in lines])


def test_a_tracker_that_is_not_installed_is_refused_before_anything_starts(tmp_path, monkeypatch):
    monkeypatch.setattr(log_writers.importlib.util, "find_spec", lambda _: None)
    with pytest.raises(ConfigError, match=r"`log_to` names wandb.*pip install 'likeness\[wandb\]'"):
        log_writers.check_installed(["wandb"])
    with pytest.raises(ConfigError, match="tensorboard"):
        train(Line(), settings(log_to=["tensorboard"]), tmp_path, seed=0)
    from likeness.training import recipes

    small = {"kind": "images", "count": 4, "people": 4, "size_px": 32}
    stage = {"name": "a", "data": "images", "batch": 4, "steps": 10, "log_to": ["trackio"]}
    clips = small | {"kind": "clips"}
    recipe = recipes.build(
        {"kind": "vae", "images": small, "clips": clips, "validation": small, "stages": [stage]}, where="test"
    )
    with pytest.raises(ConfigError, match="trackio"):
        estimate.check_resources(recipe, tmp_path / "cache", processes=1)
    assert not (tmp_path / "cache").exists()


def test_where_a_run_is_logged_may_change_between_sessions(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "trackio", FakeTracker("trackio"))
    with pytest.raises(InterruptedRunError):
        train(Line(), settings(), tmp_path, seed=0, stop_after_steps=2)
    train(Line(), settings(log_to=["trackio"]), tmp_path, seed=0)
