"""The training loop: one stage at a time, with bit-exact resume.

All random numbers of a step follow from the run's seed and the step, and rows from `data.datasets.EpochSampler`, so a
run that continues from a checkpoint repeats exactly what an uninterrupted one computes. They do not depend on the
number of processes.
"""

import math
import signal
import tempfile
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from types import FrameType

from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import nn

from likeness import files
from likeness.errors import CheckpointError, InterruptedRunError
from likeness.training.engine import checkpoints, distributed, log_writers
from likeness.training.engine.checkpoints import DivergedError
from likeness.training.engine.logging import TrainingLogger, draw_curves
from likeness.training.engine.settings import LoopSettings, Stage
from likeness.training.engine.state import StageState

FINAL_WEIGHTS_FILE = "finished.safetensors"
"""File in a stage's folder with the weights at its end."""


_DONE = object()


def train(
    stage: Stage, settings: LoopSettings, folder: Path, *, seed: int, stop_after_steps: int | None = None
) -> None:
    """Train one stage to its end, from its last checkpoint if there is one; modules end with the averaged weights.

    Args:
        stage: What is trained.
        settings: Of the stage.
        folder: Checkpoints, sheets, log and curves are written here.
        seed: Of all random numbers.
        stop_after_steps: Stop early as if interrupted (for tests).

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
    logger.truncate_after(state.step)  # All lines if an earlier run was killed before its first checkpoint.
    if has_resumed:
        logger.info(f"{settings.name}: continuing from step {state.step}")
    (folder / "sheets").mkdir(parents=True, exist_ok=True)
    with log_writers.open_writers(settings, folder, first_step=state.step) as writers:
        logger.writers = writers
        with _catch_stop_signals() as signals:
            _train_steps(state, logger, signals, stop_after_steps)
        state.save()
        for _ in _write_sheet(state, logger):
            pass
    state.average.swap()
    if distributed.rank() == 0:
        draw_curves(logger.path, folder / "curves.png")


def save_final_weights(folder: Path, modules: dict[str, nn.Module]) -> None:
    """Save the final weights of a stage in float32, which marks it as done. All processes have to call it.

    Raises:
        DivergedError: A number is not finite.
    """
    tensors = {
        f"{prefix}.{name}": value
        for prefix, module in modules.items()
        for name, value in checkpoints.pack_module(module).items()
    }
    if distributed.rank():  # Only one process may write the file.
        return
    checkpoints.check_finite(tensors.items(), f"The final weights of {folder} are not written")
    with files.write_atomically(folder / FINAL_WEIGHTS_FILE) as draft:
        save_file(checkpoints.untie_weights(tensors), draft)


def load_final_weights(folder: Path, modules: dict[str, nn.Module]) -> bool:
    """Load the final weights of a stage; returns whether it is done.

    Raises:
        CheckpointError: The file is damaged, or of another model.
    """
    distributed.barrier()
    path = folder / FINAL_WEIGHTS_FILE
    if not path.exists():
        return False
    try:
        tensors = load_file(path)
    except (OSError, SafetensorError) as error:
        raise CheckpointError(_damaged_message(path, error)) from error
    if broken := checkpoints.first_not_finite(tensors.items()):
        raise CheckpointError(_damaged_message(path, f"`{broken}` has numbers that are not finite"))
    for prefix, module in modules.items():
        part = {name.removeprefix(f"{prefix}."): v for name, v in tensors.items() if name.startswith(f"{prefix}.")}
        checkpoints.load_module(module, part, where=str(folder))
    return True


def _train_steps(state: StageState, logger: TrainingLogger, signals: list[int], stop_after_steps: int | None) -> None:
    settings, last_sheet_s = state.settings, state.elapsed_s
    sheet: Iterator[None] | None = None
    last_step_s, waited_s = time.monotonic(), _waited_s(state)
    while state.progress < 1:
        step_begun_s = time.monotonic()
        loss, metrics = _accumulate_gradients(state)
        # Time includes sheets and checkpoints: `minutes` is wall time.
        now_s = time.monotonic()
        elapsed_s, is_stopping = distributed.broadcast_stop(
            state.elapsed_s + now_s - last_step_s, is_stopping=bool(signals)
        )
        norm = state.optimizers.step(step=state.step, progress=state.progress)
        if not math.isfinite(norm):  # Nothing was updated. Averaged gradients are the same in all processes.
            raise DivergedError(_diverged_message(state, f"the norm of the gradients is {norm}"))
        state.average.update(state.step)
        state.step, state.elapsed_s, last_step_s = state.step + 1, elapsed_s, now_s
        remaining_s = state.elapsed_s / max(state.progress, 1e-9) * (1 - state.progress)
        metrics = {"loss": loss, "grad_norm": norm, "learning_rate": state.optimizers.learning_rate, **metrics}
        if waited_s is not None:
            now_waited_s = _waited_s(state) or 0.0
            metrics["data_wait_share"] = (now_waited_s - waited_s) / max(now_s - step_begun_s, 1e-9)
            waited_s = now_waited_s
        logger.log_step(
            state.step,
            metrics,
            samples=settings.batch,
            elapsed_s=state.elapsed_s,
            remaining_s=remaining_s,
            is_last=state.progress >= 1,
        )
        state.save_if_due()
        if sheet is None and state.elapsed_s - last_sheet_s > 60 * settings.sheet_minutes:
            sheet, last_sheet_s = _write_sheet(state, logger), state.elapsed_s
        if sheet is not None and next(sheet, _DONE) is _DONE:
            sheet = None
        if is_stopping or state.step == stop_after_steps:
            state.save()
            raise InterruptedRunError(
                f"Stopped at step {state.step} and saved. The same command continues from here.", *signals[:1]
            )


def _waited_s(state: StageState) -> float | None:
    """Seconds that the stage has waited for data so far; None where it does not measure it."""
    return getattr(state.stage, "waited_s", None)


def _accumulate_gradients(state: StageState) -> tuple[float, dict[str, float]]:
    """The gradients of one optimizer step; returns the mean loss and the mean metrics of its micro-batches.

    Raises:
        DivergedError: The loss is not finite.
    """
    settings = state.settings
    losses: list[float] = []
    metrics: dict[str, list[float]] = {}
    for number in range(settings.accumulation):
        micro_step = state.step * settings.accumulation + number
        distributed.seed_micro_step(state.seed, micro_step)
        loss, micro_metrics = state.parallel.backward(
            micro_step, loss_factor=1 / settings.accumulation, is_last=number + 1 == settings.accumulation
        )
        losses.append(loss)
        for name, value in micro_metrics.items():
            metrics.setdefault(name, []).append(value)
    # After the last backward pass: a process that left earlier would let the others wait for its gradients.
    if broken := [loss for loss in losses if not math.isfinite(loss)]:
        raise DivergedError(_diverged_message(state, f"the loss is {broken[0]}"))
    return sum(losses) / len(losses), {name: sum(values) / len(values) for name, values in metrics.items()}


def _write_sheet(state: StageState, logger: TrainingLogger) -> Iterator[None]:
    """Validate and log, in parts: training goes on between them."""
    if distributed.rank() and not state.parallel.is_sharded:
        return
    name = f"step_{state.step:08d}.png"
    with tempfile.TemporaryDirectory() as scratch:
        folder = Path(scratch) if distributed.rank() else state.folder / "sheets"
        metrics = yield from state.validation(folder / name)
    logger.write({"step": state.step, **metrics})
    text = "  ".join(f"{name} {value:.4g}" for name, value in metrics.items())
    logger.info(f"{state.settings.name}  step {state.step}  sheet written  {text}")


def _diverged_message(state: StageState, reason: str) -> str:
    saved = checkpoints.list_checkpoints(state.folder / "checkpoints")
    rest = f"{saved[-1]} is the last checkpoint" if saved else "there is no checkpoint"
    return (
        f"Training of {state.folder} has diverged at step {state.step}: {reason}. Nothing of it was saved; {rest}. "
        "Lower `optimizer.learning_rate` or lengthen `optimizer.warmup_steps`, and start the stage again with another "
        "`--output`."
    )


def _damaged_message(path: Path, reason: object) -> str:
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

    if threading.current_thread() is not threading.main_thread():  # Of a launcher that handles signals itself.
        yield signals
        return
    before = {number: signal.signal(number, handle) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield signals
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
