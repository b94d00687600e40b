"""Attaches a method's layers to a stock CogVideoX transformer, and detaches them without a change to it."""

from collections.abc import Callable
from dataclasses import dataclass
from inspect import signature
from typing import Any

from diffusers.models.transformers.cogvideox_transformer_3d import CogVideoXBlock, CogVideoXTransformer3DModel
from torch import Tensor, nn
from torch.utils.hooks import RemovableHandle

from likeness.adapters.blocks.base import AdaptedBlock
from likeness.adapters.conditioning.condition import CONDITION_KEY, FaceCondition
from likeness.adapters.conditioning.regions import Grid, restart_rope_per_region
from likeness.adapters.diffusers.compatibility import (
    disable_diffusers_compat,
    enable_diffusers_compat,
    offload_layers,
    refuse_late_sequential_offload,
    remove_layer_offload,
    suspended_group_offload,
)
from likeness.errors import ConfigError

_FORWARD = signature(CogVideoXTransformer3DModel.forward)


@dataclass(frozen=True, kw_only=True, slots=True, eq=False)
class Attachment:
    """A transformer with attached layers, and the handle of its hook."""

    transformer: CogVideoXTransformer3DModel
    layers: nn.ModuleDict
    hook: RemovableHandle


def transformer_sizes(config: Any) -> dict[str, int]:
    """Return the sizes of a transformer that an adapter depends on, from its config."""
    return {
        "width": config.num_attention_heads * config.attention_head_dim,
        "time_width": config.time_embed_dim,
        "text_width": config.text_embed_dim,
        "num_layers": config.num_layers,
    }


def refuse_other_sizes(adapter_config: Any, transformer_config: Any) -> None:
    """Raise ConfigError unless the adapter was built for a transformer of these sizes."""
    for name, size in transformer_sizes(transformer_config).items():
        if adapter_config.get(name, size) != size:
            raise ConfigError(
                f"The adapter's `{name}` is {adapter_config[name]}, the transformer's is {size}. "
                "Use the adapter with the backbone that it was trained on."
            )


def attach(
    transformer: CogVideoXTransformer3DModel,
    layers: nn.ModuleDict,
    condition: Callable[[Tensor, Tensor, Grid], tuple[FaceCondition | None, Tensor]],
    *,
    wrap: Callable[[CogVideoXBlock, nn.Module | None, int], AdaptedBlock[Any]],
) -> Attachment:
    """Wrap every block of `transformer`. Blocks with an entry in `layers` are adapted; the others pass the face on.

    Args:
        transformer: A stock transformer. Quantize before, enable caches after (`docs/composition.md`).
        layers: Adapters by the index of their block.
        condition: Called in each forward pass with its text, timesteps and grid of tokens. Returns the condition and
            the text; with the condition None the transformer is the stock one.
        wrap: Makes the method's block from a stock block, its adapter or None, and its index.

    Raises:
        ConfigError: Something is attached already, a cache is on, or a layer has no block.
    """
    blocks = transformer.transformer_blocks
    if any(type(block) is not CogVideoXBlock for block in blocks):
        raise ConfigError("Another method is attached to this transformer. Call its `detach()` first.")
    _refuse_cache(transformer, "attach")
    by_index = {int(name): block_adapter for name, block_adapter in layers.items()}
    missing = [str(index) for index in by_index if index >= len(blocks)]
    if missing:
        raise ConfigError(
            f"The adapter has layers for blocks {', '.join(missing)}, but the transformer has {len(blocks)} blocks. "
            "Use the adapter with the backbone that it was trained on."
        )
    with suspended_group_offload(transformer):
        for index, block in enumerate(blocks):
            assert isinstance(block, CogVideoXBlock)
            blocks[index] = wrap(block, by_index.get(index), index)
    offload_layers(transformer, layers)
    enable_diffusers_compat(transformer)

    def add_condition(_module: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        given = _FORWARD.bind(None, *args, **kwargs).arguments
        del given["self"]
        grid = _grid_of(transformer, given["hidden_states"])
        now, text = condition(given["encoder_hidden_states"], given["timestep"], grid)
        if now is None:
            return None
        refuse_late_sequential_offload(transformer)
        if now.has_own_positions:
            rope = restart_rope_per_region(
                transformer.config, grid, now.layout.num_people, given.get("image_rotary_emb")
            )
            given["image_rotary_emb"] = rope
        attention_kwargs = {**(given.get("attention_kwargs") or {}), CONDITION_KEY: now}
        return (), {**given, "encoder_hidden_states": text, "attention_kwargs": attention_kwargs}

    hook = transformer.register_forward_pre_hook(add_condition, with_kwargs=True)
    return Attachment(transformer=transformer, layers=layers, hook=hook)


def detach(attachment: Attachment) -> None:
    """Put the stock blocks back.

    Raises:
        ConfigError: A cache is on. Its hooks are on the adapted blocks.
    """
    transformer = attachment.transformer
    _refuse_cache(transformer, "detach")
    with suspended_group_offload(transformer):
        for index, block in enumerate(transformer.transformer_blocks):
            assert isinstance(block, AdaptedBlock)
            transformer.transformer_blocks[index] = block.base
    attachment.hook.remove()
    remove_layer_offload(attachment.layers)
    disable_diffusers_compat(transformer)


def _grid_of(transformer: CogVideoXTransformer3DModel, latents: Tensor) -> Grid:
    """Return frames, rows and columns of the tokens of latents (batch, frames, channels, height, width)."""
    frames, _, height, width = latents.shape[1:]
    side = transformer.config["patch_size"]
    return frames // (transformer.config["patch_size_t"] or 1), height // side, width // side


def _refuse_cache(transformer: CogVideoXTransformer3DModel, act: str) -> None:
    if transformer.is_cache_enabled:
        raise ConfigError(
            f"A cache is on, so `{act}()` would lose its hooks. Call `transformer.disable_cache()` first."
        )
