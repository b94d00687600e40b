"""Features of diffusers that a user switches on, and how to try them."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

import accelerate
import torch
from diffusers import (
    CogVideoXPipeline,
    FasterCacheConfig,
    FirstBlockCacheConfig,
    MagCacheConfig,
    PyramidAttentionBroadcastConfig,
    TaylorSeerCacheConfig,
)
from diffusers.models.attention_dispatch import attention_backend
from torch import Tensor, nn

from composing.subject import NUM_STEPS, TOLERANCE, Subject

Switch = Callable[[CogVideoXPipeline], object]


@dataclass(frozen=True, kw_only=True)
class Feature:
    """Something of diffusers that a user switches on."""

    name: str
    turn_on: Switch
    goal: float = TOLERANCE
    """The largest difference allowed."""
    is_before: bool = False
    """Whether it is switched on before `attach`."""
    reference: Switch | None = None
    """What the plain run gets in its place, before `attach`."""
    changes: dict[str, Any] = field(default_factory=dict)
    """What the plain run's call gets as well."""


def run(subject: Subject, features: Sequence[Feature], *, is_reference: bool = False) -> Tensor:
    with attention_backend("native"):  # Choosing a backend for one model chooses it for all that come.
        return _run(subject, features, is_reference=is_reference)


def _run(subject: Subject, features: Sequence[Feature], *, is_reference: bool) -> Tensor:
    pipe = subject.pipe()
    changes = {key: value for feature in features for key, value in feature.changes.items()}
    if is_reference:
        switches = [(feature.reference, True) for feature in features if feature.reference]
    else:
        switches = [(feature.turn_on, feature.is_before) for feature in features]
    for switch, is_before in switches:
        if is_before:
            switch(pipe)
    method = subject.method(pipe).attach(pipe)
    for switch, is_before in switches:
        if not is_before:
            switch(pipe)
    return subject.sample(pipe, method, **changes)


def deviation(subject: Subject, *features: Feature) -> float:
    """Return the largest difference that the features make."""
    plain = run(subject, features, is_reference=True)
    return (run(subject, features) - plain).abs().max().item()


def random_lora(pipe: CogVideoXPipeline, *, seed: int = 3) -> dict[str, Tensor]:
    """Make LoRA weights for every attention of the base, in the layout of a file for `load_lora_weights`."""
    generator = torch.Generator().manual_seed(seed)
    config = pipe.transformer.config
    width, weights = config.num_attention_heads * config.attention_head_dim, {}
    for number in range(config.num_layers):
        for target in ("to_q", "to_k", "to_v", "to_out.0"):
            name = f"transformer.transformer_blocks.{number}.attn1.{target}"
            weights[f"{name}.lora_A.weight"] = 0.2 * torch.randn(2, width, generator=generator)
            weights[f"{name}.lora_B.weight"] = 0.2 * torch.randn(width, 2, generator=generator)
    return weights


def load_lora(pipe: CogVideoXPipeline, *, scale: float = 0.5) -> None:
    pipe.load_lora_weights(random_lora(pipe), adapter_name="style")
    pipe.set_adapters("style", scale)


def merge_lora(pipe: CogVideoXPipeline, *, scale: float = 0.5) -> None:
    """Add by hand what LoRA would add."""
    weights = random_lora(pipe)
    for name, down in weights.items():
        if name.endswith("lora_A.weight"):
            layer = name.removeprefix("transformer.").removesuffix(".lora_A.weight")
            parameter = pipe.transformer.get_parameter(f"{layer}.weight")
            parameter.data += scale * weights[name.replace("lora_A", "lora_B")] @ down


def cache_configs(pipe: CogVideoXPipeline, subject: Subject | None = None) -> dict[str, Any]:
    """Every cache, set so that it never skips, or so that it does in runs of a subject."""
    skips = subject is not None
    steps = subject.skipping_steps if subject else NUM_STEPS
    layers = pipe.transformer.config.num_layers
    timesteps = (-1, 1001) if skips else (-2, -1)

    def timestep() -> int:
        return int(pipe.current_timestep)

    blocks = [rf"transformer_blocks\.{number}" for number in range(layers)]
    return {
        "first_block_cache": FirstBlockCacheConfig(threshold=subject.skipping_threshold if subject else 0.0),
        "taylorseer": TaylorSeerCacheConfig(
            cache_interval=2,
            disable_cache_before_step=2 if skips else 1000,
            taylor_factors_dtype=torch.float32,
            cache_identifiers=blocks,
        ),
        "magcache": MagCacheConfig(
            threshold=0.5 if skips else 0.0,
            max_skip_steps=1 if skips else 0,
            retention_ratio=0.25 if skips else 1.0,
            num_inference_steps=steps,
            mag_ratios=torch.ones(steps),
        ),
        "pyramid_attention_broadcast": PyramidAttentionBroadcastConfig(
            spatial_attention_block_skip_range=2,
            spatial_attention_timestep_skip_range=timesteps,
            current_timestep_callback=timestep,
        ),
        "fastercache": FasterCacheConfig(
            spatial_attention_block_skip_range=2,
            spatial_attention_timestep_skip_range=timesteps,
            unconditional_batch_skip_range=2,
            unconditional_batch_timestep_skip_range=timesteps,
            attention_weight_callback=lambda _module: 0.3,
            current_timestep_callback=timestep,
            tensor_format="BFCHW",
        ),
    }


CACHES = ("first_block_cache", "taylorseer", "magcache", "pyramid_attention_broadcast", "fastercache")


def cache(name: str) -> Feature:
    """A cache that never skips."""

    def turn_on(pipe: CogVideoXPipeline) -> None:
        pipe.transformer.enable_cache(cache_configs(pipe)[name])

    return Feature(name=name, turn_on=turn_on)


def skipping_options(subject: Subject) -> dict[str, Any]:
    """Of runs with a cache that skips, and of the plain runs beside them."""
    return {"num_inference_steps": subject.skipping_steps}


def group_offload(kind: str) -> Feature:
    def turn_on(pipe: CogVideoXPipeline) -> None:
        pipe.transformer.enable_group_offload(
            onload_device=torch.device("cpu"),
            offload_type=kind,
            num_blocks_per_group=1 if kind == "block_level" else None,
        )

    return Feature(name=f"group_offload_{kind}", turn_on=turn_on)


def cast_by_hand(pipe: CogVideoXPipeline) -> None:
    """Round what layerwise casting stores in 8 bits."""
    for name, layer in pipe.transformer.named_modules():
        if isinstance(layer, nn.Linear) and not any(part in name for part in ("norm", "patch_embed", "proj_out")):
            for parameter in layer.parameters():
                parameter.data = parameter.data.to(torch.float8_e4m3fn).to(parameter.dtype)


def layerwise_casting(pipe: CogVideoXPipeline) -> None:
    pipe.transformer.enable_layerwise_casting(storage_dtype=torch.float8_e4m3fn, compute_dtype=torch.float32)


def quantize(pipe: CogVideoXPipeline) -> None:
    """Keep the base's weights in 8 bits. The adapter is attached later and stays as it is."""
    from optimum.quanto import freeze, qint8
    from optimum.quanto import quantize as quanto

    quanto(pipe.transformer, weights=qint8, exclude=["*norm*", "patch_embed*", "proj_out"])
    freeze(pipe.transformer)


def quantize_by_hand(pipe: CogVideoXPipeline) -> None:
    """Round the weights as `quantize` does, and keep them in full precision."""
    quantized = {}
    quantize(pipe)
    for name, layer in pipe.transformer.named_modules():
        if type(layer).__name__ == "QLinear":
            quantized[name] = layer
    for name, layer in quantized.items():
        plain = nn.Linear(layer.in_features, layer.out_features, bias=layer.bias is not None)
        plain.weight.data = layer.weight.dequantize()
        if layer.bias is not None:
            plain.bias.data = layer.bias.data
        pipe.transformer.set_submodule(name, plain)


def sequential_offload(pipe: CogVideoXPipeline) -> None:
    """Do what `pipe.enable_sequential_cpu_offload()` does, for a machine whose only device is the CPU."""
    for model in (pipe.transformer, pipe.vae):
        accelerate.cpu_offload(model, execution_device=torch.device("cpu"))


def tile(pipe: CogVideoXPipeline) -> None:
    # With CogVideoX's own overlaps the tiles of such small videos do not meet.
    pipe.vae.enable_tiling(tile_overlap_factor_height=0.5, tile_overlap_factor_width=0.5)


def compile_blocks(pipe: CogVideoXPipeline, backend: str = "eager") -> None:
    torch._dynamo.reset()
    pipe.transformer.compile_repeated_blocks(backend=backend, fullgraph=True)


PIXELS = {"output_type": "pt"}
FEATURES = [
    Feature(name="lora", turn_on=load_lora, reference=merge_lora),
    Feature(name="lora_before_attach", turn_on=load_lora, is_before=True, reference=merge_lora),
    Feature(
        name="lora_by_call",
        turn_on=lambda pipe: load_lora(pipe, scale=1.0),
        reference=merge_lora,
        changes={"attention_kwargs": {"scale": 0.5}},
    ),
    Feature(name="lora_unloaded", turn_on=lambda pipe: (load_lora(pipe), pipe.unload_lora_weights())),
    Feature(name="model_offload", turn_on=lambda pipe: pipe.enable_model_cpu_offload(device="cpu")),
    group_offload("block_level"),
    group_offload("leaf_level"),
    Feature(name="sequential_offload", turn_on=sequential_offload, is_before=True),
    Feature(name="vae_slicing", turn_on=lambda pipe: pipe.vae.enable_slicing(), changes=PIXELS),
    Feature(name="vae_tiling", turn_on=tile, reference=tile, changes=PIXELS),
    *map(cache, CACHES),
    Feature(name="layerwise_casting", turn_on=layerwise_casting, reference=cast_by_hand),
    Feature(name="int8", turn_on=quantize, is_before=True, reference=quantize_by_hand),
    Feature(name="regional_compile", turn_on=compile_blocks),
    Feature(name="attention_backend", turn_on=lambda pipe: pipe.transformer.set_attention_backend("_native_math")),
]
BY_NAME = {feature.name: feature for feature in FEATURES}
PAIRS = [
    ("lora", "group_offload_block_level"),
    ("lora", "first_block_cache"),
    ("layerwise_casting", "lora_before_attach"),
    ("int8", "group_offload_leaf_level"),
    ("int8", "pyramid_attention_broadcast"),
    ("group_offload_block_level", "taylorseer"),
    ("model_offload", "vae_slicing"),
    ("sequential_offload", "magcache"),
    ("layerwise_casting", "fastercache"),
    ("attention_backend", "pyramid_attention_broadcast"),
    ("regional_compile", "lora_before_attach"),
]
