"""The training loop: one stage at a time, with bit-exact resume.

All random numbers of a step follow from the run's seed and the step, and rows from `data.datasets.EpochSampler`, so a
run that continues from a checkpoint repeats exactly what an uninterrupted one computes.
"""

import logging
import math
import re
import signal
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from types import FrameType
from typing import Any, Protocol

import torch
from pydantic import Field, ValidationError, field_validator, model_validator
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from likeness import files
from likeness.config import Settings
from likeness.errors import CheckpointError, LikenessError
from likeness.runtime import choose_training_dtype
from likeness.training.engine import checkpoints, distributed
from likeness.training.engine.checkpoints import DivergedError
from likeness.training.engine.logging import TrainingLogger, draw_curves
from likeness.training.engine.optimizers import MovingAverage, Optimizers, OptimizerSettings

_LOG = logging.getLogger(__name__)

ADJUSTABLE = ("checkpoint_minutes", "checkpoint_steps", "sheet_minutes")
"""Settings of a stage that may change between sessions, because weights do not depend on them."""
LENGTHS = ("steps", "minutes")
"""Settings of the length of a stage, which may be increased."""
FINISHED = "finished.safetensors"
"""File in a stage's folder with the weights at its end."""
_RESERVED = {"model", "sheets", "checkpoints", "cache"}


class LoopSettings(Settings):
    """Length, batch size, optimizer and checkpoints of a stage; base class of all stage settings."""

    name: str
    """Name of the stage's folder in the run's: letters, digits, `_` and `-`."""
    steps: int | None = Field(default=None, gt=0)
    """Number of optimizer steps."""
    minutes: float | None = Field(default=None, gt=0)
    """Minutes of training; with `steps` whichever comes first."""
    batch: int = Field(default=32, gt=0)
    """Samples per step, over all processes."""
    optimizer: OptimizerSettings = Field(default_factory=OptimizerSettings)
    checkpoint_minutes: float = Field(default=2.0, gt=0)
    """Minutes between checkpoints."""
    checkpoint_steps: int | None = Field(default=None, gt=0)
    """Steps between checkpoints, in addition to the minutes."""
    sheet_minutes: float = Field(default=4.0, gt=0)
    """Minutes between sample sheets."""

    @field_validator("name")
    @classmethod
    def _is_a_folder_name(cls, name: str) -> str:
        if not re.fullmatch(r"[A-Za-z0-9][A-Za-z0-9_-]{0,99}", name) or name.lower() in _RESERVED:
            raise ValueError(
                "the name of a stage becomes a folder: use letters, digits, `_` and `-`, at most 100, and none of "
                f"{', '.join(sorted(_RESERVED))}"
            )
        return name

    @model_validator(mode="after")
    def _ends(self) -> "LoopSettings":
        if self.steps is None and self.minutes is None:
            raise ValueError(f"stage `{self.name}` would never end: give it `steps`, `minutes` or both")
        return self


class Stage(Protocol):
    """What the loop needs of a stage."""

    modules: dict[str, nn.Module]
    """The modules with trained parameters, by name in checkpoints."""

    def loss(self, step: int) -> tuple[Tensor, dict[str, float]]:
        """The loss of one step, and metrics to log."""
        ...

    def validate(self, path: Path) -> dict[str, float]:
        """Write a sample sheet with the averaged weights; returns metrics on validation data."""
        ...


class InterruptedRunError(LikenessError):
    """The run was interrupted after saving a checkpoint."""

    exit_code = 130


class StageState:
    """The mutable state of one stage, and its checkpoints."""

    def __init__(self, stage: Stage, settings: LoopSettings, folder: Path, seed: int) -> None:
        self.stage, self.settings, self.folder, self.seed = stage, settings, folder, seed
        self.optimizers = Optimizers(stage.modules, settings.optimizer)
        self.average = MovingAverage(stage.modules, settings.optimizer.ema)
        self.step, self.elapsed_s = 0, 0.0

    def save(self) -> None:
        if distributed.rank():
            return
        tensors = {f"model.{name}": module.state_dict() for name, module in self.stage.modules.items()}
        tensors |= {f"optimizer.{n}": checkpoints.pack_optimizer(part) for n, part in self.optimizers.parts.items()}
        tensors["average"] = self.average.pack()
        # Tied weights are the same memory under two names, which safetensors refuses.
        tensors = {name: {key: value.clone() for key, value in group.items()} for name, group in tensors.items()}
        state = {
            "elapsed_s": self.elapsed_s,
            "settings": self.settings.model_dump(mode="json"),
            "seed": self.seed,
            "auto_dtype": str(choose_training_dtype("auto")),
            "processes": distributed.world_size(),
        }
        checkpoints.save(self.folder / "checkpoints", self.step, tensors, state)

    def resume(self) -> bool:
        """Load the newest checkpoint; returns whether there is one.

        Raises:
            CheckpointError: It is damaged, or of other settings, another seed or another model.
        """
        paths = checkpoints.complete(self.folder / "checkpoints")
        if not paths:
            return False
        tensors, state = checkpoints.load(paths[-1])
        try:
            self._check_settings(state)
            for name, module in self.stage.modules.items():
                checkpoints.load_module(module, tensors[f"model.{name}"], where=str(self.folder))
            for name, part in self.optimizers.parts.items():
                checkpoints.unpack_optimizer(part, tensors[f"optimizer.{name}"])
            self.average.unpack(tensors["average"])
            self.step, self.elapsed_s = int(state["step"]), float(state["elapsed_s"])
        except (KeyError, TypeError, ValueError) as error:
            reason = f"{error.args[0]} is missing" if isinstance(error, KeyError) else error
            raise checkpoints.damaged(paths[-1], reason) from error
        return True

    def _check_settings(self, state: dict[str, Any]) -> None:
        """Refuse a checkpoint of another seed or other settings; warn of another dtype or number of processes."""
        if state["seed"] != self.seed:
            raise CheckpointError(
                f"{self.folder} was started with seed {state['seed']}, the recipe now has {self.seed}. "
                "Use the same seed, or another `--output`."
            )
        try:  # Settings that were added by a later version get their defaults.
            before = type(self.settings).model_validate(state["settings"]).model_dump(mode="json")
        except ValidationError:
            before = state["settings"]
        changed = [
            f"{name} {before.get(name)} -> {value}"
            for name, value in self.settings.model_dump(mode="json").items()
            if before.get(name) != value and name not in (*ADJUSTABLE, *LENGTHS)
        ]
        if changed:
            raise CheckpointError(
                f"{self.folder} was started with other settings: {'; '.join(changed)}. Use the same, or another "
                "`--output`."
            )
        auto = str(choose_training_dtype("auto"))
        if state.get("auto_dtype", auto) != auto:
            _LOG.warning(
                "%s was started on a processor on which `auto` is %s; here it is %s. Set `dtype` in the recipe.",
                self.folder,
                state["auto_dtype"],
                auto,
            )
        if state.get("processes", distributed.world_size()) != distributed.world_size():
            _LOG.warning(
                "%s was started with %s processes and continues with %s: the order of samples differs from that of an "
                "uninterrupted run. Use `--processes` to keep their number.",
                self.folder,
                state["processes"],
                distributed.world_size(),
            )

    @property
    def progress(self) -> float:
        return progress_of(self.settings, self.step, self.elapsed_s)

    def validate(self, logger: TrainingLogger) -> None:
        """Write a sample sheet with the averaged weights, and log its metrics."""
        if distributed.rank():
            return
        self.average.swap()
        torch.manual_seed(self.seed)
        with torch.no_grad():
            metrics = self.stage.validate(self.folder / "sheets" / f"step_{self.step:08d}.png")
        self.average.swap()
        logger.write({"step": self.step, **metrics})
        text = "  ".join(f"{name} {value:.4g}" for name, value in metrics.items())
        logger.info(f"{self.settings.name}  step {self.step}  sheet written  {text}")


def progress_of(settings: LoopSettings, step: int, elapsed_s: float) -> float:
    """The completed share of a stage after `step` steps and `elapsed_s` seconds; 1 or more at its end."""
    shares = [0.0]
    if settings.steps is not None:
        shares.append(step / settings.steps)
    if settings.minutes is not None:
        shares.append(elapsed_s / 60 / settings.minutes)
    return max(shares)


def train(stage: Stage, settings: LoopSettings, folder: Path, *, seed: int, after_steps: int | None = None) -> None:
    """Train one stage to its end, from its last checkpoint if there is one; modules end with the averaged weights.

    Args:
        stage: What is trained.
        settings: Of the stage.
        folder: Checkpoints, sheets, log and curves are written here.
        seed: Of all random numbers.
        after_steps: Stop early as if interrupted (for tests).

    Raises:
        InterruptedRunError: It was interrupted; a checkpoint was saved.
        DivergedError: A loss, gradient or weight is not finite; the last checkpoint remains.
        CheckpointError: There is a checkpoint that it cannot continue from.
    """
    state, logger = StageState(stage, settings, folder, seed), TrainingLogger(folder, settings.name)
    if distributed.rank() == 0:
        files.remove_stale_temporaries(folder / "checkpoints")
    distributed.barrier()
    has_resumed = state.resume()
    logger.drop_after(state.step)  # All lines if an earlier run was killed before its first checkpoint.
    if has_resumed:
        logger.info(f"{settings.name}: continuing from step {state.step}")
    (folder / "sheets").mkdir(parents=True, exist_ok=True)
    with _catch_stop_signals() as signals:
        _train_steps(state, logger, signals, after_steps)
    state.save()
    state.validate(logger)
    state.average.swap()
    if distributed.rank() == 0:
        draw_curves(logger.path, folder / "curves.png")


def save_finished(folder: Path, modules: dict[str, nn.Module]) -> None:
    """Save the final weights of a stage in float32, which marks it as done.

    Raises:
        DivergedError: A number is not finite.
    """
    if distributed.rank():  # Only one process may write the file.
        return
    tensors = {f"{prefix}.{name}": v.clone() for prefix, m in modules.items() for name, v in m.state_dict().items()}
    checkpoints.check_finite(tensors.items(), f"The final weights of {folder} are not written")
    with files.write_atomically(folder / FINISHED) as draft:
        save_file(tensors, draft)


def load_finished(folder: Path, modules: dict[str, nn.Module]) -> bool:
    """Load the final weights of a stage; returns whether it is done.

    Raises:
        CheckpointError: The file is damaged, or of another model.
    """
    distributed.barrier()
    path = folder / FINISHED
    if not path.exists():
        return False
    try:
        tensors = load_file(path)
    except (OSError, SafetensorError) as error:
        raise CheckpointError(_damaged(path, error)) from error
    if broken := checkpoints.first_not_finite(tensors.items()):
        raise CheckpointError(_damaged(path, f"`{broken}` has numbers that are not finite"))
    for prefix, module in modules.items():
        part = {name.removeprefix(f"{prefix}."): v for name, v in tensors.items() if name.startswith(f"{prefix}.")}
        checkpoints.load_module(module, part, where=str(folder))
    return True


def _train_steps(state: StageState, logger: TrainingLogger, signals: list[int], after_steps: int | None) -> None:
    settings = state.settings
    last_save_s = last_validation_s = state.elapsed_s
    last_step_s = time.monotonic()
    world_size, rank = distributed.world_size(), distributed.rank()
    while state.progress < 1:
        torch.manual_seed((state.seed * 1_000_003 + state.step * world_size + rank) % (1 << 62))
        loss, metrics = state.stage.loss(state.step)
        if not math.isfinite(float(loss.detach())):
            raise DivergedError(_diverged(state, f"the loss is {float(loss.detach())}"))
        loss.backward()
        # Time includes sheets and checkpoints: `minutes` is wall time.
        now_s = time.monotonic()
        gradients = state.optimizers.gradients()
        elapsed_s, is_stopping = distributed.broadcast_stop(
            state.elapsed_s + now_s - last_step_s, is_stopping=bool(signals)
        )
        distributed.sync_gradients(gradients)
        norm = state.optimizers.step(step=state.step, progress=state.progress)
        if not math.isfinite(norm):  # Nothing was updated. Averaged gradients are the same in all processes.
            raise DivergedError(_diverged(state, f"the norm of the gradients is {norm}"))
        state.average.update(state.step)
        state.step, state.elapsed_s, last_step_s = state.step + 1, elapsed_s, now_s
        remaining_s = state.elapsed_s / max(state.progress, 1e-9) * (1 - state.progress)
        metrics = {"loss": float(loss.detach()), "grad_norm": norm, **metrics}
        logger.log_step(state.step, metrics, samples=settings.batch, elapsed_s=state.elapsed_s, remaining_s=remaining_s)
        is_due = settings.checkpoint_steps is not None and state.step % settings.checkpoint_steps == 0
        if is_due or state.elapsed_s - last_save_s > 60 * settings.checkpoint_minutes:
            state.save()
            last_save_s = state.elapsed_s
        if state.elapsed_s - last_validation_s > 60 * settings.sheet_minutes:
            state.validate(logger)
            last_validation_s = state.elapsed_s
        if is_stopping or state.step == after_steps:
            state.save()
            raise InterruptedRunError(f"Stopped at step {state.step} and saved. The same command continues from here.")


def _diverged(state: StageState, reason: str) -> str:
    saved = checkpoints.complete(state.folder / "checkpoints")
    rest = f"{saved[-1]} is the last checkpoint" if saved else "there is no checkpoint"
    return (
        f"Training of {state.folder} has diverged at step {state.step}: {reason}. Nothing of it was saved; {rest}. "
        "Lower `optimizer.learning_rate` or lengthen `optimizer.warmup_steps`, and start the stage again with another "
        "`--output`."
    )


def _damaged(path: Path, reason: object) -> str:
    return f"{path} cannot be read ({reason}). Delete this file: the stage then ends again, from its last checkpoint."


@contextmanager
def _catch_stop_signals() -> Iterator[list[int]]:
    """Collect SIGINT and SIGTERM in a list instead of stopping in the middle of a step."""
    signals: list[int] = []

    def handle(number: int, frame: FrameType | None) -> None:
        del frame
        if signals:  # The second signal stops at once.
            raise KeyboardInterrupt
        signals.append(number)

    before = {number: signal.signal(number, handle) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield signals
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
