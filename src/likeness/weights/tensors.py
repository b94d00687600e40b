"""Reads tensors from files: the one place where a damaged file of weights becomes a `WeightsError`.

Safetensors files, and torch's pickles as plain tensors only. The header is compared with the file's size before anything
is mapped into memory, and numbers that are not finite are refused: one NaN in a weight makes every frame black. Whether
the tensors are those of an architecture is for `weights.strict` to say.
"""

import warnings
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from pickle import UnpicklingError
from typing import TYPE_CHECKING, Any

from likeness.errors import LikenessError, WeightsError
from likeness.weights.strict import cut_list, read_header

if TYPE_CHECKING:
    import numpy as np
    from torch import Tensor

REMEDY = "Copy or pull it again."
"""How a message ends that knows nothing better."""


def read_tensors(
    path: Path,
    *,
    only: Callable[[str], bool] | None = None,
    is_finite: bool = True,
    remedy: str = REMEDY,
    error: type[LikenessError] = WeightsError,
) -> "dict[str, Tensor]":
    """Read a safetensors file as torch tensors on the CPU.

    Args:
        path: The file.
        only: Which names are read; all by default.
        is_finite: Refuse infinities and NaN. Turn it off where a tensor may hold them on purpose.
        remedy: Ends the message.
        error: What is raised, where a file is not one of weights (a checkpoint, a character).

    Raises:
        WeightsError: The file is missing, cut or damaged, or a number is not finite. The message names the file.
    """
    return _read(path, "pt", only, is_finite, remedy, error)


def read_arrays(
    path: Path,
    *,
    only: Callable[[str], bool] | None = None,
    is_finite: bool = True,
    remedy: str = REMEDY,
    error: type[LikenessError] = WeightsError,
) -> "dict[str, np.ndarray]":
    """Read a safetensors file as NumPy arrays: `read_tensors` without torch."""
    return _read(path, "np", only, is_finite, remedy, error)


def read_metadata(path: Path, *, remedy: str = REMEDY, error: type[LikenessError] = WeightsError) -> dict[str, str]:
    """Read the free text in a safetensors file's header. Raises as `read_tensors` does."""
    try:
        return dict(read_header(path, remedy=remedy)[2])
    except WeightsError as problem:
        raise error(str(problem)) from problem


def read_pickle(path: Path, *, remedy: str = REMEDY) -> dict[str, Any]:
    """Read what `torch.save` wrote of plain tensors and containers, mapped and not copied. It cannot run any code.

    Raises:
        WeightsError: The file is missing or damaged, holds other things than tensors, or no dictionary of them.
    """
    import torch

    if not path.is_file():
        raise WeightsError(f"{path} is missing. {remedy}")
    try:
        with warnings.catch_warnings():
            # torch warns of the protocol of pickles that it did not write, and refuses them then.
            warnings.filterwarnings("ignore", message="Detected pickle protocol")
            content = _load_pickle(torch.load, path)
    except UnpicklingError as problem:
        raise WeightsError(
            f"{path} is damaged, or a pickle of other things than tensors, which could run any code when it is opened: "
            f"it was not. {_first_line(problem)} If it is your own, load it where it was made and save its state dict "
            f"as .safetensors. {remedy}"
        ) from problem
    except (OSError, RuntimeError, EOFError, ValueError, TypeError, KeyError, AttributeError) as problem:
        raise WeightsError(f"{path} cannot be read: {_first_line(problem)} {remedy}") from problem
    if not isinstance(content, dict):
        raise WeightsError(f"{path} holds a {type(content).__name__} and no dictionary of tensors. {remedy}")
    return content


def refuse_not_finite(state: Mapping[str, Any], *, what: str, remedy: str = REMEDY) -> None:
    """Stop where a tensor or an array holds an infinity or NaN.

    Raises:
        WeightsError: The message lists the names of those that do.
    """
    if names := not_finite_in(state):
        raise WeightsError(_not_finite(what, names, remedy))


def not_finite_in(state: Mapping[str, Any]) -> list[str]:
    """Names of the tensors or arrays that hold an infinity or NaN."""
    return [name for name, values in state.items() if not _is_finite(values)]


def _read(
    path: Path,
    framework: str,
    only: Callable[[str], bool] | None,
    is_finite: bool,
    remedy: str,
    error: type[LikenessError],
) -> dict[str, Any]:
    from safetensors import SafetensorError, safe_open

    try:
        names: Iterable[str] = read_header(path, remedy=remedy)[0]
        with safe_open(path, framework=framework) as file:
            state = {name: file.get_tensor(name) for name in names if only is None or only(name)}
    except WeightsError as problem:
        raise error(str(problem)) from problem
    except (SafetensorError, OSError, KeyError, ValueError, TypeError, AttributeError) as problem:
        raise error(f"{path} cannot be read: {_first_line(problem)} {remedy}") from problem
    if is_finite and (strange := not_finite_in(state)):
        raise error(_not_finite(str(path), strange, remedy))
    return state


def _load_pickle(load: Callable[..., Any], path: Path) -> Any:
    try:
        return load(path, map_location="cpu", weights_only=True, mmap=True)
    except RuntimeError as problem:
        if "mmap can only be used" not in str(problem):
            raise
        # Files from before torch 1.6 are no archives, and cannot be mapped.
        return load(path, map_location="cpu", weights_only=True)


def _is_finite(values: Any) -> bool:
    """Read once and without a copy: the least and the largest number carry NaN with them."""
    if hasattr(values, "aminmax"):
        if not values.is_floating_point() or not values.numel() or values.is_meta:
            return True
        # torch has no order for numbers of eight bits.
        least, most = (values.float() if values.element_size() == 1 else values).aminmax()
        return bool(least.isfinite() and most.isfinite())
    import numpy as np

    return values.dtype.kind not in "fc" or bool(np.isfinite(values).all())


def _not_finite(what: str, names: list[str], remedy: str) -> str:
    return f"{what} holds numbers that are not finite (infinity or NaN) in {cut_list(names)}. {remedy}"


def _first_line(problem: BaseException) -> str:
    line = (str(problem).strip() or type(problem).__name__).splitlines()[0]
    return line if line.endswith(".") else f"{line}."
