"""Device, dtype, facts about the machine, and memory plans for a GPU.

A memory plan is predicted from parameter counts and tensor sizes; `generation.sampling.memory_plan` applies one to a
pipeline.
"""

import os
import platform
from dataclasses import dataclass, replace
from typing import Any, Literal

import torch

from likeness.errors import ConfigError, ResourceError

DTYPES = {"float32": torch.float32, "bfloat16": torch.bfloat16, "float16": torch.float16}


def choose_device(name: str = "auto") -> torch.device:
    """The device called `name`; `auto` is a GPU if there is one.

    Raises:
        ConfigError: the name is not a device.
        ResourceError: the machine has no such device.
    """
    if name == "auto":
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    try:
        device = torch.device(name)
    except RuntimeError as error:
        raise ConfigError(f"`device` is {name!r}. Use auto, cpu, cuda or cuda:N.") from error
    if device.type == "cuda" and (device.index or 0) >= torch.cuda.device_count():
        raise ResourceError(
            f"`device` is {name!r}, but this machine has {torch.cuda.device_count()} CUDA devices. Use auto or cpu."
        )
    return device


def choose_dtype(name: str, device: torch.device) -> torch.dtype:
    """The dtype called `name`; `auto` is bfloat16 on a GPU and float32 on a CPU, which is faster at small widths.

    Raises:
        ConfigError: the name is not a supported dtype.
    """
    if name == "auto":
        return torch.bfloat16 if device.type == "cuda" else torch.float32
    if name not in DTYPES:
        raise ConfigError(f"`dtype` is {name!r}. Use auto, {', '.join(DTYPES)}.")
    return DTYPES[name]


def choose_training_dtype(name: str, device: torch.device | None = None) -> torch.dtype:
    """The dtype called `name` for training; `auto` is bfloat16 on a GPU and on processors with instructions for it.

    Other processors (with AVX2 only, for example) emulate it, nine times as slow as float32
    (`benchmarks/precision.py`).

    Raises:
        ConfigError: the name is not a supported dtype.
    """
    if name == "auto" and device is not None and device.type != "cpu":
        return torch.bfloat16
    if name == "auto":
        has_bfloat16 = torch.cpu._is_amx_tile_supported() or torch.cpu._is_avx512_bf16_supported()
        return torch.bfloat16 if has_bfloat16 else torch.float32
    return choose_dtype(name, torch.device("cpu"))


def describe_machine() -> dict[str, Any]:
    """Facts about this machine for records and `likeness doctor`, JSON-serializable.

    Returns:
        `platform`, `python` and `torch` (version strings), `num_cores` (logical cores), `memory_bytes` (physical
        memory) and `gpus` (`name` and `memory_bytes` of each CUDA device).
    """
    gpus = []
    for index in range(torch.cuda.device_count()):
        properties = torch.cuda.get_device_properties(index)
        gpus.append({"name": properties.name, "memory_bytes": properties.total_memory})
    return {
        "platform": platform.platform(),
        "python": platform.python_version(),
        "torch": torch.__version__,
        "num_cores": os.cpu_count(),
        "memory_bytes": os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES"),
        "gpus": gpus,
    }


CONTEXT_BYTES = 800_000_000
"""Memory of CUDA's context and the workspaces of cuBLAS and cuDNN (estimate)."""
HEADROOM = 1.05
"""A plan is chosen if its peak times this factor fits the GPU: the allocator wastes a few percent."""
DENOISE_TENSORS = 14
"""Tensors of the size of all tokens that exist at once in a block: stream, normed stream, query, key and value, their
rotation in float32, or the feed-forward's input and output, four times as wide (counted in diffusers 0.42)."""
DECODE_TENSORS = 12
"""Tensors of the decoder's widest size that exist at once. It reproduces diffusers' figures for CogVideoX-2B at 49 x
480 x 720: 33 GB with everything resident, 19 GB with the decoder only."""
DECODE_FRAMES = 9
"""Frames decoded at a time: those of two latent frames, and in the first chunk the one before them."""


@dataclass(frozen=True, kw_only=True, slots=True)
class ModelSizes:
    """Sizes of a pipeline with a method: numbers of parameters, then lengths and widths."""

    transformer: int
    """The backbone's transformer, without the method's layers."""
    block: int
    """One of its blocks."""
    num_blocks: int
    method_layers: int
    """All layers of the method."""
    largest_method_layer: int
    """The largest of them."""
    text_encoder: int
    text_full_precision: int
    """The part of the text encoder that is not stored in 8 bits (`MemoryPlan.casts_text_encoder`)."""
    text_largest_layer: int
    """The largest layer of the text encoder: its embedding."""
    vae: int
    face_encoders: int
    """The encoders of the face, used once per person."""
    width: int
    """Channels of a token."""
    text_tokens: int
    face_tokens: int
    decoder_width: int
    """Channels of the decoder at full resolution."""
    sample_px: tuple[int, int]
    """Height and width of the frames for which the VAE is configured."""
    bytes_per_value: int = 2
    """Of a parameter or activation."""


COGVIDEOX_5B_SIZES = ModelSizes(
    transformer=5_570_283_072, block=132_197_632, num_blocks=42,
    method_layers=1_041_632_256, largest_method_layer=49_601_536,
    text_encoder=4_762_310_656, text_full_precision=1_138_432_000, text_largest_layer=131_596_288, vae=215_583_907,
    face_encoders=1_114_041_856, width=3072, text_tokens=226, face_tokens=32, decoder_width=256, sample_px=(480, 720),
)  # fmt: skip
COGVIDEOX_2B_SIZES = replace(
    COGVIDEOX_5B_SIZES, transformer=1_693_783_872, block=56_081_536, num_blocks=30,
    method_layers=403_088_640, largest_method_layer=26_872_576,
    face_encoders=1_111_681_408, width=1920,
)  # fmt: skip


@dataclass(frozen=True, kw_only=True, slots=True)
class ClipSize:
    """Size of the generated clip."""

    frames: int = 49
    height_px: int = 480
    width_px: int = 720
    batch: int = 2
    """Batch size of the transformer: two for a clip with guidance."""


@dataclass(frozen=True, kw_only=True, slots=True)
class MemoryPlan:
    """Placement of the parts. `PLANS` is ordered from the fastest to the one that needs the least memory."""

    name: str
    sentence: str
    """Description for users."""
    residency: Literal["resident", "offloaded", "streamed"]
    """Everything on the GPU; one part at a time; or two blocks of the transformer at a time."""
    tiles: int = 1
    """The decoder's tiles: 1 for none, 2 for half the height and width, 4 for a quarter."""
    casts_text_encoder: bool = False
    """Whether most of the text encoder is stored in 8 bits."""
    streams_text_encoder: bool = False
    """Whether the text encoder is copied to the GPU layer by layer."""


PLANS = (
    MemoryPlan(name="resident", residency="resident", sentence="everything on the GPU, frames decoded whole"),
    MemoryPlan(name="tiled", residency="resident", tiles=2, sentence="everything on the GPU, frames decoded in tiles"),
    MemoryPlan(name="offloaded", residency="offloaded", tiles=2,
               sentence="one model at a time on the GPU, tiles"),
    MemoryPlan(name="streamed", residency="streamed", tiles=2,
               sentence="two blocks of the transformer at a time, copied while others compute; tiles"),
    MemoryPlan(name="cast", residency="streamed", tiles=2, casts_text_encoder=True,
               sentence="as streamed, text encoder in 8 bits"),
    MemoryPlan(name="least", residency="streamed", tiles=4, casts_text_encoder=True, streams_text_encoder=True,
               sentence="as cast, text encoder layer by layer, smaller tiles"),
)  # fmt: skip


@dataclass(frozen=True, kw_only=True, slots=True)
class PeakMemory:
    """Predicted bytes on the GPU during text encoding, denoising and decoding."""

    plan: MemoryPlan
    text_bytes: int
    denoise_bytes: int
    decode_bytes: int
    host_bytes: int
    """Weights in host memory meanwhile."""

    @property
    def peak_bytes(self) -> int:
        return max(self.text_bytes, self.denoise_bytes, self.decode_bytes)

    def fits(self, gpu_bytes: float) -> bool:
        return self.peak_bytes * HEADROOM <= gpu_bytes


def predict_peak(plan: MemoryPlan, sizes: ModelSizes, clip: ClipSize | None = None) -> PeakMemory:
    """Predict the memory of `plan`: weights from parameter counts, activations from tensor sizes.

    Args:
        plan: The placement of the models.
        sizes: The sizes of the pipeline with its method.
        clip: The size of the clip; by default 49 frames of 480 x 720 pixels with guidance.
    """
    clip = clip or ClipSize()
    value_bytes = sizes.bytes_per_value
    text = value_bytes * sizes.text_encoder
    if plan.casts_text_encoder:  # One byte for the other parameters.
        text = value_bytes * sizes.text_full_precision + (sizes.text_encoder - sizes.text_full_precision)
    vae, face_encoders = value_bytes * sizes.vae, value_bytes * sizes.face_encoders
    transformer = value_bytes * (sizes.transformer + sizes.method_layers)
    denoising, decoding = denoising_activation_bytes(sizes, clip), decoding_activation_bytes(sizes, clip, plan.tiles)
    everything = text + vae + face_encoders + transformer
    if plan.residency == "resident":
        stage_bytes, host = (everything, everything + denoising, everything + decoding), 0
    elif plan.residency == "offloaded":
        stage_bytes, host = (text, transformer + denoising, vae + decoding), everything
    else:  # The VAE stays on the GPU: it is small, and every tile needs it.
        encoding = 2 * value_bytes * sizes.text_largest_layer if plan.streams_text_encoder else text
        outside_blocks = sizes.transformer - sizes.num_blocks * sizes.block
        blocks = value_bytes * (outside_blocks + 2 * (sizes.block + sizes.largest_method_layer))
        stage_bytes, host = (vae + encoding, vae + blocks + denoising, vae + decoding), everything - vae
    encoded, denoised, decoded = (CONTEXT_BYTES + num_bytes for num_bytes in stage_bytes)
    return PeakMemory(plan=plan, text_bytes=encoded, denoise_bytes=denoised, decode_bytes=decoded, host_bytes=host)


def denoising_activation_bytes(sizes: ModelSizes, clip: ClipSize) -> int:
    """Bytes of `DENOISE_TENSORS` tensors of (batch, tokens, width)."""
    latent_frames = (clip.frames - 1) // 4 + 1
    tokens = latent_frames * (clip.height_px // 16) * (clip.width_px // 16)
    tokens += sizes.text_tokens + sizes.face_tokens
    return DENOISE_TENSORS * clip.batch * tokens * sizes.width * sizes.bytes_per_value


def decoding_activation_bytes(sizes: ModelSizes, clip: ClipSize, tiles: int) -> int:
    """Bytes of `DECODE_TENSORS` tensors of the decoder's widest size for one clip, and of all frames."""
    height, width = clip.height_px, clip.width_px
    if tiles > 1:  # Frames smaller than a tile are not tiled.
        tile_height, tile_width = tile_sizes(sizes.sample_px, tiles)
        height, width = min(height, tile_height), min(width, tile_width)
    widest = sizes.decoder_width * min(clip.frames, DECODE_FRAMES) * height * width
    videos = 3 * clip.batch * clip.frames * clip.height_px * clip.width_px
    return (DECODE_TENSORS * widest + videos) * sizes.bytes_per_value


def tile_sizes(sample_px: tuple[int, int], tiles: int) -> tuple[int, int]:
    """Height and width of tiles of about 1/`tiles` of the frame.

    diffusers overlaps tiles by a sixth of their height and a fifth of their width, rounded separately in latents and
    in pixels. Only if both are whole latents of eight pixels do the tiles fit together.
    """
    height, width = (side // tiles for side in sample_px)
    return max(1, height // 48) * 48, max(1, width // 40) * 40


def predict_all_plans(sizes: ModelSizes, clip: ClipSize | None = None) -> tuple[PeakMemory, ...]:
    """The predictions of all plans, in the order of `PLANS`."""
    return tuple(predict_peak(plan, sizes, clip) for plan in PLANS)


def choose_plan(gpu_bytes: float, sizes: ModelSizes, clip: ClipSize | None = None) -> PeakMemory:
    """The fastest plan with a predicted peak that fits a GPU of `gpu_bytes`, with `HEADROOM`.

    Raises:
        ResourceError: Not even the last plan fits.
    """
    predictions = predict_all_plans(sizes, clip)
    for prediction in predictions:
        if prediction.fits(gpu_bytes):
            return prediction
    needed_gb = predictions[-1].peak_bytes * HEADROOM / 1e9
    raise ResourceError(
        f"The GPU has {gpu_bytes / 1e9:.1f} GB; the smallest plan needs {needed_gb:.1f} GB. "
        "Make a shorter or smaller clip, or use the preset `tiny`, which needs no GPU."
    )


def next_smaller_plan(prediction: PeakMemory, sizes: ModelSizes, clip: ClipSize | None = None) -> PeakMemory | None:
    """The first later plan that needs less memory than `prediction`, or None."""
    later = predict_all_plans(sizes, clip)[PLANS.index(prediction.plan) + 1 :]
    return next((other for other in later if other.peak_bytes < prediction.peak_bytes), None)
