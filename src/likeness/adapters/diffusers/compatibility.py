"""What an attached transformer needs so that the rest of diffusers keeps working on it.

diffusers finds layers by name, by class, or by their place among the blocks; an adapted block changes all three. This
module says where each feature has to look instead. It is no feature of its own: everything here is undone by
`release`. `docs/composition.md` lists the features, in which order to call them, and how closely they agree.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from types import MethodType
from typing import Any

import torch
from accelerate import cpu_offload
from accelerate.hooks import AlignDevicesHook, SequentialHook, remove_hook_from_module
from diffusers.hooks.faster_cache import _FASTER_CACHE_BLOCK_HOOK, FasterCacheConfig
from diffusers.hooks.group_offloading import (
    _GROUP_OFFLOADING,
    _LAYER_EXECUTION_TRACKER,
    _LAZY_PREFETCH_GROUP_OFFLOADING,
    _apply_group_offloading,
    _get_top_level_group_offload_hook,
)
from diffusers.hooks.hooks import HookRegistry
from diffusers.hooks.pyramid_attention_broadcast import PyramidAttentionBroadcastConfig
from diffusers.hooks.taylorseer_cache import TaylorSeerCacheConfig
from diffusers.models.transformers.cogvideox_transformer_3d import CogVideoXBlock, CogVideoXTransformer3DModel
from torch import nn

from likeness.adapters.blocks.base import AdaptedBlock
from likeness.adapters.blocks.magic_mirror import FaceBlock
from likeness.adapters.diffusers.attention_dispatch import dispatch, undo_dispatch
from likeness.errors import ConfigError

_SHADOWED = ("_repeated_blocks", "_skip_layerwise_casting_patterns", "load_lora_adapter", "enable_cache")


PART = "_guidance_part"


def enable_diffusers_compat(transformer: CogVideoXTransformer3DModel) -> None:
    """Tell diffusers' features about the adapted blocks of `transformer`."""
    settings: dict[str, Any] = vars(transformer)
    # CogVideoX names no blocks to compile one by one.
    settings["_repeated_blocks"] = [type(transformer.transformer_blocks[0]).__name__]
    # The adapter is small, and its new layers are the sensitive ones: casting is for the base.
    patterns = type(transformer)._skip_layerwise_casting_patterns or []
    settings["_skip_layerwise_casting_patterns"] = [*patterns, r"\.layer\."]
    settings["load_lora_adapter"] = MethodType(_load_lora_adapter, transformer)
    settings["enable_cache"] = MethodType(_enable_cache, transformer)
    for block in transformer.transformer_blocks:
        assert isinstance(block, AdaptedBlock)
        dispatch(block.base)


def disable_diffusers_compat(transformer: CogVideoXTransformer3DModel) -> None:
    """Undo `enable_diffusers_compat`."""
    for name in _SHADOWED:
        del vars(transformer)[name]
    for block in transformer.transformer_blocks:
        assert isinstance(block, CogVideoXBlock)
        undo_dispatch(block)


@contextmanager
def stock_blocks(transformer: CogVideoXTransformer3DModel) -> Iterator[None]:
    """Show the frozen blocks in their stock places, under their stock names, for a moment."""
    blocks = transformer.transformer_blocks
    worn = list(blocks)
    for number, block in enumerate(worn):
        assert isinstance(block, AdaptedBlock)
        blocks[number] = block.base
    try:
        yield
    finally:
        for number, block in enumerate(worn):
            blocks[number] = block


@contextmanager
def renewed_offload(transformer: CogVideoXTransformer3DModel) -> Iterator[None]:
    """Take group offload off while blocks are exchanged, and put it on again: it groups layers by their place."""
    top = _get_top_level_group_offload_hook(transformer)
    if top is None:
        yield
        return
    registry = HookRegistry.check_if_exists_or_initialize(transformer)
    for name in (_GROUP_OFFLOADING, _LAYER_EXECUTION_TRACKER, _LAZY_PREFETCH_GROUP_OFFLOADING):
        registry.remove_hook(name, recurse=True)
    yield
    _apply_group_offloading(transformer, top.config)


def resting_device(transformer: CogVideoXTransformer3DModel) -> torch.device:
    """Where an adapter is kept: with the transformer, or on the CPU where sequential offload empties that."""
    return transformer.device if _sequential_hook(transformer.proj_out) is None else torch.device("cpu")


def offload_along(transformer: CogVideoXTransformer3DModel, layers: nn.ModuleDict) -> None:
    """Put adapter layers under sequential offload where the transformer is under it."""
    hook = _sequential_hook(transformer.proj_out)
    if hook is not None:
        device: Any = hook.execution_device
        for layer in layers.values():
            cpu_offload(layer, execution_device=device)


def bring_back(layers: nn.ModuleDict) -> None:
    """Undo `offload_along`."""
    for layer in layers.values():
        remove_hook_from_module(layer, recurse=True)


def refuse_lost_weights(transformer: CogVideoXTransformer3DModel) -> None:
    """Raise ConfigError where sequential offload looks for the adapted blocks' weights under other names.

    It knows weights by their names in the state dict, and those of adapted blocks are the stock names.
    """
    first = transformer.transformer_blocks[0]
    hook = _sequential_hook(first.base.norm1.linear) if isinstance(first, AdaptedBlock) else None
    if hook is not None and "weight" not in (hook.weights_map or {}):
        raise ConfigError(
            "Sequential offload was switched on after `attach()` and cannot find the weights of adapted blocks; it "
            "has to come before. Load the pipeline anew, call `pipe.enable_sequential_cpu_offload()`, then `attach()`."
        )


def _sequential_hook(module: nn.Module) -> AlignDevicesHook | None:
    hook = getattr(module, "_hf_hook", None)
    for one in hook.hooks if isinstance(hook, SequentialHook) else (hook,):
        if isinstance(one, AlignDevicesHook) and one.offload:
            return one
    return None


def guidance_part(transformer: CogVideoXTransformer3DModel) -> int | None:
    """Which branch of guidance this process runs: 0 the unconditional, 1 the conditional, None both."""
    return vars(transformer).get(PART)


def refuse_cache_over_processes(config: Any) -> None:
    """Raise ConfigError for a cache that cannot act on a part of the tokens.

    First Block Cache looks at the tokens to decide, so processes could decide differently and wait for each other for ever.
    """
    if config is not None and not isinstance(config, PyramidAttentionBroadcastConfig | TaylorSeerCacheConfig):
        raise ConfigError(
            f"`{type(config).__name__}` does not work on tokens split over processes. Use "
            "`PyramidAttentionBroadcastConfig` or `TaylorSeerCacheConfig`, or guidance parallelism."
        )


def _load_lora_adapter(transformer: CogVideoXTransformer3DModel, *args: Any, **kwargs: Any) -> None:
    """Load LoRA weights, whose names are those of the stock blocks."""
    with stock_blocks(transformer):
        type(transformer).load_lora_adapter(transformer, *args, **kwargs)


def _enable_cache(transformer: CogVideoXTransformer3DModel, config: Any) -> None:
    """Switch a cache on.

    FasterCache takes the second half of an attention's batch for the conditional rows. The frozen attention of an
    adapted block sees the unconditional rows alone, so that attention is always computed.
    """
    if transformer._parallel_config is not None:
        refuse_cache_over_processes(config)
    type(transformer).enable_cache(transformer, config)
    if not isinstance(config, FasterCacheConfig):
        return
    for block in transformer.transformer_blocks:
        if isinstance(block, FaceBlock) and block.layer is not None:
            attention = HookRegistry.check_if_exists_or_initialize(block.base.attn1)
            attention.remove_hook(_FASTER_CACHE_BLOCK_HOOK, recurse=False)
