"""Find, verify and load a preset's backbone and a method's weights."""

from pathlib import Path
from typing import Any

import torch

from likeness import weights
from likeness.backbones.check import LOAD_ERRORS
from likeness.errors import WeightsError
from likeness.generation.loading.presets import Preset
from likeness.generation.loading.resolve_weights import (
    EVA02_CLIP,
    FLAME_HIERARCHY,
    PUBLISHED_FANTASY_ID,
    refuse_missing_adapter,
    uses_published_checkpoint,
)
from likeness.methods.fantasy_id import FantasyID
from likeness.methods.magic_mirror import MagicMirror
from likeness.methods.method import Method
from likeness.weights import sha256_of
from likeness.weights.hashes import store_sha256
from likeness.weights.strict import find_altered, read_shapes, refuse_differences, shapes_of
from likeness.weights.tensors import refuse_not_finite

METHOD_CLASSES: dict[str, type[Method]] = {"magic_mirror": MagicMirror, "fantasy_id": FantasyID}
"""The classes of `presets.METHODS`."""


def verify_weights(
    preset: Preset, method: str | type[Method], backbone: str | Path | None, adapter: str | Path | None
) -> None:
    """Read every byte of the weights that a load will use, and compare with the registered checksums.

    Folders given by the user have no registered checksums; their files are hashed anew for the record of clips.

    Raises:
        WeightsError: Files are missing or altered; all of them are listed.
    """
    is_published_checkpoint = isinstance(method, str) and uses_published_checkpoint(preset, method, backbone, adapter)
    names = [] if backbone else [PUBLISHED_FANTASY_ID if is_published_checkpoint else preset.weights]
    names += [FLAME_HIERARCHY, EVA02_CLIP] if is_published_checkpoint else []
    for name in names:
        for file in weights.verify(name).files:
            if file.sha256 is not None:
                store_sha256(file.path, file.sha256)
    user_folders = [Path(backbone or preset.backbone)] if backbone or not is_published_checkpoint else []
    if adapter is not None:
        user_folders.append(Path(adapter))
    registered = {file.path for name in names for file in weights.entry(name).files}
    for path in (path for folder in user_folders for path in sorted(folder.rglob("*.safetensors"))):
        if path not in registered:
            store_sha256(path, sha256_of(path))


def load_adapter(folder: Path, method: str | type[Method] = "magic_mirror") -> Any:
    """Load a method's weights, strictly.

    Args:
        folder: What `save_pretrained` wrote.
        method: The name of the method, or a custom class.

    Raises:
        WeightsError: The folder is absent or damaged, holds another method, or its tensors are not exactly those of its
            settings. All that are missing, extra, misshapen or altered are listed.
    """
    method_class: Any = METHOD_CLASSES[method] if isinstance(method, str) else method
    refuse_missing_adapter(folder, method)
    try:
        config: Any = method_class.load_config(folder, local_files_only=True)
        class_name = config.get("_class_name", method_class.__name__)
        if class_name != method_class.__name__:
            raise WeightsError(
                f"The adapter at {folder} is of {class_name}, not of {method_class.__name__}. "
                f"{_suggest_loading(class_name)} or name another adapter."
            )
        with torch.device("meta"):
            meta_model: Any = method_class.from_config(config)
    except LOAD_ERRORS as error:
        raise WeightsError(f"The adapter at {folder} cannot be read: {error}. Copy or train it again.") from error
    refuse_differences(
        shapes_of(meta_model.state_dict()),
        read_shapes(folder),
        what=f"The adapter at {folder}",
        altered=find_altered(folder),
        remedy="Copy or train it again.",
    )
    try:
        adapter: Any = method_class.from_pretrained(folder, local_files_only=True)
    except (*LOAD_ERRORS, RuntimeError) as error:
        raise WeightsError(f"The adapter at {folder} cannot be read: {error}. Copy or train it again.") from error
    refuse_not_finite(adapter.state_dict(), what=f"The adapter at {folder}", remedy="Copy or train it again.")
    return adapter.eval()


def _suggest_loading(class_name: str) -> str:
    """How to load an adapter of that class."""
    names = [name for name, method_class in METHOD_CLASSES.items() if method_class.__name__ == class_name]
    return f"Use `--method {names[0]}`," if names else "Load it by its own class,"
