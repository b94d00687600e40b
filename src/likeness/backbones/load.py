"""Loads a stock CogVideoX pipeline from a folder or by its hub name, offline if possible."""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from diffusers.pipelines.cogvideo.pipeline_cogvideox import CogVideoXPipeline
from diffusers.utils import logging as diffusers_logging
from transformers.utils import logging as transformers_logging

from likeness.backbones.check import (
    LOAD_ERRORS,
    check_finite_weights,
    check_pipeline,
    refuse_image_input,
    refuse_other_pipelines,
)
from likeness.backbones.tokenizer import load_tokenizer
from likeness.errors import WeightsError
from likeness.runtime import choose_device, choose_dtype


def load_pipeline(source: str | Path, *, device: str = "auto", moves_to_device: bool = True) -> CogVideoXPipeline:
    """Load a CogVideoX pipeline.

    A folder is read from disk only. A hub name is looked up in the hub's local cache first; the network is used if
    files are missing there. On a CPU the dtype is float32, because float16 is slow. Without `moves_to_device` the
    pipeline stays in host memory, in the dtype of `device`, until a memory plan is applied.

    Raises:
        WeightsError: There is no such pipeline, or its tensors are not exactly those of its configs.
    """
    target = choose_device(device)
    dtype = choose_dtype("auto", target)
    given: dict[str, Any] = {}
    if is_folder := (Path(source) / "model_index.json").is_file():
        refuse_other_pipelines(Path(source))
        refuse_image_input(Path(source))
        check_pipeline(Path(source))
        given["tokenizer"] = load_tokenizer(Path(source) / "tokenizer")
    try:
        with quiet_loading():
            pipeline = _load(str(source), dtype, given)
    except LOAD_ERRORS as error:
        raise WeightsError(
            f"No CogVideoX pipeline at {source}: {error} `likeness doctor` lists the weights that are here."
        ) from error
    if moves_to_device:
        pipeline = pipeline.to(target)
    if is_folder:
        check_finite_weights(pipeline, source)
    return pipeline


def _load(source: str, dtype: torch.dtype, given: dict[str, Any]) -> CogVideoXPipeline:
    try:
        return CogVideoXPipeline.from_pretrained(source, dtype=dtype, local_files_only=True, **given)
    except LOAD_ERRORS:
        if Path(source).is_dir():
            raise
    return CogVideoXPipeline.from_pretrained(source, dtype=dtype)


@contextmanager
def quiet_loading() -> Iterator[None]:
    """Disable the progress bars of diffusers and transformers while weights load, then restore them."""
    libraries: list[Any] = [
        library for library in (diffusers_logging, transformers_logging) if library.is_progress_bar_enabled()
    ]
    for library in libraries:
        library.disable_progress_bar()
    try:
        yield
    finally:
        for library in libraries:
            library.enable_progress_bar()
