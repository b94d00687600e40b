"""`likeness train`: from a recipe to weights in `runs/NAME/`.

runs/NAME/recipe.json              the resolved settings, and what else the run follows from
runs/NAME/STAGE/                   checkpoints, sheets, log.jsonl, curves.png, finished.safetensors
runs/NAME/model/                   what the recipe makes
runs/cache/                        puppets and latents that several runs share
"""

import importlib
import os
import signal
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from types import FrameType
from typing import Any

MALLOC = {"MALLOC_MMAP_THRESHOLD_": "4000000000", "MALLOC_TRIM_THRESHOLD_": "-1"}
"""glibc gives big tensors back to the system and takes them anew at every step unless it is told not to."""


def keep_memory() -> None:
    """Start this process again with an allocator that keeps its memory; without effect where it already does."""
    if sys.platform.startswith("linux") and any(os.environ.get(name) != value for name, value in MALLOC.items()):
        os.environ.update(MALLOC)
        os.execv(sys.executable, [sys.executable, *sys.orig_argv[1:]])


def train(
    recipe: Path, *, overrides: Sequence[str] = (), output: Path | None = None, processes: int | None = None
) -> Path:
    """Run a recipe, going on where an earlier run of it stopped; return the folder of what it made.

    Args:
        recipe: A TOML file.
        overrides: `a.b=1` changes of it.
        output: Folder of the run.
        processes: How many train together; more than one only under the command line, which they are started with. One a
            core, at most 8 and no more than have a sample in every step, if None.

    Raises:
        ConfigError: The recipe is none, or asks for more than this machine can give.
        LockedError: Another process trains there.
        CheckpointError: The run there was begun with something else, or is damaged.
        DivergedError: A loss, gradient or weight is not finite.
        InterruptedRunError: It was stopped; the same command goes on.
        FileWriteError: The run's folder cannot be written to, or the disk is full.
    """
    folder = output or Path("runs") / recipe.stem
    with _stoppable(folder):
        from likeness.training import recipes  # They take seconds, in which Ctrl-C may come too.
        from likeness.training.engine import distributed

        if distributed.is_peer():  # The first process has checked everything, and holds the lock.
            with distributed.together(0):
                return _run(_recorded(folder), folder)
        return _train_locked(recipes.read(recipe, overrides), folder, processes)


def _train_locked(settings: Any, folder: Path, processes: int | None) -> Path:
    from likeness import files
    from likeness.training.engine import checkpoints, distributed, estimate, resume

    most = estimate.smallest_share(settings)
    processes = min(os.cpu_count() or 1, 8, most) if processes is None else processes
    estimate.check(settings, folder.parent / "cache", processes=processes)
    files.check_writable(folder)
    files.check_writable(folder.parent / "cache")
    busy = f"{folder} is trained by {{owner}} already. Wait until it has ended, or use another `--output`."
    with files.lock(folder / ".lock", busy=busy):
        if not resume.begin(settings, folder):
            return _made(folder)
        with files.translate_write_errors(folder, full_disk_alone=True), distributed.together(processes):
            target = _run(settings, folder)
        checkpoints.check_exported(target)
        resume.complete(folder)
        return target


def _run(settings: Any, folder: Path) -> Path:
    stages = importlib.import_module(type(settings).__module__)
    return stages.run(settings, folder, folder.parent / "cache")


def _recorded(folder: Path) -> Any:
    from likeness.training import recipes
    from likeness.training.engine import resume

    record = resume.read(folder)
    assert record is not None
    return recipes.build(record["settings"], where=resume.RECORD)


def _made(folder: Path) -> Path:
    """What a complete run has made: its model, or the one part in it."""
    model = folder / "model"
    return model / "vae" if [path.name for path in model.iterdir()] == ["vae"] else model


@contextmanager
def _stoppable(folder: Path) -> Iterator[None]:
    """Ctrl-C and SIGTERM outside of the training loop, which has its own way, as an error that says what is left."""

    def stop(number: int, frame: FrameType | None) -> None:
        del number, frame
        raise KeyboardInterrupt

    before = signal.signal(signal.SIGTERM, stop)
    try:
        yield
    except KeyboardInterrupt as error:
        from likeness.training.engine.loop import InterruptedRunError

        raise InterruptedRunError(
            f"Stopped. {folder} keeps its last checkpoint and all data that were made; the same command goes on from there."
        ) from error
    finally:
        signal.signal(signal.SIGTERM, before)
