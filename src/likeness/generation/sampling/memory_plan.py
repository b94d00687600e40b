"""Apply a memory plan to a pipeline, and step down to a smaller plan if the GPU runs out of memory.

`likeness.runtime` computes the plans and their predicted peaks. A plan uses diffusers' own features: model offload,
group offload with streams, VAE tiling, layerwise casting.
"""

import gc
import logging
import re
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, TypeVar

import torch
from diffusers.hooks.group_offloading import (
    _GROUP_OFFLOADING,
    _LAYER_EXECUTION_TRACKER,
    _LAZY_PREFETCH_GROUP_OFFLOADING,
    apply_group_offloading,
)
from diffusers.hooks.hooks import HookRegistry
from diffusers.hooks.layerwise_casting import apply_layerwise_casting
from torch import nn

from likeness.backbones.transformer_config import frame_size_px
from likeness.errors import ConfigError, ResourceError
from likeness.methods.method import Method
from likeness.runtime import (
    ClipSize,
    MemoryPlan,
    ModelSizes,
    PeakMemory,
    choose_device,
    choose_plan,
    next_smaller_plan,
    predict_peak,
    tile_sizes,
)

T = TypeVar("T")
CPU = torch.device("cpu")
TEXT_STORAGE_DTYPE = torch.float8_e4m3fn
TEXT_FULL_PRECISION_PATTERNS = ("shared", "embed_tokens", r"\bwo\b", "relative_attention_bias", "norm")
"""Layers of T5 that keep their precision. T5 casts its activations to the dtype in which `wo` is stored, and a pipeline
takes the encoder's dtype from its embedding."""
_OFFLOAD_HOOKS = (_GROUP_OFFLOADING, _LAYER_EXECUTION_TRACKER, _LAZY_PREFETCH_GROUP_OFFLOADING)
_logger = logging.getLogger(__name__)


def count_model_sizes(pipeline: Any, method: Method) -> ModelSizes:
    """Count the parameters of a pipeline with `method` attached, for the prediction of peaks."""
    config, vae = pipeline.transformer.config, pipeline.vae
    layers = [_num_parameters(layer) for layer in method.layers.values()]
    blocks = [_num_parameters(getattr(block, "base", block)) for block in pipeline.transformer.transformer_blocks]
    text = dict(pipeline.text_encoder.named_parameters())
    return ModelSizes(
        # The method's layers are children of the wrapped blocks.
        transformer=_num_parameters(pipeline.transformer) - sum(layers),
        block=max(blocks),
        num_blocks=len(blocks),
        method_layers=sum(layers),
        largest_method_layer=max(layers),
        text_encoder=_num_parameters(pipeline.text_encoder),
        text_full_precision=sum(p.numel() for name, p in text.items() if _keeps_precision(name)),
        text_largest_layer=max(p.numel() for p in text.values()),
        vae=_num_parameters(vae),
        face_encoders=_num_parameters(method) - sum(layers),
        width=config.num_attention_heads * config.attention_head_dim,
        text_tokens=config.max_text_seq_length,
        face_tokens=method.config.get("face_tokens", 0),
        decoder_width=vae.config.block_out_channels[1],
        sample_px=(vae.config.sample_height, vae.config.sample_width),
        bytes_per_value=torch.finfo(pipeline.transformer.dtype).bits // 8,
    )


def apply_plan(pipeline: Any, method: Method, plan: MemoryPlan, device: torch.device) -> None:
    """Apply `plan` to `pipeline` and to `method`.

    Plans may follow each other in any order, but a text encoder in 8 bits stays in 8 bits. On a CPU model offload is
    left out, and groups move from the CPU to the CPU.
    """
    remove_offload_hooks(pipeline)
    # Encoders of faces run once for each person; on the CPU they take a second or two more.
    initial_device = device if plan.residency == "resident" else CPU
    pipeline.to(initial_device)
    nn.Module.to(method, initial_device)
    _set_tiling(pipeline.vae, plan.tiles)
    if plan.residency == "offloaded" and device.type != "cpu":
        pipeline.enable_model_cpu_offload(device=device)
    elif plan.residency == "streamed":
        pipeline.vae.to(device)
        _enable_group_offload(pipeline, plan, device)


def remove_offload_hooks(pipeline: Any) -> None:
    """Remove the hooks of a plan. Models stay on their device."""
    # The pipeline's own cleanup, which is skipped when it runs out of memory.
    pipeline._current_timestep = None
    pipeline.maybe_free_model_hooks()
    pipeline.remove_all_hooks()
    for model in (pipeline.transformer, pipeline.text_encoder):
        registry = HookRegistry.check_if_exists_or_initialize(model)
        for hook in _OFFLOAD_HOOKS:
            registry.remove_hook(hook, recurse=True)
    _set_tiling(pipeline.vae, 1)
    pipeline.vae.disable_slicing()


@dataclass(frozen=True, kw_only=True, slots=True)
class Gpu:
    """The device of a pipeline and its memory."""

    device: torch.device
    num_bytes: float


def find_gpu(device: str = "auto", memory_gb: float | None = None) -> Gpu | None:
    """The GPU to plan for: `device`, with `memory_gb` instead of its own memory if that is given.

    A CPU needs no plan. With `memory_gb` the plan of such a GPU is applied on the CPU as far as possible, to test its
    effect on the result.

    Raises:
        ConfigError: `memory_gb` is not positive.
    """
    chosen = choose_device(device)
    if memory_gb is not None and not memory_gb > 0:
        raise ConfigError(f"`memory_gb` is {memory_gb}. Give the memory of a GPU in GB, such as 24.")
    if memory_gb is not None:
        return Gpu(device=chosen, num_bytes=memory_gb * 1e9)
    if chosen.type != "cuda":
        return None
    return Gpu(device=chosen, num_bytes=torch.cuda.get_device_properties(chosen).total_memory)


class GpuMemory:
    """The current memory plan of a pipeline on a GPU."""

    def __init__(self, pipeline: Any, method: Method, gpu: Gpu, *, frames: int) -> None:
        """Choose the plan for a single clip of `frames` frames with guidance, and apply it.

        Raises:
            ResourceError: No plan fits the GPU.
        """
        self.pipeline = pipeline
        self.method = method
        self.gpu = gpu
        self.sizes = count_model_sizes(pipeline, method)
        self.prediction = choose_plan(gpu.num_bytes, self.sizes, self.clip_size(frames, 2))
        self._apply()

    def clip_size(self, frames: int, batch: int) -> ClipSize:
        height, width = frame_size_px(self.pipeline.transformer.config, self.pipeline.vae_scale_factor_spatial)
        return ClipSize(frames=frames, height_px=height, width_px=width, batch=batch)

    def run(self, generate: Callable[[], T], *, frames: int, batch: int) -> T:
        """Call `generate`; if the GPU runs out of memory, step one plan down and call it once more.

        `generate` must draw its noise itself, so that the second call starts from the same seed.

        Raises:
            ResourceError: It ran out of memory again, or there is no smaller plan.
        """
        clip = self.clip_size(frames, batch)
        fitting_plan = choose_plan(self.gpu.num_bytes, self.sizes, clip)
        if fitting_plan.peak_bytes < self._current_peak(clip).peak_bytes:
            self._switch_to(fitting_plan, "This batch is larger than planned")
        try:
            return generate()
        except torch.cuda.OutOfMemoryError:
            pass  # Handled outside of this block: the traceback keeps the tensors of the failed call alive.
        smaller_plan = next_smaller_plan(self._current_peak(clip), self.sizes, clip)
        if smaller_plan is None:
            raise ResourceError(self._gpu_too_small("No smaller plan is left."))
        self._switch_to(smaller_plan, "The GPU ran out of memory")
        try:
            return generate()
        except torch.cuda.OutOfMemoryError as error:
            raise ResourceError(self._gpu_too_small(f"Plan `{smaller_plan.plan.name}` was too large too.")) from error

    def _current_peak(self, clip: ClipSize) -> PeakMemory:
        """The predicted peak of the current plan for `clip`."""
        return predict_peak(self.prediction.plan, self.sizes, clip)

    def _switch_to(self, prediction: PeakMemory, reason: str) -> None:
        _logger.warning(
            "%s: going from plan `%s` to `%s` (%s), predicted peak %.1f GB.",
            reason,
            self.prediction.plan.name,
            prediction.plan.name,
            prediction.plan.sentence,
            prediction.peak_bytes / 1e9,
        )
        self.prediction = prediction
        self._apply()

    def _apply(self) -> None:
        apply_plan(self.pipeline, self.method, self.prediction.plan, self.gpu.device)
        gc.collect()
        torch.cuda.empty_cache()

    @staticmethod
    def _gpu_too_small(reason: str) -> str:
        return (
            f"The GPU's memory does not suffice, although it should. {reason} Close what else uses the GPU, make a "
            "shorter clip, or state less memory with `--memory-gb`, which plans for a smaller GPU."
        )


def _set_tiling(vae: Any, tiles: int) -> None:
    """Decode in tiles of 1/`tiles` of the sides, one clip of a batch at a time; 1 means whole frames."""
    vae.enable_slicing()
    if tiles == 1:
        vae.disable_tiling()
        return
    height, width = tile_sizes((vae.config.sample_height, vae.config.sample_width), tiles)
    vae.enable_tiling(tile_sample_min_height=height, tile_sample_min_width=width)


def _enable_group_offload(pipeline: Any, plan: MemoryPlan, device: torch.device) -> None:
    """Offload the transformer block by block, and the text encoder as a whole or layer by layer."""
    # Without CUDA there are no streams, and copies are synchronous.
    has_streams = device.type == "cuda"
    pipeline.transformer.enable_group_offload(
        onload_device=device,
        offload_device=CPU,
        offload_type="block_level",
        num_blocks_per_group=1,
        use_stream=has_streams,
    )
    text_encoder = pipeline.text_encoder
    if plan.casts_text_encoder and not any(p.dtype == TEXT_STORAGE_DTYPE for p in text_encoder.parameters()):
        apply_layerwise_casting(
            text_encoder, TEXT_STORAGE_DTYPE, text_encoder.dtype, skip_modules_pattern=TEXT_FULL_PRECISION_PATTERNS
        )
    # Block groups do not reach T5's nested blocks, so they move T5 as a whole.
    offload_type = "leaf_level" if plan.streams_text_encoder else "block_level"
    apply_group_offloading(
        text_encoder,
        onload_device=device,
        offload_device=CPU,
        offload_type=offload_type,
        num_blocks_per_group=1,
        use_stream=has_streams and plan.streams_text_encoder,
    )


def _keeps_precision(name: str) -> bool:
    return any(re.search(pattern, name) for pattern in TEXT_FULL_PRECISION_PATTERNS)


def _num_parameters(module: nn.Module) -> int:
    return sum(parameter.numel() for parameter in module.parameters())
