"""Loads what a stage trains over: a trained pipeline, or a trained VAE."""

from collections.abc import Sequence
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import torch
from diffusers.models.autoencoders.autoencoder_kl_cogvideox import AutoencoderKLCogVideoX
from diffusers.models.transformers.cogvideox_transformer_3d import CogVideoXTransformer3DModel
from diffusers.pipelines.cogvideo.pipeline_cogvideox import CogVideoXPipeline

from likeness.backbones.check import LOAD_ERRORS
from likeness.errors import WeightsError

NO_PIPELINE_REMEDY = (
    "Set `base` to a folder with `model_index.json` and `transformer`, or train tiny's: "
    "`likeness train recipes/tiny/base.toml`."
)


def read_base(
    folder: Path,
    *,
    dtype: torch.dtype = torch.float32,
    device: torch.device | None = None,
    skipped_components: Sequence[str] = (),
) -> CogVideoXPipeline:
    """A trained pipeline, frozen.

    Args:
        folder: Of the pipeline.
        dtype: Of its weights in memory.
        device: Where they are; the CPU by default.
        skipped_components: Components that are not loaded, such as `text_encoder` where prompts are precomputed.

    Raises:
        WeightsError: The folder has no pipeline, or one that cannot be read.
    """
    if not (folder / "model_index.json").exists():
        raise WeightsError(f"No pipeline at {folder}. {NO_PIPELINE_REMEDY}")
    try:
        pipe = CogVideoXPipeline.from_pretrained(
            folder, dtype=dtype, local_files_only=True, **dict.fromkeys(skipped_components, None)
        )
    except LOAD_ERRORS as error:
        raise WeightsError(
            f"The pipeline at {folder} cannot be read ({error}). Train it again, or name another."
        ) from error
    pipe.set_progress_bar_config(disable=True)
    for component in (pipe.vae, pipe.text_encoder, pipe.transformer):
        if component is not None:
            component.requires_grad_(False).eval()
    return pipe if device is None or device.type == "cpu" else pipe.to(device)


def read_transformer_config(folder: Path) -> Any:
    """The sizes of a pipeline's transformer, with an attribute for each setting; no weights are read.

    Raises:
        WeightsError: The folder has no pipeline, or one that cannot be read.
    """
    path = folder / "transformer" / "config.json"
    if not path.is_file():
        raise WeightsError(f"No pipeline at {folder}. {NO_PIPELINE_REMEDY}")
    config: Any = CogVideoXTransformer3DModel.load_config(path.parent)
    return SimpleNamespace(**config)


def read_vae(folder: Path) -> AutoencoderKLCogVideoX:
    """A trained VAE, frozen, in float32.

    Raises:
        WeightsError: The folder has no VAE.
    """
    if not (folder / "config.json").exists():
        raise WeightsError(f"No VAE at {folder}. Train one: `likeness train recipes/tiny/vae.toml`.")
    vae = AutoencoderKLCogVideoX.from_pretrained(folder, torch_dtype=torch.float32, local_files_only=True)
    return vae.requires_grad_(False).eval()
