"""A preset's backbone and a method's weights, or a clear word about what is wrong with them."""

from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError

from likeness import weights
from likeness.errors import ConfigError, WeightsError
from likeness.generation.loading.presets import Preset
from likeness.methods.fantasy_id import FantasyID
from likeness.methods.magic_mirror import MagicMirror
from likeness.methods.method import Method
from likeness.weights.strict import altered_in, read_shapes, refuse_differences, shapes_of
from likeness.weights.tensors import refuse_not_finite

CLASSES: dict[str, type[Method]] = {"magic_mirror": MagicMirror, "fantasy_id": FantasyID}
"""What the names of `presets.METHODS` stand for."""


def locate_backbone(preset: Preset) -> Path:
    """The folder of a preset's backbone.

    Raises:
        WeightsError: It is not whole here; the last sentence says which command brings it.
    """
    return weights.locate(preset.weights)


def adapter_folder(method: str | type[Method], adapter: str | Path | None, backbone: str | Path) -> Path:
    """Where a method's weights are: where `adapter` says, or under the method's name in the backbone's folder.

    Raises:
        ConfigError: The method has no name here, so that its folder has to be told.
    """
    if adapter:
        return Path(adapter)
    if isinstance(method, str):
        return Path(backbone) / method
    raise ConfigError(
        f"{method.__name__} has no place in the folder of a backbone. Name its folder: "
        f"`Likeness.load(method={method.__name__}, adapter=...)`."
    )


def load_adapter(folder: Path, method: str | type[Method] = "magic_mirror") -> Any:
    """Load a method's weights, strictly.

    Args:
        folder: What `save_pretrained` wrote.
        method: The name of the method, or the class of one that has no name here.

    Raises:
        WeightsError: The folder is absent or damaged, holds another method, or its tensors are not exactly those of its
            settings. All that are missing, extra, misshapen or altered are listed.
    """
    kind: Any = CLASSES[method] if isinstance(method, str) else method
    if not folder.is_dir():
        recipe = f"recipes/tiny/{method}.toml" if isinstance(method, str) else "your recipe"
        raise WeightsError(
            f"No adapter at {folder}. A preset needs a backbone and the method's own weights: train them with "
            f"`likeness train {recipe}`, or name their folder with `--adapter`. `likeness doctor` lists what is here."
        )
    try:
        config: Any = kind.load_config(folder, local_files_only=True)
        found = config.get("_class_name", kind.__name__)
        if found != kind.__name__:
            raise WeightsError(
                f"The adapter at {folder} is of {found}, not of {kind.__name__}. {_name(found)} or name another adapter."
            )
        with torch.device("meta"):
            empty: Any = kind.from_config(config)
    except (OSError, ValueError, TypeError, ConfigError) as error:
        raise WeightsError(f"The adapter at {folder} cannot be read: {error}. Copy or train it again.") from error
    refuse_differences(
        shapes_of(empty.state_dict()),
        read_shapes(folder),
        what=f"The adapter at {folder}",
        altered=altered_in(folder),
        remedy="Copy or train it again.",
    )
    try:
        adapter: Any = kind.from_pretrained(folder, local_files_only=True)
    except (OSError, ValueError, RuntimeError, SafetensorError) as error:
        raise WeightsError(f"The adapter at {folder} cannot be read: {error}. Copy or train it again.") from error
    refuse_not_finite(adapter.state_dict(), what=f"The adapter at {folder}", remedy="Copy or train it again.")
    return adapter.eval()


def _name(found: str) -> str:
    """Which option chooses the method of an adapter."""
    names = [name for name, kind in CLASSES.items() if kind.__name__ == found]
    return f"Use `--method {names[0]}`," if names else "Load it by its own class,"
