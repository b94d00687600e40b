"""Reads tensors from files and turns every kind of damage into a `WeightsError`.

It reads safetensors files, and torch pickles of plain tensors. The header is compared with the file's size before the
file is mapped into memory, and values that are not finite are refused: one NaN in a weight makes every frame black.
`weights.strict` compares tensors with an architecture.
"""

import warnings
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from pickle import UnpicklingError
from typing import TYPE_CHECKING, Any

from likeness.errors import LikenessError, WeightsError
from likeness.weights.strict import read_header, shorten_list

if TYPE_CHECKING:
    import numpy as np
    from torch import Tensor

DEFAULT_REMEDY = "Copy or pull it again."
"""Default end of error messages."""


def read_tensors(
    path: Path,
    *,
    only: Callable[[str], bool] | None = None,
    is_finite: bool = True,
    remedy: str = DEFAULT_REMEDY,
    error: type[LikenessError] = WeightsError,
) -> "dict[str, Tensor]":
    """Read a safetensors file as torch tensors on the CPU.

    Args:
        path: The file.
        only: Selects tensors by name; all by default.
        is_finite: Refuse infinities and NaN. False if a tensor may contain them on purpose.
        remedy: Last sentence of the error message.
        error: Class of the error, for files other than weights (a checkpoint, a character).

    Raises:
        WeightsError: The file is missing, truncated or damaged, or a value is not finite. The message names the file.
    """
    return _read(path, "pt", only, is_finite, remedy, error)


def read_arrays(
    path: Path,
    *,
    only: Callable[[str], bool] | None = None,
    is_finite: bool = True,
    remedy: str = DEFAULT_REMEDY,
    error: type[LikenessError] = WeightsError,
) -> "dict[str, np.ndarray]":
    """Read a safetensors file as NumPy arrays: `read_tensors` without torch."""
    return _read(path, "np", only, is_finite, remedy, error)


def read_metadata(
    path: Path, *, remedy: str = DEFAULT_REMEDY, error: type[LikenessError] = WeightsError
) -> dict[str, str]:
    """Read the metadata in a safetensors file's header. Raises as `read_tensors` does."""
    try:
        return dict(read_header(path, remedy=remedy)[2])
    except WeightsError as problem:
        raise error(str(problem)) from problem


def read_pickle(path: Path, *, remedy: str = DEFAULT_REMEDY) -> dict[str, Any]:
    """Read a `torch.save` file of plain tensors and containers, memory-mapped. It cannot run any code.

    Raises:
        WeightsError: The file is missing or damaged, contains other objects than tensors, or is not a dictionary.
    """
    import torch

    if not path.is_file():
        raise WeightsError(f"{path} is missing. {remedy}")
    try:
        with warnings.catch_warnings():
            # torch warns about an unknown pickle protocol and then refuses the file.
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


def refuse_not_finite(state: Mapping[str, Any], *, what: str, remedy: str = DEFAULT_REMEDY) -> None:
    """Refuse tensors or arrays with an infinity or NaN.

    Raises:
        WeightsError: The message lists their names.
    """
    if names := not_finite_names(state):
        raise WeightsError(_not_finite(what, names, remedy))


def not_finite_names(state: Mapping[str, Any]) -> list[str]:
    """Names of the tensors or arrays with an infinity or NaN."""
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
    if is_finite and (not_finite := not_finite_names(state)):
        raise error(_not_finite(str(path), not_finite, remedy))
    return state


def _load_pickle(load: Callable[..., Any], path: Path) -> Any:
    try:
        return load(path, map_location="cpu", weights_only=True, mmap=True)
    except RuntimeError as problem:
        if "mmap can only be used" not in str(problem):
            raise
        # Files from before torch 1.6 are not zip archives and cannot be mapped.
        return load(path, map_location="cpu", weights_only=True)


def _is_finite(values: Any) -> bool:
    """One pass without a copy: minimum and maximum propagate NaN."""
    if hasattr(values, "aminmax"):
        if not values.is_floating_point() or not values.numel() or values.is_meta:
            return True
        # `aminmax` does not support 8-bit floats.
        minimum, maximum = (values.float() if values.element_size() == 1 else values).aminmax()
        return bool(minimum.isfinite() and maximum.isfinite())
    import numpy as np

    return values.dtype.kind not in "fc" or bool(np.isfinite(values).all())


def _not_finite(what: str, names: list[str], remedy: str) -> str:
    return f"{what} holds numbers that are not finite (infinity or NaN) in {shorten_list(names)}. {remedy}"


def _first_line(problem: BaseException) -> str:
    line = (str(problem).strip() or type(problem).__name__).splitlines()[0]
    return line if line.endswith(".") else f"{line}."
