"""A method's weights from a folder, or a clear word about what is wrong with them."""

from pathlib import Path
from typing import Any

from safetensors import SafetensorError

from likeness.errors import WeightsError
from likeness.methods.magic_mirror import MagicMirror


def load_adapter(folder: Path) -> MagicMirror:
    """Load a method's weights, strictly.

    Raises:
        WeightsError: The folder is absent or damaged, or its tensors are not exactly those of its settings.
    """
    if not folder.is_dir():
        raise WeightsError(
            f"No adapter at {folder}. A preset needs a backbone and the method's own weights: train them with "
            "`likeness train`, or name their folder with `--adapter`. `likeness doctor` lists what is here."
        )
    try:
        loaded: Any = MagicMirror.from_pretrained(folder, local_files_only=True, output_loading_info=True)
    except (OSError, ValueError, SafetensorError) as error:
        raise WeightsError(
            f"The adapter at {folder} cannot be read: {error}. Copy or train it again."
        ) from error
    adapter, report = loaded
    wrong = [name for kind in ("missing_keys", "unexpected_keys", "mismatched_keys") for name in report[kind]]
    if wrong:
        raise WeightsError(
            f"The adapter at {folder} does not fit its own settings: {', '.join(map(str, wrong[:5]))}"
            f"{' and more' if len(wrong) > 5 else ''} are missing or too many. Copy or train it again."
        )
    return adapter.eval()
