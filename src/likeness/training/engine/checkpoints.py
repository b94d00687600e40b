"""Checkpoints that a kill at any moment cannot spoil: tensors in safetensors, numbers in JSON, no pickle.

A checkpoint is a folder `step_00001200/`, written by `files.write_atomically`, so a folder with that name is always
complete; the newest two are kept. `state.json` holds the checksums of the other files. Nothing with a number that is
not finite is written.
"""

import hashlib
import json
import shutil
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from likeness import files
from likeness.errors import CheckpointError, LikenessError, WeightsError

KEEP = 2


class DivergedError(LikenessError):
    """Training has come to numbers that are not finite."""


def save(folder: Path, step: int, tensors: dict[str, dict[str, Tensor]], state: dict[str, Any]) -> Path:
    """Write one checkpoint and drop the ones before the last two.

    Args:
        folder: Where the checkpoints of one stage live.
        step: Optimizer steps done.
        tensors: File name (without ending) to named tensors.
        state: What JSON can hold: step, seconds, settings.

    Raises:
        DivergedError: A number is not finite.
        FileWriteError: It cannot be written; the checkpoints before it stay.
    """
    named = ((f"{group}.{name}", value) for group, part in tensors.items() for name, value in part.items())
    check_finite(named, f"The checkpoint of step {step} in {folder} is not written")
    final = folder / f"step_{step:08d}"
    with files.write_atomically(final, replaces_folder=True) as draft:
        draft.mkdir()
        sums = {}
        for name, group in tensors.items():
            path = draft / f"{name}.safetensors"
            save_file({key: value.detach().contiguous() for key, value in group.items()}, path)
            sums[path.name] = _checksum(path)
        record = {**state, "step": step, "files": sums}
        (draft / "state.json").write_text(json.dumps(record, indent=1), encoding="utf-8")
    for old in complete(folder)[:-KEEP]:
        shutil.rmtree(old)
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
        # Checkpoints of earlier versions have no checksums: what is there is taken, and must be all that is needed.
        sums = state.get("files") or {file.name: None for file in sorted(path.glob("*.safetensors"))}
        tensors = {}
        for name, checksum in sums.items():
            if checksum is not None and _checksum(path / name) != checksum:
                raise ValueError(f"{name} is not as it was written")
            tensors[name.removesuffix(".safetensors")] = load_file(path / name)
    except (OSError, ValueError, SafetensorError) as error:
        raise damaged(path, error) from error
    for group, part in tensors.items():
        if broken := first_not_finite(part.items()):
            raise damaged(path, f"`{broken}` in {group}.safetensors holds numbers that are not finite")
    return tensors, state


def load_state(path: Path) -> dict[str, Any]:
    """The numbers of the checkpoint at `path` alone.

    Raises:
        CheckpointError: They are missing or damaged.
    """
    try:
        state = json.loads((path / "state.json").read_text(encoding="utf-8"))
        if not isinstance(state, dict) or "step" not in state:
            raise ValueError("state.json names no step")
    except (OSError, ValueError) as error:
        raise damaged(path, error) from error
    return state


def damaged(path: Path, reason: object) -> CheckpointError:
    """What to say of a checkpoint that cannot be used, with what else there is."""
    others = [other.name for other in complete(path.parent) if other != path]
    rest = f"go on from {others[-1]}" if others else "begin this stage anew"
    return CheckpointError(f"The checkpoint {path} cannot be read ({reason}). Delete this folder to {rest}.")


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
    """Give a model of diffusers or transformers the weights that `folder` holds, in float32 whatever they are there.

    `fit` turns the state there into one of `module`'s shape.
    """
    if not (folder / "config.json").is_file():
        raise WeightsError(f"No model at {folder}, which has no config.json. Give `start` the folder of a trained one.")
    try:
        found = type(module).from_pretrained(folder, torch_dtype=torch.float32, local_files_only=True)
    except (OSError, ValueError, SafetensorError) as error:
        raise WeightsError(
            f"The model at {folder} cannot be read ({error}). Train it again, or name another."
        ) from error
    state = found.state_dict()
    if broken := first_not_finite(state.items()):
        raise WeightsError(
            f"The model at {folder} holds numbers that are not finite (`{broken}`). Name another as `start`."
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
    """Put back what `pack_optimizer` took.

    Raises:
        CheckpointError: It is the state of other parameters, or not of all.
    """
    state: dict[int, dict[str, Tensor]] = {}
    for name, value in packed.items():
        index, key = name.split(".", 1)
        state.setdefault(int(index), {})[key] = value
    parameters = [p for group in optimizer.param_groups for p in group["params"]]
    # Before the first step there is no state of any parameter, afterwards of every one.
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
    """Refuse numbers that are not finite.

    Raises:
        DivergedError: `what`, and the name of the first tensor that has one.
    """
    if broken := first_not_finite(named):
        raise DivergedError(
            f"{what}: `{broken}` holds numbers that are not finite. Lower the learning rate, or lengthen its warm-up."
        )


def check_exported(folder: Path) -> None:
    """Look at the files of a model that was written, after which none that half precision cannot hold is left there.

    Raises:
        DivergedError: A number is not finite; the model is removed.
    """
    for path in sorted(folder.rglob("*.safetensors")):
        if broken := first_not_finite(load_file(path).items()):
            files.remove(folder)
            raise DivergedError(
                f"{folder} is not kept: `{broken}` in {path.name} holds numbers that are not finite, or too large for half "
                "precision. Train again with a lower learning rate or more weight decay, with another `--output`."
            )


def _checksum(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
