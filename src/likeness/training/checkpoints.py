"""Checkpoints that a kill at any moment cannot spoil: tensors in safetensors, numbers in JSON, no pickle.

A checkpoint is a folder `step_00001200/`. It is written under another name, flushed to the disk and renamed, so a
folder with that name is always complete; the newest two are kept.
"""

import json
import os
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from likeness.errors import CheckpointError, WeightsError

KEEP = 2


def save(folder: Path, step: int, tensors: dict[str, dict[str, Tensor]], state: dict[str, Any]) -> Path:
    """Write one checkpoint and drop the ones before the last two.

    Args:
        folder: Where the checkpoints of one stage live.
        step: Optimizer steps done.
        tensors: File name (without ending) to named tensors.
        state: What JSON can hold: step, seconds, settings.
    """
    final, partial = folder / f"step_{step:08d}", folder / f"partial_{step:08d}"
    shutil.rmtree(partial, ignore_errors=True)
    partial.mkdir(parents=True)
    for name, group in tensors.items():
        save_file(
            {key: value.detach().contiguous() for key, value in group.items()},
            partial / f"{name}.safetensors",
        )
    (partial / "state.json").write_text(json.dumps({**state, "step": step}, indent=1))
    for path in (*partial.iterdir(), partial):
        _flush(path)
    shutil.rmtree(final, ignore_errors=True)
    partial.rename(final)
    _flush(folder)
    for old in complete(folder)[:-KEEP]:
        shutil.rmtree(old)
    return final


def complete(folder: Path) -> list[Path]:
    """The checkpoints in `folder`, oldest first."""
    return sorted(folder.glob("step_*"))


def load(path: Path) -> tuple[dict[str, dict[str, Tensor]], dict[str, Any]]:
    """The tensors and the state of the checkpoint at `path`."""
    try:
        tensors = {file.stem: load_file(file) for file in sorted(path.glob("*.safetensors"))}
        return tensors, json.loads((path / "state.json").read_text())
    except (OSError, ValueError) as error:
        raise CheckpointError(
            f"The checkpoint {path} cannot be read ({error}). Delete this folder to go on from the one before it."
        ) from error


def load_module(module: nn.Module, tensors: dict[str, Tensor], *, where: str) -> None:
    """Strictly load `tensors` into `module`."""
    try:
        module.load_state_dict(tensors)
    except RuntimeError as error:
        raise CheckpointError(
            f"The checkpoint of {where} is of another architecture: {error}. "
            "Use the recipe it was trained with, or another `--output`."
        ) from error


def start_from(
    module: Any, folder: Path, fit: Callable[[dict[str, Tensor]], dict[str, Tensor]] | None = None
) -> None:
    """Give a model of diffusers or transformers the weights that `folder` holds, in float32 whatever they are there.

    `fit` turns the state there into one of `module`'s shape.
    """
    if not (folder / "config.json").is_file():
        raise WeightsError(
            f"No model at {folder}, which has no config.json. Give `start` the folder of a trained one."
        )
    found = type(module).from_pretrained(folder, torch_dtype=torch.float32, local_files_only=True)
    state = found.state_dict()
    load_module(module, fit(state) if fit else state, where=str(folder))


def pack_optimizer(optimizer: torch.optim.Optimizer) -> dict[str, Tensor]:
    """The state of an optimizer as named tensors."""
    packed = {}
    for index, values in optimizer.state_dict()["state"].items():
        for key, value in values.items():
            packed[f"{index}.{key}"] = value if isinstance(value, Tensor) else torch.tensor(value)
    return packed


def unpack_optimizer(optimizer: torch.optim.Optimizer, packed: dict[str, Tensor]) -> None:
    """Put back what `pack_optimizer` took."""
    state: dict[int, dict[str, Tensor]] = {}
    for name, value in packed.items():
        index, key = name.split(".", 1)
        state.setdefault(int(index), {})[key] = value
    optimizer.load_state_dict({"state": state, "param_groups": optimizer.state_dict()["param_groups"]})


def _flush(path: Path) -> None:
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)
