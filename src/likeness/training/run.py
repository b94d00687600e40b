"""`likeness train`: from a recipe to weights in `runs/NAME/`.

runs/NAME/recipe.json              the resolved settings, and checksums of inputs
runs/NAME/STAGE/                   checkpoints, sheets, log.jsonl, curves.png, finished.safetensors
runs/NAME/model/                   the trained model
runs/cache/                        puppets and latents, shared by runs
"""

import importlib
import os
import signal
import sys
import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from types import FrameType
from typing import Any

from likeness import config
from likeness.errors import InterruptedRunError
from likeness.generation.outputs.destinations import check_folder_writable

MALLOC = {"MALLOC_MMAP_THRESHOLD_": "4000000000", "MALLOC_TRIM_THRESHOLD_": "-1"}
"""By default glibc returns the memory of large tensors to the system and allocates it again in every step."""


def configure_malloc() -> None:
    """Restart this process with an allocator that keeps freed memory; does nothing if it is set already."""
    if sys.platform.startswith("linux") and any(os.environ.get(name) != value for name, value in MALLOC.items()):
        os.environ.update(MALLOC)
        os.execv(sys.executable, [sys.executable, *sys.orig_argv[1:]])


def train(
    recipe: Path, *, overrides: Sequence[str] = (), output: Path | None = None, processes: int | None = None
) -> Path:
    """Run a recipe, or continue an earlier run of it; returns the folder of the trained model.

    Args:
        recipe: A TOML file.
        overrides: `a.b=1` changes of it.
        output: Folder of the run.
        processes: Number of training processes. More than one only from the command line, because peers are started
            with the same command line. None for one per core, at most 8 and at most the samples of a step.

    Raises:
        ConfigError: The recipe is invalid, or needs more than this machine has.
        LockedError: Another process trains in that folder.
        CheckpointError: The run there was started with something else, or is damaged.
        DivergedError: A loss, gradient or weight is not finite.
        InterruptedRunError: It was interrupted; the same command continues.
        FileWriteError: The run's folder cannot be written to, or the disk is full.
    """
    folder = output or Path("runs") / recipe.stem
    config.read_toml(recipe, overrides)
    check_folder_writable(folder)
    kept = f"{folder} has its last checkpoint and all rendered data; the same command continues from there."
    with _report_interrupt(kept):
        from likeness.training import recipes  # Imports take seconds, in which Ctrl-C must work too.
        from likeness.training.engine import distributed

        if distributed.is_peer():  # Process 0 has checked everything, and holds the lock.
            with distributed.launch(0):
                return _run(_read_recorded_recipe(folder), folder)
        return _train_locked(recipes.read(recipe, overrides), folder, processes)


def precompute(
    recipe: Path,
    *,
    overrides: Sequence[str] = (),
    output: Path | None = None,
    processes: int | None = None,
    verify: bool = False,
) -> Path:
    """Encode the files of a method's recipe; returns the folder of the cache.

    Args:
        recipe: A TOML file with `data`.
        overrides: `a.b=1` changes of it.
        output: Folder of the run, beside whose parent's `cache` the items are kept.
        processes: Number of processes; see `train`.
        verify: Read all items first, and make damaged ones again.

    Raises:
        ConfigError: The recipe has no files, or they cannot be used.
    """
    folder = output or Path("runs") / recipe.stem
    with _report_interrupt("What is encoded is kept; the same command encodes the rest."):
        from likeness.training import recipes
        from likeness.training.engine import distributed
        from likeness.training.methods.prepare import precompute_recipe
        from likeness.training.recipes import estimate, resume

        if processes is not None:
            estimate.check_processes(processes)
        settings = recipes.read(recipe, overrides)
        resume.check_inputs_exist(settings)
        with distributed.launch(1 if processes is None else processes):
            return precompute_recipe(settings, folder, folder.parent / "cache", verify=verify)


def _train_locked(settings: Any, folder: Path, processes: int | None) -> Path:
    from likeness import files
    from likeness.training.engine import checkpoints, distributed
    from likeness.training.recipes import estimate, resume

    max_processes = estimate.max_useful_processes(settings)
    if distributed.is_torchrun():
        processes = int(os.environ["WORLD_SIZE"])
    elif processes is None:
        processes = min(os.cpu_count() or 1, 8, max_processes)
    estimate.check_resources(settings, folder.parent / "cache", processes=processes)
    files.check_writable(folder)
    files.check_writable(folder.parent / "cache")
    busy = f"{folder} is in use by {{owner}}, which trains there. Wait until it has ended, or use another `--output`."
    with files.lock(folder / ".lock", busy=busy):
        if not resume.start_or_continue(settings, folder):
            return _trained_model(folder)
        with files.translate_write_errors(folder, only_full_disk=True), distributed.launch(processes):
            target = _run(settings, folder)
        checkpoints.check_exported(target)
        resume.mark_complete(folder)
        return target


def _run(settings: Any, folder: Path) -> Path:
    stages = importlib.import_module(type(settings).__module__)
    return stages.run(settings, folder, folder.parent / "cache")


def _read_recorded_recipe(folder: Path) -> Any:
    from likeness.training import recipes
    from likeness.training.recipes import resume

    record = resume.read_record(folder)
    assert record is not None
    return recipes.build(record["settings"], where=resume.RECORD_FILE)


def _trained_model(folder: Path) -> Path:
    """The model of a complete run, or its VAE if that is all the run trains."""
    model = folder / "model"
    return model / "vae" if [path.name for path in model.iterdir()] == ["vae"] else model


@contextmanager
def _report_interrupt(kept: str) -> Iterator[None]:
    """Turn Ctrl-C and SIGTERM outside of the training loop, which handles its own, into an error: what is kept."""
    received: list[int] = []

    def stop(number: int, frame: FrameType | None) -> None:
        del frame
        received.append(number)
        raise KeyboardInterrupt

    if threading.current_thread() is not threading.main_thread():  # Of a launcher that handles signals itself.
        yield
        return
    before = signal.getsignal(signal.SIGTERM)
    if before is signal.SIG_DFL:  # The command line has a handler already.
        signal.signal(signal.SIGTERM, stop)
    try:
        yield
    except KeyboardInterrupt as error:
        raise InterruptedRunError(f"Stopped. {kept}", *received[:1]) from error
    finally:
        signal.signal(signal.SIGTERM, before)
