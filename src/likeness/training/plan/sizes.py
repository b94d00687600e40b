"""The models of a recipe on torch's meta device: parameters without memory, from config.json files alone."""

from dataclasses import dataclass
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import torch
from diffusers.models.autoencoders.autoencoder_kl_cogvideox import AutoencoderKLCogVideoX
from diffusers.models.transformers.cogvideox_transformer_3d import CogVideoXTransformer3DModel
from torch import nn

from likeness import files
from likeness.errors import ConfigError
from likeness.training.methods.settings import MethodRecipe

_COGVIDEOX: dict[str, Any] = {
    "attention_head_dim": 64, "in_channels": 16, "out_channels": 16, "time_embed_dim": 512, "text_embed_dim": 4096,
    "sample_width": 90, "sample_height": 60, "sample_frames": 49, "max_text_seq_length": 226, "patch_size": 2,
}  # fmt: skip
PUBLISHED_CONFIGS: dict[str, dict[str, Any]] = {
    "2b": _COGVIDEOX | {"num_attention_heads": 30, "num_layers": 30, "use_rotary_positional_embeddings": False},
    "5b": _COGVIDEOX | {"num_attention_heads": 48, "num_layers": 42, "use_rotary_positional_embeddings": True},
}
"""Published sizes of the transformers of CogVideoX-2B and 5B, for a base that is not on this machine."""
_VAE: dict[str, Any] = {
    "down_block_types": ("CogVideoXDownBlock3D",) * 4, "up_block_types": ("CogVideoXUpBlock3D",) * 4,
    "block_out_channels": (128, 256, 256, 512), "layers_per_block": 3, "latent_channels": 16,
}  # fmt: skip


@dataclass(frozen=True, kw_only=True, slots=True)
class ParameterCount:
    """A part of the model with its number of parameters."""

    name: str
    trainable: int
    frozen: int


@dataclass(frozen=True, kw_only=True)
class MetaModels:
    """The models of a recipe, without memory."""

    source: str
    """Where the sizes of the base come from."""
    transformer: Any
    vae: Any
    method: Any

    @property
    def config(self) -> Any:
        """Sizes of the transformer."""
        return self.transformer.config

    @property
    def width(self) -> int:
        """Channels of a token."""
        return self.config.num_attention_heads * self.config.attention_head_dim

    def parts(self) -> list[ParameterCount]:
        """Parameters of the base and of each part of the method."""
        parts = [
            ParameterCount(name="base transformer", trainable=0, frozen=count_parameters(self.transformer)),
            ParameterCount(name="VAE", trainable=0, frozen=count_parameters(self.vae)),
        ]
        for name, module in self.method.named_children():
            trained = {key for key, _ in module.named_parameters() if not f"{name}.{key}".startswith(self._frozen)}
            sizes = {key: parameter.numel() for key, parameter in module.named_parameters()}
            trainable = sum(sizes[key] for key in trained)
            parts.append(ParameterCount(name=name, trainable=trainable, frozen=sum(sizes.values()) - trainable))
        return [part for part in parts if part.trainable or part.frozen]

    @property
    def _frozen(self) -> tuple[str, ...]:
        return tuple(self.method.frozen)


def count_parameters(module: nn.Module) -> int:
    """Parameters of a module."""
    return sum(parameter.numel() for parameter in module.parameters())


def read_models(recipe: MethodRecipe) -> MetaModels:
    """Build the models of a recipe on the meta device.

    Raises:
        ConfigError: The base is not here and its name says neither 2B nor 5B, or a config.json cannot be used.
    """
    sizes, vae, source = _read_base(recipe.base)
    with torch.device("meta"):
        transformer: Any = CogVideoXTransformer3DModel.from_config(sizes)
        method = recipe.training_spec().build(SimpleNamespace(**transformer.config), recipe.method, recipe.profile)
        decoder = AutoencoderKLCogVideoX.from_config(vae)
    return MetaModels(source=source, transformer=transformer, vae=decoder, method=method)


def _read_base(folder: Path) -> tuple[dict[str, Any], dict[str, Any], str]:
    if (folder / "transformer" / "config.json").is_file():
        return _read(folder / "transformer"), _read(folder / "vae"), f"{folder}: config.json"
    name = folder.name.lower()
    found = [size for size in PUBLISHED_CONFIGS if f"-{size}" in name or f"_{size}" in name]
    if "1.5" in name or len(found) != 1:
        raise ConfigError(
            f"No pipeline at {folder}, and sizes are known of CogVideoX-2B and CogVideoX-5B alone. Set `base` to a "
            "folder with transformer/config.json and vae/config.json (weights are not needed)."
        )
    return PUBLISHED_CONFIGS[found[0]], _VAE, f"published sizes of CogVideoX-{found[0].upper()}; {folder} is not here"


def _read(folder: Path) -> dict[str, Any]:
    try:
        config = files.read_json(folder / "config.json")
    except (OSError, ValueError) as error:
        raise ConfigError(f"{folder} has no config.json that can be read ({error}). Copy the base again.") from error
    return {key: value for key, value in config.items() if not key.startswith("_")}
