"""Keeps diffusers' own features working on an attached transformer.

diffusers finds layers by name, by class, or by their index among the blocks; an adapted block changes all three. This
module redirects each feature, and `disable_diffusers_compat` undoes all of it. `docs/composition.md` lists the
features, the order in which to call them, and how closely the results agree.
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
from diffusers.models.transformers.cogvideox_transformer_3d import CogVideoXTransformer3DModel
from torch import nn

from likeness.adapters.blocks.base import AdaptedBlock
from likeness.adapters.blocks.magic_mirror import FaceBlock
from likeness.backbones.attention import restore_attention, use_dispatched_attention
from likeness.errors import ConfigError

_DISPATCHED_ATTENTIONS = "_dispatched_attention"
_SHADOWED = ("_repeated_blocks", "_skip_layerwise_casting_patterns", "load_lora_adapter", "enable_cache")


def enable_diffusers_compat(transformer: CogVideoXTransformer3DModel) -> None:
    """Set the attributes by which diffusers' features find the adapted blocks of `transformer`."""
    settings: dict[str, Any] = vars(transformer)
    # Regional compilation: stock CogVideoX lists no repeated blocks.
    settings["_repeated_blocks"] = [type(transformer.transformer_blocks[0]).__name__]
    # Layerwise casting is for the base only: the adapter is small and sensitive to rounding.
    patterns = type(transformer)._skip_layerwise_casting_patterns or []
    settings["_skip_layerwise_casting_patterns"] = [*patterns, r"\.block_adapter\."]
    settings["load_lora_adapter"] = MethodType(_load_lora_adapter, transformer)
    settings["enable_cache"] = MethodType(_enable_cache, transformer)
    settings[_DISPATCHED_ATTENTIONS] = []  # A processor that the user has set is not touched.
    for block in transformer.transformer_blocks:
        assert isinstance(block, AdaptedBlock)
        if use_dispatched_attention(block.base.attn1):
            settings[_DISPATCHED_ATTENTIONS].append(block.base.attn1)


def disable_diffusers_compat(transformer: CogVideoXTransformer3DModel) -> None:
    """Undo `enable_diffusers_compat`."""
    for name in _SHADOWED:
        del vars(transformer)[name]
    for attention in vars(transformer).pop(_DISPATCHED_ATTENTIONS):
        restore_attention(attention)


@contextmanager
def stock_blocks(transformer: CogVideoXTransformer3DModel) -> Iterator[None]:
    """Put the frozen blocks back under their stock names while the context is open."""
    blocks = transformer.transformer_blocks
    adapted = list(blocks)
    for index, block in enumerate(adapted):
        assert isinstance(block, AdaptedBlock)
        blocks[index] = block.base
    try:
        yield
    finally:
        for index, block in enumerate(adapted):
            blocks[index] = block


@contextmanager
def suspended_group_offload(transformer: CogVideoXTransformer3DModel) -> Iterator[None]:
    """Disable group offload while blocks are replaced, and enable it again, also where the body raises.

    It groups layers by their index among the blocks.
    """
    top = _get_top_level_group_offload_hook(transformer)
    if top is None:
        yield
        return
    registry = HookRegistry.check_if_exists_or_initialize(transformer)
    for name in (_GROUP_OFFLOADING, _LAYER_EXECUTION_TRACKER, _LAZY_PREFETCH_GROUP_OFFLOADING):
        registry.remove_hook(name, recurse=True)
    try:
        yield
    finally:
        _apply_group_offloading(transformer, top.config)


def adapter_device(transformer: CogVideoXTransformer3DModel) -> torch.device:
    """Return the device for the adapter's weights: the transformer's, or the CPU under sequential offload."""
    return transformer.device if _sequential_hook(transformer.proj_out) is None else torch.device("cpu")


def offload_layers(transformer: CogVideoXTransformer3DModel, layers: nn.ModuleDict) -> None:
    """Enable sequential offload on adapter layers where the transformer has it."""
    hook = _sequential_hook(transformer.proj_out)
    if hook is not None:
        device: Any = hook.execution_device
        for layer in layers.values():
            cpu_offload(layer, execution_device=device)


def remove_layer_offload(layers: nn.ModuleDict) -> None:
    """Undo `offload_layers`."""
    for layer in layers.values():
        remove_hook_from_module(layer, recurse=True)


def refuse_late_sequential_offload(transformer: CogVideoXTransformer3DModel) -> None:
    """Raise ConfigError where sequential offload was enabled after `attach`.

    It finds weights by their names in the state dict, and adapted blocks have the stock names there.
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


def refuse_cache_over_processes(config: Any) -> None:
    """Raise ConfigError for a cache that does not work on a part of the tokens.

    First Block Cache decides by the tokens' values, so processes could decide differently and deadlock.
    """
    if config is not None and not isinstance(config, PyramidAttentionBroadcastConfig | TaylorSeerCacheConfig):
        raise ConfigError(
            f"`{type(config).__name__}` does not work on tokens split over processes. Use "
            "`PyramidAttentionBroadcastConfig` or `TaylorSeerCacheConfig`, or CFG parallelism."
        )


def _load_lora_adapter(transformer: CogVideoXTransformer3DModel, *args: Any, **kwargs: Any) -> None:
    """Load LoRA weights. They have the names of the stock blocks."""
    with stock_blocks(transformer):
        type(transformer).load_lora_adapter(transformer, *args, **kwargs)


def _enable_cache(transformer: CogVideoXTransformer3DModel, config: Any) -> None:
    """Enable a cache.

    FasterCache takes the second half of an attention's batch for the conditional rows. The frozen attention of an
    adapted block gets the unconditional rows alone, so it is never skipped.
    """
    if transformer._parallel_config is not None:
        refuse_cache_over_processes(config)
    type(transformer).enable_cache(transformer, config)
    if not isinstance(config, FasterCacheConfig):
        return
    for block in transformer.transformer_blocks:
        if isinstance(block, FaceBlock) and block.block_adapter is not None:
            attention = HookRegistry.check_if_exists_or_initialize(block.base.attn1)
            attention.remove_hook(_FASTER_CACHE_BLOCK_HOOK, recurse=False)
