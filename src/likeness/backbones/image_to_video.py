"""Loads CogVideoX's image-to-video pipeline around a given transformer: the base of the released FantasyID.

Parts are loaded separately, because the published `model_index.json` names the publisher's own classes.
"""

from pathlib import Path
from typing import Any

import torch
from diffusers.models.autoencoders.autoencoder_kl_cogvideox import AutoencoderKLCogVideoX
from diffusers.models.transformers.cogvideox_transformer_3d import CogVideoXTransformer3DModel
from diffusers.pipelines.cogvideo.pipeline_cogvideox_image2video import CogVideoXImageToVideoPipeline
from diffusers.schedulers.scheduling_dpm_cogvideox import CogVideoXDPMScheduler
from transformers import T5EncoderModel

from likeness.backbones.check import LOAD_ERRORS, check_finite_weights, check_pipeline
from likeness.backbones.load import quiet_loading
from likeness.backbones.tokenizer import load_tokenizer
from likeness.errors import WeightsError


def load_image_pipeline(
    folder: Path, transformer: CogVideoXTransformer3DModel, *, dtype: torch.dtype
) -> CogVideoXImageToVideoPipeline:
    """Load all parts of the pipeline except the transformer; the scheduler is CogVideoX's DPM solver.

    Raises:
        WeightsError: A part is missing or damaged, or its tensors are not those of its config.
    """
    check_pipeline(folder, components=("vae", "text_encoder"))
    tokenizer = load_tokenizer(folder / "tokenizer")
    # Never ask the network.
    local: dict[str, Any] = {"local_files_only": True}
    try:
        with quiet_loading():
            scheduler: Any = CogVideoXDPMScheduler.from_pretrained(folder / "scheduler", **local)
            pipeline = CogVideoXImageToVideoPipeline(
                tokenizer=tokenizer,
                text_encoder=T5EncoderModel.from_pretrained(folder / "text_encoder", dtype=dtype, **local),
                vae=AutoencoderKLCogVideoX.from_pretrained(folder / "vae", torch_dtype=dtype, **local),
                transformer=transformer,
                scheduler=scheduler,
            )
    except LOAD_ERRORS as error:
        raise WeightsError(
            f"{folder} holds no whole CogVideoX image-to-video pipeline: {error} "
            "Fetch it again with `likeness models pull`."
        ) from error
    check_finite_weights(pipeline, folder, ("vae", "text_encoder"))
    return pipeline
