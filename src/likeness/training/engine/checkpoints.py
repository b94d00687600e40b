"""Checkpoints, safe against a kill at any moment: tensors in safetensors, numbers in JSON, no pickle.

A checkpoint is a folder `step_00001200/`, written by `files.write_atomically`, so a folder with that name is always
complete; the newest two are kept. `state.json` holds the checksums of the other files. Tensors with numbers that are
not finite are never written.
"""

import json
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor, nn
from torch.distributed.tensor import DTensor

from likeness import files
from likeness.backbones.check import LOAD_ERRORS
from likeness.errors import CheckpointError, LikenessError, WeightsError
from likeness.training.engine.parallel import copy_full_tensor, full_tensor
from likeness.weights import sha256_of

KEEP = 2
_PARAMETER_SHAPED_STATES = ("exp_avg", "exp_avg_sq", "momentum_buffer")
"""States of optimizers that have the shape of their parameter."""


class DivergedError(LikenessError):
    """A loss, gradient or weight is not finite."""


def save(
    folder: Path,
    step: int,
    tensors_by_file: dict[str, Mapping[str, Tensor]] | Iterable[tuple[str, Mapping[str, Tensor]]],
    state: dict[str, Any],
    *,
    keep: int = KEEP,
) -> Path:
    """Write one checkpoint and delete all but the newest ones.

    Args:
        folder: Of the checkpoints of one stage.
        step: Optimizer steps done.
        tensors_by_file: File names (without suffix) with their named tensors. They are written one by one, so that an
            iterator needs the memory of one file only.
        state: JSON values: seconds, settings, seed.
        keep: Number of checkpoints that are kept.

    Raises:
        DivergedError: A number is not finite.
        FileWriteError: The checkpoint cannot be written; earlier ones remain.
    """
    final = folder / f"step_{step:08d}"
    message = f"The checkpoint of step {step} in {folder} is not written"
    if isinstance(tensors_by_file, dict):  # All are there, and are checked before anything is written.
        for name, tensors in tensors_by_file.items():
            check_finite(((f"{name}.{key}", value) for key, value in tensors.items()), message)
    with files.write_atomically(final, replaces_folder=True) as draft:
        draft.mkdir()
        checksums = {}
        for name, tensors in tensors_by_file.items() if isinstance(tensors_by_file, dict) else tensors_by_file:
            check_finite(((f"{name}.{key}", value) for key, value in tensors.items()), message)
            path = draft / f"{name}.safetensors"
            save_file(untie_weights(tensors), path)
            checksums[path.name] = sha256_of(path)
        record = {**state, "step": step, "files": checksums}
        (draft / "state.json").write_text(json.dumps(record, indent=1), encoding="utf-8")
    for old in list_checkpoints(folder)[:-keep]:
        files.remove(old)
    return final


def untie_weights(tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Tensors that safetensors accepts: contiguous, and tied weights, the same memory under two names, copied."""
    seen: set[int] = set()
    separate = {}
    for name, value in tensors.items():
        value = value.detach().contiguous()
        address = value.untyped_storage().data_ptr() if value.numel() else 0
        separate[name] = value.clone() if address in seen else value
        seen.add(address)
    return separate


def list_checkpoints(folder: Path) -> list[Path]:
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
        raise damaged_checkpoint(path, error) from error
    for group, part in tensors.items():
        if broken := first_not_finite(part.items()):
            raise damaged_checkpoint(path, f"`{broken}` in {group}.safetensors has numbers that are not finite")
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
        raise damaged_checkpoint(path, error) from error
    return state


def damaged_checkpoint(path: Path, reason: object) -> CheckpointError:
    """The error for a checkpoint that cannot be used, with the alternative."""
    others = [other.name for other in list_checkpoints(path.parent) if other != path]
    alternative = f"continue from {others[-1]}" if others else "start this stage again"
    return CheckpointError(f"The checkpoint {path} cannot be read ({reason}). Delete this folder to {alternative}.")


def pack_module(module: nn.Module) -> dict[str, Tensor]:
    """The whole tensors of a module, on the CPU, without parts that a method never trains (`Method.frozen`).

    All processes have to call it where weights are sharded.
    """
    packed = {}
    for name, value in module.state_dict().items():
        if not _is_frozen(module, name):
            packed[name] = full_tensor(value).detach().cpu()
    return packed


def load_module(module: nn.Module, tensors: dict[str, Tensor], *, where: str) -> None:
    """Strictly load `tensors` into `module`; parts that a method never trains may be absent."""
    current = module.state_dict()
    expected = {name: tuple(value.shape) for name, value in current.items()}
    required = {name for name in expected if not _is_frozen(module, name)}
    problems = [f"{name} is missing" for name in sorted(required - tensors.keys())]
    problems += [f"{name} is unknown" for name in sorted(tensors.keys() - expected.keys())]
    problems += [
        f"{name} has the shape {tuple(value.shape)} instead of {expected[name]}"
        for name, value in tensors.items()
        if name in expected and tuple(value.shape) != expected[name]
    ]
    if problems:
        rest = f", and {len(problems) - 8} more" if len(problems) > 8 else ""
        raise CheckpointError(
            f"The checkpoint of {where} is of another architecture: {'; '.join(problems[:8])}{rest}. "
            "Use the recipe it was trained with, or another `--output`."
        )
    for name, value in tensors.items():
        copy_full_tensor(current[name], value)


def _is_frozen(module: nn.Module, name: str) -> bool:
    prefixes: tuple[str, ...] = tuple(getattr(module, "frozen", ()))
    return name.startswith(prefixes) if prefixes else False


def load_initial_weights(
    module: Any, folder: Path, convert_state_dict: Callable[[dict[str, Tensor]], dict[str, Tensor]] | None = None
) -> None:
    """Load the weights in `folder` into a model of diffusers or transformers, in float32.

    Args:
        module: The model.
        folder: Written by `save_pretrained` of the same class.
        convert_state_dict: Converts the state dict to the shapes of `module`.

    Raises:
        WeightsError: There is no such model, or a number is not finite.
        CheckpointError: The model has another architecture.
    """
    if not (folder / "config.json").is_file():
        raise WeightsError(f"No model at {folder}, which has no config.json. Give `start` the folder of a trained one.")
    try:
        loaded = type(module).from_pretrained(folder, torch_dtype=torch.float32, local_files_only=True)
    except LOAD_ERRORS as error:
        raise WeightsError(
            f"The model at {folder} cannot be read ({error}). Train it again, or name another."
        ) from error
    state = loaded.state_dict()
    if broken := first_not_finite(state.items()):
        raise WeightsError(
            f"The model at {folder} has numbers that are not finite (`{broken}`). Name another as `start`."
        )
    load_module(module, convert_state_dict(state) if convert_state_dict else state, where=str(folder))


def pack_optimizer(optimizer: torch.optim.Optimizer) -> dict[str, Tensor]:
    """The state of an optimizer as named whole tensors. All processes have to call it where it is sharded."""
    packed = {}
    for index, values in optimizer.state_dict()["state"].items():
        for key, value in values.items():
            value = value if isinstance(value, Tensor) else torch.tensor(value)
            packed[f"{index}.{key}"] = full_tensor(value).detach().cpu()
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
            if key in _PARAMETER_SHAPED_STATES and value.shape != parameters[index].shape:
                raise CheckpointError(
                    f"The optimizer's `{key}` of parameter {index} has the shape {tuple(value.shape)}, the parameter "
                    f"{tuple(parameters[index].shape)}. Use the recipe it was trained with, or another `--output`."
                )
    for index, values in state.items():
        for key in _PARAMETER_SHAPED_STATES:
            if key in values and isinstance(parameters[index], DTensor):
                sharded = torch.zeros_like(parameters[index], dtype=values[key].dtype)
                copy_full_tensor(sharded, values[key])
                values[key] = sharded
    optimizer.load_state_dict({"state": state, "param_groups": optimizer.state_dict()["param_groups"]})


def first_not_finite(named: Iterable[tuple[str, Tensor]]) -> str | None:
    """The name of the first tensor with a number that is not finite."""
    for name, value in named:
        if value.is_floating_point() and not bool(torch.isfinite(value).all()):
            return name
    return None


def check_finite(named: Iterable[tuple[str, Tensor]], message: str) -> None:
    """Check that all numbers are finite.

    Raises:
        DivergedError: With `message` and the name of the first tensor that fails.
    """
    if broken := first_not_finite(named):
        raise DivergedError(
            f"{message}: `{broken}` has numbers that are not finite. Lower the learning rate or lengthen its warm-up."
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
