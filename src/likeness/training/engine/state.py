"""The mutable state of one stage: optimizers, moving average, progress, and their checkpoints."""

import logging
import time
from collections.abc import Generator, Iterator
from pathlib import Path
from typing import Any

import torch
from pydantic import ValidationError
from torch import Tensor

from likeness.errors import CheckpointError
from likeness.runtime import choose_training_dtype
from likeness.training.engine import checkpoints, distributed
from likeness.training.engine.optimizers import MovingAverage, Optimizers
from likeness.training.engine.parallel import ParallelLoss
from likeness.training.engine.settings import (
    ADJUSTABLE_SETTINGS,
    LENGTH_SETTINGS,
    LoopSettings,
    Stage,
    compute_progress,
)

_LOG = logging.getLogger(__name__)

MAX_CHECKPOINT_TIME_SHARE = 0.02
"""Largest share of the training time that is spent on writing checkpoints; the interval grows accordingly."""


class StageState:
    """The mutable state of one stage, and its checkpoints."""

    def __init__(self, stage: Stage, settings: LoopSettings, folder: Path, seed: int) -> None:
        self.stage, self.settings, self.folder, self.seed = stage, settings, folder, seed
        self.parallel = ParallelLoss(stage, settings.parallel)  # Before the optimizers: FSDP2 replaces parameters.
        self.optimizers = Optimizers(stage.modules, settings.optimizer)
        self.average = MovingAverage(stage.modules, settings.optimizer.ema)
        self.step, self.elapsed_s = 0, 0.0
        self.saved_at_s, self.last_save_duration_s = 0.0, 0.0

    @property
    def progress(self) -> float:
        return compute_progress(self.settings, self.step, self.elapsed_s)

    def save_if_due(self) -> None:
        """Save at the interval of the settings, less often if writing takes more than 2 % of the time."""
        settings = self.settings
        interval_s = max(60 * settings.checkpoint_minutes, self.last_save_duration_s / MAX_CHECKPOINT_TIME_SHARE)
        is_due = settings.checkpoint_steps is not None and self.step % settings.checkpoint_steps == 0
        if is_due or self.elapsed_s - self.saved_at_s > interval_s:
            self.save()

    def save(self) -> None:
        """Write a checkpoint of everything that training changes. All processes have to call it."""
        begun_s = time.monotonic()
        state = {
            "elapsed_s": self.elapsed_s,
            "settings": self.settings.model_dump(mode="json"),
            "seed": self.seed,
            "auto_dtype": str(choose_training_dtype("auto")),
            "processes": distributed.world_size(),
            "parallel": self.settings.parallel,
        }
        if distributed.rank() == 0:
            checkpoints.save(
                self.folder / "checkpoints",
                self.step,
                self._tensors_by_file(),
                state,
                keep=self.settings.keep_checkpoints,
            )
        else:  # Gathering sharded tensors needs all processes.
            for _ in self._tensors_by_file():
                pass
        self.saved_at_s = self.elapsed_s
        self.last_save_duration_s = distributed.broadcast_scalar(time.monotonic() - begun_s)

    def _tensors_by_file(self) -> Iterator[tuple[str, dict[str, Tensor]]]:
        """Files of a checkpoint, one at a time: a model of 5B parameters does not fit twice."""
        for name, module in self.stage.modules.items():
            yield f"model.{name}", checkpoints.pack_module(module)
        for name, optimizer in self.optimizers.optimizers.items():
            yield f"optimizer.{name}", checkpoints.pack_optimizer(optimizer)
        yield "average", self.average.pack()

    def resume(self) -> bool:
        """Load the newest checkpoint; returns whether there is one.

        Raises:
            CheckpointError: It is damaged, or of other settings, another seed or another model.
        """
        paths = checkpoints.list_checkpoints(self.folder / "checkpoints")
        if not paths:
            return False
        tensors, state = checkpoints.load(paths[-1])
        try:
            self._check_settings(state)
            for name, module in self.stage.modules.items():
                checkpoints.load_module(module, tensors[f"model.{name}"], where=str(self.folder))
            for name, optimizer in self.optimizers.optimizers.items():
                checkpoints.unpack_optimizer(optimizer, tensors[f"optimizer.{name}"])
            self.average.unpack(tensors["average"])
            self.step, self.elapsed_s = int(state["step"]), float(state["elapsed_s"])
        except (KeyError, TypeError, ValueError) as error:
            reason = f"{error.args[0]} is missing" if isinstance(error, KeyError) else error
            raise checkpoints.damaged_checkpoint(paths[-1], reason) from error
        self.saved_at_s = self.elapsed_s
        return True

    def _check_settings(self, state: dict[str, Any]) -> None:
        """Refuse a checkpoint of another seed or other settings; warn of another dtype."""
        if state["seed"] != self.seed:
            raise CheckpointError(
                f"{self.folder} was started with seed {state['seed']}, the recipe now has {self.seed}. "
                "Use the same seed, or another `--output`."
            )
        legacy_values = getattr(self.settings, "LEGACY_VALUES", {})
        try:  # Settings that were added by a later version get what they were, or their defaults.
            before = type(self.settings).model_validate({**legacy_values, **state["settings"]}).model_dump(mode="json")
        except ValidationError:
            before = state["settings"]
        changed = [
            f"{name} {before.get(name)} -> {value}"
            for name, value in self.settings.model_dump(mode="json").items()
            if before.get(name) != value and name not in (*ADJUSTABLE_SETTINGS, *LENGTH_SETTINGS)
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
            _LOG.info(
                "%s was started with %s processes and continues with %s: the order of samples is the same, sums differ "
                "in their last bits.",
                self.folder,
                state["processes"],
                distributed.world_size(),
            )

    def validation(self, path: Path) -> Generator[None, None, dict[str, float]]:
        """Write a sample sheet with the averaged weights, in as many parts as the stage has; returns its metrics.

        Process 0 alone runs it, unless weights are sharded: then all of them do.
        """
        parts = getattr(self.stage, "validation_parts", None)
        generator = iter(parts(path)) if parts else None
        while True:
            self.average.swap()
            torch.manual_seed(self.seed)
            try:
                with torch.no_grad():
                    if generator is None:
                        return self.stage.validate(path)
                    next(generator)
            except StopIteration as end:
                return end.value
            finally:
                self.average.swap()
            yield
