"""Checks a pipeline folder from its configs and safetensors headers, before weights are loaded.

diffusers and transformers initialize missing tensors randomly with only a warning; here they are an error.
"""

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import torch
from diffusers.models.autoencoders.autoencoder_kl_cogvideox import AutoencoderKLCogVideoX
from diffusers.models.transformers.cogvideox_transformer_3d import CogVideoXTransformer3DModel
from safetensors import SafetensorError
from torch import nn
from transformers import T5Config, T5EncoderModel

from likeness.backbones.transformer_config import read_transformer_config
from likeness.errors import WeightsError
from likeness.files import read_json
from likeness.weights.strict import read_shapes, refuse_differences, shapes_of
from likeness.weights.tensors import refuse_not_finite

_TIED_EMBEDDINGS = ("text_encoder.shared.weight", "text_encoder.encoder.embed_tokens.weight")
"""Two names of one shared tensor; a file may contain either or both."""

COMPONENTS = ("transformer", "vae", "text_encoder")
LOAD_ERRORS = (OSError, ValueError, TypeError, KeyError, AttributeError, RecursionError, SafetensorError)
"""What diffusers and transformers raise for missing and damaged files."""


def build_empty(folder: Path, components: Sequence[str] = COMPONENTS) -> dict[str, nn.Module]:
    """Build transformer, VAE and text encoder from their configs on the meta device.

    Raises:
        WeightsError: A config is missing or describes another architecture.
    """
    builders: dict[str, Callable[[Path], nn.Module]] = {
        "transformer": _from_config(CogVideoXTransformer3DModel),
        "vae": _from_config(AutoencoderKLCogVideoX),
        "text_encoder": lambda folder: T5EncoderModel(T5Config.from_pretrained(folder, local_files_only=True)),
    }
    modules = {}
    for component in components:
        try:
            with torch.device("meta"):
                modules[component] = builders[component](folder / component)
        except LOAD_ERRORS as error:
            raise WeightsError(
                f"{folder / component} does not describe a part of CogVideoX: {error} Copy or pull it again."
            ) from error
    return modules


def check_pipeline(folder: Path, *, components: Sequence[str] = COMPONENTS) -> None:
    """Compare all tensors in a CogVideoX folder, in single files or shards, with its configs.

    Args:
        folder: A diffusers folder.
        components: Subfolders to check.

    Raises:
        WeightsError: A file is missing or damaged, or tensors are missing, extra or misshapen; all are listed.
    """
    expected: dict[str, tuple[int, ...]] = {}
    found: dict[str, tuple[int, ...]] = {}
    for component, module in build_empty(folder, components).items():
        stem = "model" if component == "text_encoder" else "diffusion_pytorch_model"
        expected |= {f"{component}.{name}": shape for name, shape in shapes_of(module.state_dict()).items()}
        found |= {f"{component}.{name}": shape for name, shape in read_shapes(folder / component, stem).items()}
    optional = [name for name in _TIED_EMBEDDINGS if found.keys() & set(_TIED_EMBEDDINGS) - {name}]
    refuse_differences(
        expected,
        found,
        what=f"The pipeline at {folder}",
        optional=optional,
        remedy="Copy it again, or fetch it with `likeness models pull`.",
    )


def refuse_other_pipelines(folder: Path) -> None:
    """Refuse a diffusers folder of another pipeline than `CogVideoXPipeline`; its parts might load without an error.

    Raises:
        WeightsError: `model_index.json` cannot be read or names another class.
    """
    path = folder / "model_index.json"
    try:
        found = read_json(path)["_class_name"]
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise WeightsError(f"{path} is damaged ({error!r}). Copy or pull it again.") from error
    if found != "CogVideoXPipeline":
        raise WeightsError(
            f"{path} is of a `{found}`; a `CogVideoXPipeline` is needed, which makes videos from text: CogVideoX-2B, "
            "CogVideoX-5B or CogVideoX1.5-5B. An image-to-video pipeline serves the released FantasyID alone."
        )


def refuse_image_input(folder: Path) -> None:
    """Refuse a transformer that reads latents of an image beside those of the video, under any `model_index.json`.

    Raises:
        WeightsError: It reads more channels than it predicts.
    """
    config = read_transformer_config(folder) or {}
    in_channels, out_channels = config.get("in_channels", 16), config.get("out_channels", 16)
    if in_channels != out_channels:
        raise WeightsError(
            f"The transformer at {folder} has {in_channels} channels in and {out_channels} out: it makes videos from "
            "an image. Use one that makes them from text: CogVideoX-2B, CogVideoX-5B or CogVideoX1.5-5B."
        )


def check_finite_weights(pipeline: Any, source: str | Path, components: Sequence[str] = COMPONENTS) -> None:
    """Refuse a loaded pipeline with infinite or NaN weights.

    Raises:
        WeightsError: The names of the tensors are listed.
    """
    for component in components:
        refuse_not_finite(getattr(pipeline, component).state_dict(), what=f"{component} of the pipeline at {source}")


def _from_config(model_class: Any) -> Callable[[Path], nn.Module]:
    def build(folder: Path) -> nn.Module:
        config = model_class.load_config(folder, local_files_only=True)
        if (name := config.get("_class_name")) != model_class.__name__:
            raise ValueError(f"its config is for `{name}`, not `{model_class.__name__}`.")
        return model_class.from_config(config)

    return build
