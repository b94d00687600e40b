"""Put a method's layers on a stock CogVideoX transformer, and take them off without a trace."""

from collections.abc import Callable
from dataclasses import dataclass
from inspect import signature
from typing import Any

from diffusers.hooks.faster_cache import FasterCacheConfig
from diffusers.models.transformers.cogvideox_transformer_3d import CogVideoXBlock, CogVideoXTransformer3DModel
from diffusers.pipelines.cogvideo.pipeline_cogvideox import CogVideoXPipeline
from torch import Tensor, nn
from torch.utils.hooks import RemovableHandle

from likeness.adapters.blocks.base import AdaptedBlock
from likeness.adapters.conditioning.condition import CONDITION_KEY, FaceCondition
from likeness.adapters.conditioning.regions import own_positions
from likeness.adapters.diffusers.compatibility import (
    bring_back,
    disable_diffusers_compat,
    enable_diffusers_compat,
    guidance_part,
    offload_along,
    refuse_lost_weights,
    renewed_offload,
)
from likeness.errors import ConfigError

_FORWARD = signature(CogVideoXTransformer3DModel.forward)


@dataclass(frozen=True, kw_only=True, slots=True, eq=False)
class Attachment:
    """A transformer that wears an adapter, and what takes it off again."""

    transformer: CogVideoXTransformer3DModel
    layers: nn.ModuleDict
    hook: RemovableHandle


def transformer_sizes(config: Any) -> dict[str, int]:
    """What an adapter needs to know of a transformer, from its config."""
    return {
        "width": config.num_attention_heads * config.attention_head_dim,
        "time_width": config.time_embed_dim,
        "text_width": config.text_embed_dim,
        "num_layers": config.num_layers,
    }


def refuse_other_sizes(adapter_config: Any, transformer_config: Any) -> None:
    """Raise ConfigError unless the adapter was made for a transformer of these sizes."""
    for name, size in transformer_sizes(transformer_config).items():
        if adapter_config.get(name, size) != size:
            raise ConfigError(
                f"The adapter's `{name}` is {adapter_config[name]}, the transformer's is {size}. "
                "Use the adapter with the backbone that it was trained on."
            )


def attach(
    transformer: CogVideoXTransformer3DModel,
    layers: nn.ModuleDict,
    condition: Callable[[Tensor, Tensor], tuple[FaceCondition | None, Tensor]],
    *,
    wrap: Callable[[CogVideoXBlock, nn.Module | None, int], AdaptedBlock[Any]],
) -> Attachment:
    """Wrap every block of `transformer`; those named in `layers` are adapted, the others let the face pass by.

    Args:
        transformer: A stock transformer. Quantize before, enable caches after; `docs/composition.md` has the rest.
        layers: Adapter layers by block number.
        condition: Asked at each forward pass, with its text and timesteps, for what is on now and for the text; None
            leaves the transformer stock.
        wrap: Makes the method's block of a stock block, its layer or None, and its number.

    Raises:
        ConfigError: Something is attached already, a cache is on, or a layer has no block.
    """
    blocks = transformer.transformer_blocks
    if any(type(block) is not CogVideoXBlock for block in blocks):
        raise ConfigError("Another method is attached to this transformer. Call its `detach()` first.")
    _refuse_cache(transformer, "attach")
    by_number = {int(name): layer for name, layer in layers.items()}
    missing = [str(number) for number in by_number if number >= len(blocks)]
    if missing:
        raise ConfigError(
            f"The adapter has layers for blocks {', '.join(missing)}, but the transformer has {len(blocks)} blocks. "
            "Use the adapter with the backbone that it was trained on."
        )
    with renewed_offload(transformer):
        for number, block in enumerate(blocks):
            assert isinstance(block, CogVideoXBlock)
            blocks[number] = wrap(block, by_number.get(number), number)
    offload_along(transformer, layers)
    enable_diffusers_compat(transformer)

    def bring_condition(_module: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        given = _FORWARD.bind(None, *args, **kwargs).arguments
        del given["self"]
        now, text = condition(given["encoder_hidden_states"], given["timestep"])
        if now is None:
            return None
        refuse_lost_weights(transformer)
        grid = _grid_of(transformer, given["hidden_states"])
        now = now.on_grid(grid)
        if now.regions is not None and now.regions.own_positions:
            rope = own_positions(transformer.config, grid, now.num_people, given.get("image_rotary_emb"))
            given["image_rotary_emb"] = rope
        told = {**(given.get("attention_kwargs") or {}), CONDITION_KEY: now}
        return (), {**given, "encoder_hidden_states": text, "attention_kwargs": told}

    hook = transformer.register_forward_pre_hook(bring_condition, with_kwargs=True)
    return Attachment(transformer=transformer, layers=layers, hook=hook)


def detach(attachment: Attachment) -> None:
    """Put the stock blocks back.

    Raises:
        ConfigError: A cache is on, whose hooks sit on the adapted blocks.
    """
    transformer = attachment.transformer
    _refuse_cache(transformer, "detach")
    with renewed_offload(transformer):
        for number, block in enumerate(transformer.transformer_blocks):
            assert isinstance(block, AdaptedBlock)
            transformer.transformer_blocks[number] = block.base
    attachment.hook.remove()
    bring_back(attachment.layers)
    disable_diffusers_compat(transformer)


def is_guided(pipe: CogVideoXPipeline | None) -> bool | None:
    """Whether the call that `pipe` is in uses guidance in one pass.

    None where nobody knows: outside of a call, and with FasterCache, which leaves out unconditional rows as it likes.
    False where two processes share the branches (`adapters/diffusers/parallel.py`).
    """
    if pipe is None or getattr(pipe, "current_timestep", None) is None:
        return None
    if isinstance(pipe.transformer._cache_config, FasterCacheConfig):
        return None
    return pipe.guidance_scale > 1 and guidance_part(pipe.transformer) is None


def is_unconditional_process(pipe: CogVideoXPipeline | None) -> bool:
    """Whether another process runs the conditional branch of the call that `pipe` is in."""
    return pipe is not None and guidance_part(pipe.transformer) == 0 and pipe.guidance_scale > 1


def _grid_of(transformer: CogVideoXTransformer3DModel, latents: Tensor) -> tuple[int, int, int]:
    """Frames, rows and columns of tokens that the latents (batch, frames, channels, height, width) are cut into."""
    frames, _, height, width = latents.shape[1:]
    side = transformer.config["patch_size"]
    return frames // (transformer.config["patch_size_t"] or 1), height // side, width // side


def _refuse_cache(transformer: CogVideoXTransformer3DModel, act: str) -> None:
    if transformer.is_cache_enabled:
        raise ConfigError(
            f"A cache is on, so `{act}()` would lose its hooks. Call `transformer.disable_cache()` first."
        )
