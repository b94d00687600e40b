"""The training loop: one function, one stage at a time, resumable bit by bit.

Everything random in a step comes from a seed made of the run's seed and the step, and rows come from `data.Order`,
so that a run stopped at any moment repeats from its last checkpoint what an undisturbed one does.
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
from likeness.training.engine.logging import Journal, draw_curves
from likeness.training.engine.optimizers import MovingAverage, Optimizers, OptimizerSettings

_LOG = logging.getLogger(__name__)

ADJUSTABLE = ("checkpoint_minutes", "checkpoint_steps", "sheet_minutes")
"""Settings of a stage that may change while it runs: no weight follows from them."""
LENGTHS = ("steps", "minutes")
"""Settings of a stage that say when it ends: a run may be made longer."""
FINISHED = "finished.safetensors"
"""In a stage's folder: what it ended with."""
_RESERVED = {"model", "sheets", "checkpoints", "cache"}


class LoopSettings(Settings):
    """How long a stage runs and what it leaves on the way. Stages inherit from this."""

    name: str
    """Folder of the stage below the run's: letters, digits, `_` and `-`."""
    steps: int | None = Field(default=None, gt=0)
    """Stop after so many optimizer steps."""
    minutes: float | None = Field(default=None, gt=0)
    """Stop after so many minutes of training; whichever comes first of the two."""
    batch: int = Field(default=32, gt=0)
    """Samples in a step."""
    optimizer: OptimizerSettings = Field(default_factory=OptimizerSettings)
    checkpoint_minutes: float = Field(default=2.0, gt=0)
    """Minutes between checkpoints."""
    checkpoint_steps: int | None = Field(default=None, gt=0)
    """Steps between checkpoints, beside the minutes."""
    sheet_minutes: float = Field(default=4.0, gt=0)
    """Minutes between sample sheets."""

    @field_validator("name")
    @classmethod
    def _is_a_folder_name(cls, name: str) -> str:
        if not re.fullmatch(r"[A-Za-z0-9][A-Za-z0-9_-]{0,99}", name) or name.lower() in _RESERVED:
            raise ValueError(
                f"a stage's name becomes a folder: give it letters, digits, `_` and `-`, at most 100, and none of "
                f"{', '.join(sorted(_RESERVED))}"
            )
        return name

    @model_validator(mode="after")
    def _ends(self) -> "LoopSettings":
        if self.steps is None and self.minutes is None:
            raise ValueError(f"stage `{self.name}` would never end: give it `steps`, `minutes` or both")
        return self


class Stage(Protocol):
    """What the loop trains."""

    modules: dict[str, nn.Module]
    """Everything with parameters that learn, by name."""

    def loss(self, step: int) -> tuple[Tensor, dict[str, float]]:
        """The loss of one step and figures to report."""
        ...

    def sheet(self, path: Path) -> dict[str, float]:
        """Write a image of what the averaged weights do and return figures measured on validation data."""
        ...


class InterruptedRunError(LikenessError):
    """The run was asked to stop, and has saved itself."""

    exit_code = 130


class Run:
    """The moving parts of one stage and how they are saved."""

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
            "processes": distributed.world(),
        }
        checkpoints.save(self.folder / "checkpoints", self.step, tensors, state)

    def resume(self) -> bool:
        """Take up the newest checkpoint, if there is one.

        Raises:
            CheckpointError: It is damaged, or of other settings, another seed or another model.
        """
        found = checkpoints.complete(self.folder / "checkpoints")
        if not found:
            return False
        tensors, state = checkpoints.load(found[-1])
        try:
            self._compare(state)
            for name, module in self.stage.modules.items():
                checkpoints.load_module(module, tensors[f"model.{name}"], where=str(self.folder))
            for name, part in self.optimizers.parts.items():
                checkpoints.unpack_optimizer(part, tensors[f"optimizer.{name}"])
            self.average.unpack(tensors["average"])
            self.step, self.elapsed_s = int(state["step"]), float(state["elapsed_s"])
        except (KeyError, TypeError, ValueError) as error:
            reason = f"{error.args[0]} is missing" if isinstance(error, KeyError) else error
            raise checkpoints.damaged(found[-1], reason) from error
        return True

    def _compare(self, state: dict[str, Any]) -> None:
        """Refuse a checkpoint that an undisturbed run of these settings would not have come by."""
        if state["seed"] != self.seed:
            raise CheckpointError(
                f"{self.folder} was begun with seed {state['seed']}, the recipe now says {self.seed}. "
                "Use the same seed, or another `--output`."
            )
        try:  # Settings that came with a later version have their defaults, as they had then.
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
                f"{self.folder} was begun with other settings: {'; '.join(changed)}. Use the same, or another `--output`."
            )
        auto = str(choose_training_dtype("auto"))
        if state.get("auto_dtype", auto) != auto:
            _LOG.warning(
                "%s was begun on a processor on which `auto` is %s; here it is %s. Say `dtype` in the recipe to keep one.",
                self.folder,
                state["auto_dtype"],
                auto,
            )
        if state.get("processes", distributed.world()) != distributed.world():
            _LOG.warning(
                "%s was begun with %s processes and goes on with %s: samples come in another order than in an undisturbed "
                "run. Use `--processes` to keep their number.",
                self.folder,
                state["processes"],
                distributed.world(),
            )

    @property
    def progress(self) -> float:
        return progress_of(self.settings, self.step, self.elapsed_s)

    def sheet(self, journal: Journal) -> None:
        if distributed.rank():
            return
        self.average.swap()
        torch.manual_seed(self.seed)
        with torch.no_grad():
            figures = self.stage.sheet(self.folder / "sheets" / f"step_{self.step:08d}.png")
        self.average.swap()
        journal.write({"step": self.step, **figures})
        told = "  ".join(f"{name} {value:.4g}" for name, value in figures.items())
        journal.say(f"{self.settings.name}  step {self.step}  sheet written  {told}")


def progress_of(settings: LoopSettings, step: int, elapsed_s: float) -> float:
    """The share of a stage that is done after so many steps and seconds; 1 or more where it has ended."""
    shares = [0.0]
    if settings.steps is not None:
        shares.append(step / settings.steps)
    if settings.minutes is not None:
        shares.append(elapsed_s / 60 / settings.minutes)
    return max(shares)


def train(stage: Stage, settings: LoopSettings, folder: Path, *, seed: int, after_steps: int | None = None) -> None:
    """Train one stage to its end, from its last checkpoint if there is one; the averaged weights stay in the modules.

    Args:
        stage: What is trained.
        settings: How long and how.
        folder: Checkpoints, sheets, log and curves go here.
        seed: Of everything random.
        after_steps: Stop early, saved, as if interrupted (for tests).

    Raises:
        InterruptedRunError: It was asked to stop, and has saved itself.
        DivergedError: A loss, gradient or weight is not finite; the last checkpoint stays.
        CheckpointError: There is a checkpoint that cannot be gone on from.
    """
    run, journal = Run(stage, settings, folder, seed), Journal(folder, settings.name)
    if distributed.rank() == 0:
        files.remove_stale_temporaries(folder / "checkpoints")
    distributed.wait()
    resumed = run.resume()
    journal.forget_after(run.step)  # All of it, where an earlier run was killed before its first checkpoint.
    if resumed:
        journal.say(f"{settings.name}: going on from step {run.step}")
    (folder / "sheets").mkdir(parents=True, exist_ok=True)
    with _asked_to_stop() as asked:
        _go(run, journal, asked, after_steps)
    run.save()
    run.sheet(journal)
    run.average.swap()
    if distributed.rank() == 0:
        draw_curves(journal.path, folder / "curves.png")


def finish(folder: Path, modules: dict[str, nn.Module]) -> None:
    """Keep what a stage ended with, in float32, and mark it as done.

    Raises:
        DivergedError: A number of it is not finite.
    """
    if distributed.rank():  # Processes must not write one file together.
        return
    tensors = {f"{prefix}.{name}": v.clone() for prefix, m in modules.items() for name, v in m.state_dict().items()}
    checkpoints.check_finite(tensors.items(), f"What {folder} ended with is not kept")
    with files.write_atomically(folder / FINISHED) as draft:
        save_file(tensors, draft)


def finished(folder: Path, modules: dict[str, nn.Module]) -> bool:
    """Load what a stage ended with, if it has ended.

    Raises:
        CheckpointError: It is damaged, or of another model.
    """
    distributed.wait()
    path = folder / FINISHED
    if not path.exists():
        return False
    try:
        tensors = load_file(path)
    except (OSError, SafetensorError) as error:
        raise CheckpointError(_damaged(path, error)) from error
    if broken := checkpoints.first_not_finite(tensors.items()):
        raise CheckpointError(_damaged(path, f"`{broken}` holds numbers that are not finite"))
    for prefix, module in modules.items():
        part = {name.removeprefix(f"{prefix}."): v for name, v in tensors.items() if name.startswith(f"{prefix}.")}
        checkpoints.load_module(module, part, where=str(folder))
    return True


def _go(run: Run, journal: Journal, asked: list[int], after_steps: int | None) -> None:
    settings = run.settings
    saved_s = sheet_s = run.elapsed_s
    began_s = time.monotonic()
    while run.progress < 1:
        torch.manual_seed((run.seed * 1_000_003 + run.step * distributed.world() + distributed.rank()) % (1 << 62))
        loss, figures = run.stage.loss(run.step)
        if not math.isfinite(float(loss.detach())):
            raise DivergedError(_diverged(run, f"the loss is {float(loss.detach())}"))
        loss.backward()
        now_s = time.monotonic()  # Sheets and checkpoints count: `minutes` are minutes on the wall.
        told = [run.elapsed_s + now_s - began_s, float(bool(asked))]
        elapsed_s, stopping = distributed.average(run.optimizers.gradients(), told)
        norm = run.optimizers.step(step=run.step, progress=run.progress)
        if not math.isfinite(norm):  # Nothing was updated. Averaged gradients are the same in every process.
            raise DivergedError(_diverged(run, f"the norm of the gradients is {norm}"))
        run.average.update(run.step)
        run.step, run.elapsed_s, began_s = run.step + 1, elapsed_s, now_s
        left_s = run.elapsed_s / max(run.progress, 1e-9) * (1 - run.progress)
        figures = {"loss": float(loss.detach()), "grad_norm": norm, **figures}
        journal.add(run.step, figures, samples=settings.batch, elapsed_s=run.elapsed_s, left_s=left_s)
        due = settings.checkpoint_steps is not None and run.step % settings.checkpoint_steps == 0
        if due or run.elapsed_s - saved_s > 60 * settings.checkpoint_minutes:
            run.save()
            saved_s = run.elapsed_s
        if run.elapsed_s - sheet_s > 60 * settings.sheet_minutes:
            run.sheet(journal)
            sheet_s = run.elapsed_s
        if stopping or run.step == after_steps:
            run.save()
            raise InterruptedRunError(f"Stopped at step {run.step} and saved. The same command goes on from here.")


def _diverged(run: Run, reason: str) -> str:
    kept = checkpoints.complete(run.folder / "checkpoints")
    rest = f"{kept[-1]} is the last checkpoint" if kept else "there is no checkpoint"
    return (
        f"Training of {run.folder} has diverged at step {run.step}: {reason}. Nothing of this step is kept; {rest}. "
        "Lower `optimizer.learning_rate` or lengthen `optimizer.warmup_steps`, and begin the stage anew with another `--output`."
    )


def _damaged(path: Path, reason: object) -> str:
    return f"{path} cannot be read ({reason}). Delete this file: the stage then ends again, from its last checkpoint."


@contextmanager
def _asked_to_stop() -> Iterator[list[int]]:
    """Collect Ctrl-C and SIGTERM instead of dying of them in the middle of a step."""
    asked: list[int] = []

    def note(number: int, frame: FrameType | None) -> None:
        del frame
        if asked:  # A second one means now.
            raise KeyboardInterrupt
        asked.append(number)

    before = {number: signal.signal(number, note) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield asked
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
