"""Lower bounds of what a recipe needs: refuses it before anything starts if this machine cannot provide it.

Counted are data on disk and in memory, weights with their optimizer, and a millisecond a step. A recipe that passes can
still need too much.
"""

import contextlib
import os
import shutil
from pathlib import Path

from likeness.config import Settings, iterate_integers
from likeness.errors import ConfigError
from likeness.training.data import render_puppets, shards
from likeness.training.engine import log_writers
from likeness.training.engine.settings import LoopSettings
from likeness.training.recipes.resume import stages_by_path

_SECONDS_PER_MEGAPIXEL = 1.5
"""Seconds of one core to render a megapixel of puppets, as measured; the lower bound is a tenth of it."""
_SECONDS_PER_STEP = 1e-3
_BYTES_PER_PROCESS = 300e6
_MAX_WIDTH = 65_536
"""Upper limit of any width or count of a model."""
_MAX_DURATION_S = 365 * 86_400.0
_SAMPLE_ARRAYS = 4
"""Least number of float32 values that a step holds for each value of its input: itself, noise, output, gradient."""


def check_resources(recipe: Settings, cache: Path, *, processes: int) -> None:
    """Refuse a recipe that needs more than this machine has.

    Args:
        recipe: Of any kind.
        cache: Folder of its data.
        processes: Number of training processes.

    Raises:
        ConfigError: With the setting, the lower bound, and what this machine has; or a tracker is not installed.
    """
    stages = stages_by_path(recipe)
    names = [stage.name.lower() for stage in stages.values()]
    if duplicates := sorted({name for name in names if names.count(name) > 1}):
        raise ConfigError(f"Stages need different names: `{'`, `'.join(duplicates)}` is there twice. Rename one.")
    for stage in stages.values():
        log_writers.check_installed(stage.log_to)
    sets = {name: value for name, value in recipe if isinstance(value, render_puppets.PuppetSettings)}
    memory_bytes = _memory_bytes()
    check_processes(processes, max_useful_processes(recipe))
    _check_model(recipe, memory_bytes)
    _check_disk(sets, cache)
    needed = sum(_frame_bytes(settings, settings.count) for settings in sets.values())
    if needed > memory_bytes:
        sizes = ", ".join(f"{name} {_size(_frame_bytes(s, s.count))}" for name, s in sets.items())
        raise ConfigError(
            f"The data need at least {_size(needed)} of memory ({sizes}), this machine has {_size(memory_bytes)}. "
            "Lower `count`, `size_px` or `num_frames`."
        )
    for where, stage in stages.items():
        _check_stage(where, stage, sets, memory_bytes)
    _check_time(sets, stages, cache)


def max_useful_processes(recipe: Settings) -> int:
    """The largest number of processes that all have a sample in every step."""
    divisor = 2 if "single_every" in type(recipe).model_fields else 1  # Steps on two people have half as many samples.
    return max(1, min(stage.micro_batch for stage in stages_by_path(recipe).values()) // divisor)


def check_processes(processes: int, max_processes: int | None = None) -> None:
    """Refuse more processes than there are samples for, or than fit in memory.

    Raises:
        ConfigError: With the limit.
    """
    memory_bytes = _memory_bytes()
    if max_processes is not None and processes > max_processes:
        raise ConfigError(
            f"{processes} processes need a sample each, and the smallest batch has samples for {max_processes}. Use "
            f"`--processes {max_processes}` or less, or a larger `batch`."
        )
    if (needed := processes * _BYTES_PER_PROCESS) > memory_bytes:
        raise ConfigError(
            f"{processes} processes need at least {_size(needed)} of memory, this machine has {_size(memory_bytes)}. "
            "Use fewer `--processes`."
        )


def _check_model(recipe: Settings, memory_bytes: float) -> None:
    for name in ("model", "transformer", "text", "network", "method", "widths", "basis_people"):
        for where, number in iterate_integers(getattr(recipe, name, None), name):
            # A square matrix of that width, its gradient, two moments and the average, in float32.
            needed = 20.0 * number * number
            if number > _MAX_WIDTH or needed > memory_bytes:
                raise ConfigError(
                    f"`{where}` is {number}: the limit is {_MAX_WIDTH}, and a layer of that width needs at least "
                    f"{_size(needed)} of memory, this machine has {_size(memory_bytes)}. Lower it."
                )


def _check_disk(sets: dict[str, render_puppets.PuppetSettings], cache: Path) -> None:
    missing = sum(_frame_bytes(s, s.count) for s in sets.values() if not _is_rendered(s, cache))
    existing = next(folder for folder in (cache, *cache.absolute().parents) if folder.is_dir())
    free = shutil.disk_usage(existing).free
    if missing > free:
        raise ConfigError(
            f"The data need at least {_size(missing)} on the disk of {cache}, {_size(free)} are free. Lower `count`, "
            "`size_px` or `num_frames`, free space, or choose another `--output`."
        )


def _check_stage(
    where: str,
    stage: LoopSettings,
    sets: dict[str, render_puppets.PuppetSettings],
    memory_bytes: float,
) -> None:
    smallest = min((s for s in sets.values()), key=lambda s: _frame_bytes(s, 1), default=None)
    if smallest is None:
        return
    # At least its latents: a 64th of the pixels and a quarter of the frames, in 16 channels.
    pixels = smallest.size_px**2 * (1 if smallest.kind in ("images", "faces") else smallest.num_frames)
    needed = 4.0 * _SAMPLE_ARRAYS * stage.batch * pixels / 64 * 16 / 4
    if needed > memory_bytes:
        raise ConfigError(
            f"`{where}.batch` is {stage.batch}: a step needs at least {_size(needed)} of memory, this machine has "
            f"{_size(memory_bytes)}. Lower it."
        )


def _check_time(sets: dict[str, render_puppets.PuppetSettings], stages: dict[str, LoopSettings], cache: Path) -> None:
    cores = os.cpu_count() or 1
    megapixels = sum(_frame_bytes(s, s.count) / 3e6 for s in sets.values() if not _is_rendered(s, cache))
    rendering_s = megapixels * _SECONDS_PER_MEGAPIXEL / 10 / cores
    training_s = 0.0
    for stage in stages.values():
        ends = [] if stage.steps is None else [stage.steps * _SECONDS_PER_STEP]
        ends += [] if stage.minutes is None else [60 * stage.minutes]
        ends += [] if stage.samples is None else [stage.samples / stage.batch * _SECONDS_PER_STEP]
        training_s += min(ends)
    if rendering_s + training_s > _MAX_DURATION_S:
        raise ConfigError(
            f"This recipe takes at least {_days(rendering_s)} of rendering puppets and {_days(training_s)} of "
            "training. Lower `count`, `steps` or `minutes`."
        )


def _is_rendered(settings: render_puppets.PuppetSettings, cache: Path) -> bool:
    """Whether the first and the last shard exist. The others are checked when they are read."""
    target, last = render_puppets.folder(settings, cache), (settings.count - 1) // settings.shard
    return all(shards.is_complete(target, i, render_puppets.num_shard_samples(settings, i)) for i in {0, last})


def _frame_bytes(settings: render_puppets.PuppetSettings, count: int) -> float:
    frames = 1 if settings.kind in ("images", "faces") else settings.num_frames
    width_factor = 2 if settings.kind == "two_person" else 1
    return 3.0 * count * frames * width_factor * settings.size_px**2


def _memory_bytes() -> float:
    """Memory of the machine, or of the container if that has less."""
    limits_bytes = [float(os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES"))]
    with contextlib.suppress(OSError, ValueError):  # No such file, or "max".
        limits_bytes.append(float(Path("/sys/fs/cgroup/memory.max").read_text()))
    return min(limits_bytes)


def _size(count: float) -> str:
    for unit in ("B", "kB", "MB", "GB", "TB"):
        if count < 1000:
            return f"{count:.3g} {unit}"
        count /= 1000
    return f"{count:,.0f} PB" if count < 1e9 else f"{count:.1e} PB"


def _days(seconds: float) -> str:
    days = seconds / 86_400
    return f"{days:,.1f} days" if days < 1e9 else f"{days:.1e} days"
