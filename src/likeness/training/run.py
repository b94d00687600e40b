"""`likeness train`: from a recipe to weights in `runs/NAME/`.

runs/NAME/recipe.json              the resolved settings, and the version of the code
runs/NAME/STAGE/                   checkpoints, sheets, log.jsonl, curves.png, finished.safetensors
runs/NAME/model/                   what the recipe makes
runs/cache/                        puppets and latents that several runs share
"""

import importlib
import os
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

MALLOC = {"MALLOC_MMAP_THRESHOLD_": "4000000000", "MALLOC_TRIM_THRESHOLD_": "-1"}
"""glibc gives big tensors back to the system and takes them anew at every step unless it is told not to."""


def keep_memory() -> None:
    """Start this process again with an allocator that keeps its memory; without effect where it already does."""
    if sys.platform.startswith("linux") and any(
        os.environ.get(name) != value for name, value in MALLOC.items()
    ):
        os.environ.update(MALLOC)
        os.execv(sys.executable, [sys.executable, *sys.orig_argv[1:]])


def train(
    recipe: Path, *, overrides: Sequence[str] = (), output: Path | None = None, processes: int = 1
) -> Path:
    """Run a recipe, going on where an earlier run of it stopped; return the folder of what it made.

    Args:
        recipe: A TOML file.
        overrides: `a.b=1` changes of it.
        output: Folder of the run.
        processes: How many train together; more than one only under the command line, which they are started with.
    """
    from likeness import config
    from likeness.training import parallel, recipes

    settings: Any = recipes.read(recipe, overrides)
    folder = output or Path("runs") / recipe.stem
    config.save(settings, folder / "recipe.json")
    cache = folder.parent / "cache"
    with parallel.together(processes):
        stages = importlib.import_module(f"likeness.training.{settings.kind}")
        return stages.run(settings, folder, cache)
