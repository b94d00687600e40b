"""A stock diffusers pipeline from a folder or hub name, on the best device, without asking the network needlessly."""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from diffusers import CogVideoXPipeline
from diffusers.utils import logging as diffusers_logging
from safetensors import SafetensorError
from transformers.utils import logging as transformers_logging

from likeness.errors import WeightsError
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
        with quiet_loading():
            pipeline = CogVideoXPipeline.from_pretrained(str(source), dtype=dtype, local_files_only=is_folder)
    except (OSError, ValueError, SafetensorError) as error:
        raise WeightsError(
            f"No CogVideoX pipeline at {source}: {error} `likeness doctor` lists the weights that are here."
        ) from error
    return pipeline.to(place)


@contextmanager
def quiet_loading() -> Iterator[None]:
    """Leave out the libraries' own progress bars while weights load, and bring them back as they were."""
    doors: list[Any] = [
        library for library in (diffusers_logging, transformers_logging) if library.is_progress_bar_enabled()
    ]
    for library in doors:
        library.disable_progress_bar()
    try:
        yield
    finally:
        for library in doors:
            library.enable_progress_bar()
