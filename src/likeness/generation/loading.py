"""A stock diffusers pipeline from a folder or hub name, on the best device, without asking the network needlessly."""

from pathlib import Path

from diffusers import CogVideoXPipeline
from safetensors import SafetensorError

from likeness.errors import WeightsError
from likeness.methods.magic_mirror import MagicMirror
from likeness.runtime import choose_device, choose_dtype


def load_pipeline(source: str | Path, *, device: str = "auto") -> CogVideoXPipeline:
    """Load a CogVideoX pipeline.

    A folder is read from disk and nothing else is asked. A CPU computes in float32, because float16 is slow there.

    Raises:
        WeightsError: The folder or hub name holds no such pipeline.
    """
    place = choose_device(device)
    dtype = choose_dtype("auto", place)
    is_folder = Path(source).is_dir()
    try:
        pipeline = CogVideoXPipeline.from_pretrained(str(source), dtype=dtype, local_files_only=is_folder)
    except (OSError, ValueError, SafetensorError) as error:
        raise WeightsError(
            f"No CogVideoX pipeline at {source}: {error} `likeness doctor` lists the weights that are here."
        ) from error
    return pipeline.to(place)


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
        adapter, report = MagicMirror.from_pretrained(folder, local_files_only=True, output_loading_info=True)
    except (OSError, ValueError, SafetensorError) as error:
        raise WeightsError(
            f"The adapter at {folder} cannot be read: {error}. Copy or train it again."
        ) from error
    wrong = [name for kind in ("missing_keys", "unexpected_keys", "mismatched_keys") for name in report[kind]]
    if wrong:
        raise WeightsError(
            f"The adapter at {folder} does not fit its own settings: {', '.join(map(str, wrong[:5]))}"
            f"{' and more' if len(wrong) > 5 else ''} are missing or too many. Copy or train it again."
        )
    return adapter.eval()
