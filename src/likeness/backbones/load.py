"""A stock diffusers pipeline from a folder or hub name, on the best device, without asking the network needlessly."""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from diffusers.pipelines.cogvideo.pipeline_cogvideox import CogVideoXPipeline
from diffusers.utils import logging as diffusers_logging
from safetensors import SafetensorError
from transformers.utils import logging as transformers_logging

from likeness.backbones.check import check_pipeline, refuse_not_finite_parts, refuse_other_pipelines
from likeness.backbones.tokenizer import load_tokenizer
from likeness.errors import WeightsError
from likeness.runtime import choose_device, choose_dtype

_UNREADABLE = (OSError, ValueError, SafetensorError)


def load_pipeline(source: str | Path, *, device: str = "auto", is_placed: bool = True) -> CogVideoXPipeline:
    """Load a CogVideoX pipeline.

    A folder is read from disk and nothing else is asked. A hub name is looked for among the downloads of before, and the
    network is asked only for what is not whole there. A CPU computes in float32, because float16 is slow there. Not
    `is_placed`, it waits in the machine's memory, in the dtype of `device`, for a plan of what goes where.

    Raises:
        WeightsError: The folder or hub name holds no such pipeline, or not exactly the tensors of its configs.
    """
    place = choose_device(device)
    dtype = choose_dtype("auto", place)
    given: dict[str, Any] = {}
    if is_folder := (Path(source) / "model_index.json").is_file():
        refuse_other_pipelines(Path(source))
        check_pipeline(Path(source))
        given["tokenizer"] = load_tokenizer(Path(source) / "tokenizer")
    try:
        with quiet_loading():
            pipeline = _load(str(source), dtype, given)
    except _UNREADABLE as error:
        raise WeightsError(
            f"No CogVideoX pipeline at {source}: {error} `likeness doctor` lists the weights that are here."
        ) from error
    if is_placed:
        pipeline = pipeline.to(place)
    if is_folder:
        refuse_not_finite_parts(pipeline, source)
    return pipeline


def _load(source: str, dtype: torch.dtype, given: dict[str, Any]) -> CogVideoXPipeline:
    try:
        return CogVideoXPipeline.from_pretrained(source, dtype=dtype, local_files_only=True, **given)
    except _UNREADABLE:
        if Path(source).is_dir():
            raise
    return CogVideoXPipeline.from_pretrained(source, dtype=dtype)


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
