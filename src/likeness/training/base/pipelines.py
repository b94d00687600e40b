"""Loads what a stage trains over: a trained pipeline, or a trained VAE."""

from pathlib import Path

import torch
from diffusers.models.autoencoders.autoencoder_kl_cogvideox import AutoencoderKLCogVideoX
from diffusers.pipelines.cogvideo.pipeline_cogvideox import CogVideoXPipeline

from likeness.backbones.check import UNREADABLE
from likeness.errors import WeightsError


def read_base(folder: Path) -> CogVideoXPipeline:
    """A trained pipeline, frozen, in float32.

    Raises:
        WeightsError: The folder has no pipeline, or one that cannot be read.
    """
    if not (folder / "model_index.json").exists():
        raise WeightsError(f"No pipeline at {folder}. Train one: `likeness train recipes/tiny/base.toml`.")
    try:
        pipe = CogVideoXPipeline.from_pretrained(folder, dtype=torch.float32, local_files_only=True)
    except UNREADABLE as error:
        raise WeightsError(
            f"The pipeline at {folder} cannot be read ({error}). Train it again, or name another."
        ) from error
    pipe.set_progress_bar_config(disable=True)
    for part in (pipe.vae, pipe.text_encoder, pipe.transformer):
        part.requires_grad_(False).eval()
    return pipe


def read_vae(folder: Path) -> AutoencoderKLCogVideoX:
    """A trained VAE, frozen, in float32.

    Raises:
        WeightsError: The folder has no VAE.
    """
    if not (folder / "config.json").exists():
        raise WeightsError(f"No VAE at {folder}. Train one: `likeness train recipes/tiny/vae.toml`.")
    vae = AutoencoderKLCogVideoX.from_pretrained(folder, torch_dtype=torch.float32, local_files_only=True)
    return vae.requires_grad_(False).eval()
