"""Settings of the training loop, and what the loop needs of a stage."""

import re
from collections.abc import Generator
from pathlib import Path
from typing import Protocol

from pydantic import Field, field_validator, model_validator
from torch import Tensor, nn

from likeness.config import Settings
from likeness.training.engine.log_writers import LogTarget
from likeness.training.engine.optimizers import OptimizerSettings
from likeness.training.engine.parallel import Parallel

ADJUSTABLE_SETTINGS = (
    "checkpoint_minutes",
    "checkpoint_steps",
    "keep_checkpoints",
    "sheet_minutes",
    "parallel",
    "workers",
    "log_to",
)
"""Settings of a stage that may change between sessions, because weights do not depend on them."""
LENGTH_SETTINGS = ("steps", "minutes", "samples")
"""Settings of the length of a stage, which may be increased."""
_RESERVED_FOLDERS = {"model", "sheets", "checkpoints", "cache"}


class LoopSettings(Settings):
    """Length, batch size, optimizer and checkpoints of a stage; base class of all stage settings."""

    name: str
    """Name of the stage's folder in the run's: letters, digits, `_` and `-`."""
    steps: int | None = Field(default=None, gt=0)
    """Number of optimizer steps."""
    minutes: float | None = Field(default=None, gt=0)
    """Minutes of training. The first of `steps`, `minutes` and `samples` that is reached ends the stage."""
    samples: int | None = Field(default=None, gt=0)
    """Number of samples, `batch` of them per step."""
    batch: int = Field(default=32, gt=0)
    """Samples per optimizer step, over all processes and micro-batches."""
    accumulation: int = Field(default=1, ge=1)
    """Micro-batches per optimizer step; divides `batch`."""
    parallel: Parallel = "ddp"
    """How several processes share the work: `ddp` replicates, `fsdp2` shards weights, gradients and moments."""
    workers: int = Field(default=2, ge=0)
    """Threads that read the next batches of data from files; 0 to read them when they are needed."""
    optimizer: OptimizerSettings = Field(default_factory=OptimizerSettings)
    checkpoint_minutes: float = Field(default=2.0, gt=0)
    """Minutes between checkpoints; more if writing would take over 2 % of the time."""
    checkpoint_steps: int | None = Field(default=None, gt=0)
    """Steps between checkpoints, in addition to the minutes."""
    keep_checkpoints: int = Field(default=2, ge=1)
    """Number of checkpoints that are kept."""
    sheet_minutes: float = Field(default=4.0, gt=0)
    """Minutes between sample sheets."""
    log_to: tuple[LogTarget, ...] = ()
    """Trackers that get the metrics in addition to `log.jsonl`: tensorboard, trackio, wandb (extras of those names)."""

    @property
    def micro_batch(self) -> int:
        """Samples of one micro-batch, over all processes."""
        return self.batch // self.accumulation

    @field_validator("name")
    @classmethod
    def _is_a_folder_name(cls, name: str) -> str:
        if not re.fullmatch(r"[A-Za-z0-9][A-Za-z0-9_-]{0,99}", name) or name.lower() in _RESERVED_FOLDERS:
            raise ValueError(
                "the name of a stage becomes a folder: use letters, digits, `_` and `-`, at most 100, and none of "
                f"{', '.join(sorted(_RESERVED_FOLDERS))}"
            )
        return name

    @model_validator(mode="after")
    def _check_length(self) -> "LoopSettings":
        if self.steps is None and self.minutes is None and self.samples is None:
            raise ValueError(f"stage `{self.name}` would never end: give it `steps`, `minutes` or `samples`")
        if self.batch % self.accumulation:
            raise ValueError(
                f"stage `{self.name}` has a batch of {self.batch}, which {self.accumulation} micro-batches do not "
                "divide: change `batch` or `accumulation`"
            )
        return self


class Stage(Protocol):
    """What the loop needs of a stage."""

    modules: dict[str, nn.Module]
    """The modules with trained parameters, by name in checkpoints."""

    def loss(self, step: int) -> tuple[Tensor, dict[str, float]]:
        """The loss of one micro-batch, and metrics to log; the mean over all processes is the loss of the whole.

        `step` counts micro-batches. All processes begin with the same random numbers (`distributed.seed_by_rank`).
        """
        ...

    def validate(self, path: Path) -> dict[str, float]:
        """Write a sample sheet with the averaged weights; returns metrics on validation data.

        A stage may have `validation_parts(path)` too: a generator that does the same in parts, so that training goes on
        between them, and returns the metrics.
        """
        ...


def run_validation_parts(parts: Generator[None, None, dict[str, float]]) -> dict[str, float]:
    """Run all parts of a validation; returns its metrics."""
    while True:
        try:
            next(parts)
        except StopIteration as end:
            return end.value


def compute_progress(settings: LoopSettings, step: int, elapsed_s: float) -> float:
    """The completed share of a stage after `step` steps and `elapsed_s` seconds; 1 or more at its end."""
    shares = [0.0]
    if settings.steps is not None:
        shares.append(step / settings.steps)
    if settings.samples is not None:
        shares.append(step * settings.batch / settings.samples)
    if settings.minutes is not None:
        shares.append(elapsed_s / 60 / settings.minutes)
    return max(shares)
