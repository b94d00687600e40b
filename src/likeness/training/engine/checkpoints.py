"""Checkpoints, safe against a kill at any moment: tensors in safetensors, numbers in JSON, no pickle.

A checkpoint is a folder `step_00001200/`, written by `files.write_atomically`, so a folder with that name is always
complete; the newest two are kept. `state.json` holds the checksums of the other files. Tensors with numbers that are
not finite are never written.
"""

import json
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from likeness import files
from likeness.backbones.check import UNREADABLE
from likeness.errors import CheckpointError, LikenessError, WeightsError
from likeness.weights import sha256_of

KEEP = 2


class DivergedError(LikenessError):
    """A loss, gradient or weight is not finite."""


def save(folder: Path, step: int, tensors: dict[str, dict[str, Tensor]], state: dict[str, Any]) -> Path:
    """Write one checkpoint and delete all but the newest two.

    Args:
        folder: Of the checkpoints of one stage.
        step: Optimizer steps done.
        tensors: File name (without suffix) to named tensors.
        state: JSON values: seconds, settings, seed.

    Raises:
        DivergedError: A number is not finite.
        FileWriteError: The checkpoint cannot be written; earlier ones remain.
    """
    named = ((f"{group}.{name}", value) for group, part in tensors.items() for name, value in part.items())
    check_finite(named, f"The checkpoint of step {step} in {folder} is not written")
    final = folder / f"step_{step:08d}"
    with files.write_atomically(final, replaces_folder=True) as draft:
        draft.mkdir()
        checksums = {}
        for name, group in tensors.items():
            path = draft / f"{name}.safetensors"
            save_file({key: value.detach().contiguous() for key, value in group.items()}, path)
            checksums[path.name] = sha256_of(path)
        record = {**state, "step": step, "files": checksums}
        (draft / "state.json").write_text(json.dumps(record, indent=1), encoding="utf-8")
    for old in complete(folder)[:-KEEP]:
        files.remove(old)
    return final


def complete(folder: Path) -> list[Path]:
    """The checkpoints in `folder`, oldest first."""
    return sorted(folder.glob("step_*"))


def load(path: Path) -> tuple[dict[str, dict[str, Tensor]], dict[str, Any]]:
    """The tensors and the state of the checkpoint at `path`.

    Raises:
        CheckpointError: A file is missing, damaged or holds numbers that are not finite.
    """
    state = load_state(path)
    try:
        # Checkpoints of earlier versions have no checksums: all files are read, and missing tensors are an error later.
        checksums = state.get("files") or {file.name: None for file in sorted(path.glob("*.safetensors"))}
        tensors = {}
        for name, checksum in checksums.items():
            if checksum is not None and sha256_of(path / name) != checksum:
                raise ValueError(f"{name} was altered after it was written")
            tensors[name.removesuffix(".safetensors")] = load_file(path / name)
    except (OSError, ValueError, SafetensorError) as error:
        raise damaged(path, error) from error
    for group, part in tensors.items():
        if broken := first_not_finite(part.items()):
            raise damaged(path, f"`{broken}` in {group}.safetensors has numbers that are not finite")
    return tensors, state


def load_state(path: Path) -> dict[str, Any]:
    """The content of `state.json` of the checkpoint at `path`.

    Raises:
        CheckpointError: The file is missing or damaged.
    """
    try:
        state = files.read_json(path / "state.json")
        if not isinstance(state, dict) or "step" not in state:
            raise ValueError("state.json has no step")
    except (OSError, ValueError) as error:
        raise damaged(path, error) from error
    return state


def damaged(path: Path, reason: object) -> CheckpointError:
    """The error for a checkpoint that cannot be used, with the alternative."""
    others = [other.name for other in complete(path.parent) if other != path]
    alternative = f"continue from {others[-1]}" if others else "start this stage again"
    return CheckpointError(f"The checkpoint {path} cannot be read ({reason}). Delete this folder to {alternative}.")


def load_module(module: nn.Module, tensors: dict[str, Tensor], *, where: str) -> None:
    """Strictly load `tensors` into `module`."""
    try:
        module.load_state_dict(tensors)
    except RuntimeError as error:
        raise CheckpointError(
            f"The checkpoint of {where} is of another architecture: {error}. "
            "Use the recipe it was trained with, or another `--output`."
        ) from error


def start_from(module: Any, folder: Path, fit: Callable[[dict[str, Tensor]], dict[str, Tensor]] | None = None) -> None:
    """Load the weights in `folder` into a model of diffusers or transformers, in float32.

    Args:
        module: The model.
        folder: Written by `save_pretrained` of the same class.
        fit: Converts the state dict to the shapes of `module`.

    Raises:
        WeightsError: There is no such model, or a number is not finite.
        CheckpointError: The model has another architecture.
    """
    if not (folder / "config.json").is_file():
        raise WeightsError(f"No model at {folder}, which has no config.json. Give `start` the folder of a trained one.")
    try:
        found = type(module).from_pretrained(folder, torch_dtype=torch.float32, local_files_only=True)
    except UNREADABLE as error:
        raise WeightsError(
            f"The model at {folder} cannot be read ({error}). Train it again, or name another."
        ) from error
    state = found.state_dict()
    if broken := first_not_finite(state.items()):
        raise WeightsError(
            f"The model at {folder} has numbers that are not finite (`{broken}`). Name another as `start`."
        )
    load_module(module, fit(state) if fit else state, where=str(folder))


def pack_optimizer(optimizer: torch.optim.Optimizer) -> dict[str, Tensor]:
    """The state of an optimizer as named tensors."""
    packed = {}
    for index, values in optimizer.state_dict()["state"].items():
        for key, value in values.items():
            packed[f"{index}.{key}"] = value if isinstance(value, Tensor) else torch.tensor(value)
    return packed


def unpack_optimizer(optimizer: torch.optim.Optimizer, packed: dict[str, Tensor]) -> None:
    """Restore what `pack_optimizer` returned.

    Raises:
        CheckpointError: The state is of other parameters.
    """
    state: dict[int, dict[str, Tensor]] = {}
    for name, value in packed.items():
        index, key = name.split(".", 1)
        state.setdefault(int(index), {})[key] = value
    parameters = [p for group in optimizer.param_groups for p in group["params"]]
    # Before the first step no parameter has a state, afterwards all of them.
    if state and set(state) != set(range(len(parameters))):
        raise CheckpointError(
            f"The optimizer's state is of {len(state)} parameters, the model has {len(parameters)}. "
            "Use the recipe it was trained with, or another `--output`."
        )
    for index, values in state.items():
        for key, value in values.items():
            if value.ndim and value.shape != parameters[index].shape:
                raise CheckpointError(
                    f"The optimizer's `{key}` of parameter {index} has the shape {tuple(value.shape)}, the parameter "
                    f"{tuple(parameters[index].shape)}. Use the recipe it was trained with, or another `--output`."
                )
    optimizer.load_state_dict({"state": state, "param_groups": optimizer.state_dict()["param_groups"]})


def first_not_finite(named: Iterable[tuple[str, Tensor]]) -> str | None:
    """The name of the first tensor with a number that is not finite."""
    for name, value in named:
        if value.is_floating_point() and not bool(torch.isfinite(value).all()):
            return name
    return None


def check_finite(named: Iterable[tuple[str, Tensor]], what: str) -> None:
    """Check that all numbers are finite.

    Raises:
        DivergedError: With `what` and the name of the first tensor that fails.
    """
    if broken := first_not_finite(named):
        raise DivergedError(
            f"{what}: `{broken}` has numbers that are not finite. Lower the learning rate or lengthen its warm-up."
        )


def check_exported(folder: Path) -> None:
    """Check an exported model for numbers that are not finite, or that overflowed in half precision.

    Raises:
        DivergedError: There is one; the model is deleted.
    """
    for path in sorted(folder.rglob("*.safetensors")):
        if broken := first_not_finite(load_file(path).items()):
            files.remove(folder)
            raise DivergedError(
                f"{folder} was deleted: `{broken}` in {path.name} has numbers that are not finite or too large for "
                "half precision. Train again with a lower learning rate or more weight decay, and another `--output`."
            )
