"""A preset's backbone and a method's weights, or a clear word about what is wrong with them."""

from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError

from likeness import weights
from likeness.errors import ConfigError, WeightsError
from likeness.generation.presets import Preset
from likeness.methods.magic_mirror import MagicMirror
from likeness.weights.strict import altered_in, read_shapes, refuse_differences, shapes_of


def locate_backbone(preset: Preset) -> Path:
    """The folder of a preset's backbone.

    Raises:
        WeightsError: It is not whole here; the last sentence says which command brings it.
    """
    return weights.locate(preset.weights)


def load_adapter(folder: Path) -> MagicMirror:
    """Load a method's weights, strictly.

    Raises:
        WeightsError: The folder is absent or damaged, or its tensors are not exactly those of its settings. All that are
            missing, extra, misshapen or altered are listed.
    """
    if not folder.is_dir():
        raise WeightsError(
            f"No adapter at {folder}. A preset needs a backbone and the method's own weights: train them with "
            "`likeness train`, or name their folder with `--adapter`. `likeness doctor` lists what is here."
        )
    try:
        config: Any = MagicMirror.load_config(folder, local_files_only=True)
        with torch.device("meta"):
            empty: Any = MagicMirror.from_config(config)
    except (OSError, ValueError, TypeError, ConfigError) as error:
        raise WeightsError(
            f"The adapter at {folder} cannot be read: {error}. Copy or train it again."
        ) from error
    refuse_differences(
        shapes_of(empty.state_dict()),
        read_shapes(folder),
        what=f"The adapter at {folder}",
        altered=altered_in(folder),
        remedy="Copy or train it again.",
    )
    try:
        adapter: Any = MagicMirror.from_pretrained(folder, local_files_only=True)
    except (OSError, ValueError, RuntimeError, SafetensorError) as error:
        raise WeightsError(
            f"The adapter at {folder} cannot be read: {error}. Copy or train it again."
        ) from error
    return adapter.eval()
