"""What every diffusion stage shares: settings, noise, v-prediction, casting, and sampling for sheets.

CogVideoX predicts v = sqrt(alpha_bar) noise - sqrt(1 - alpha_bar) x0 under zero terminal SNR. Its trainers weight the
error of x0 by 1 / (1 - alpha_bar); that is the plain squared error of v, which is what is computed here.
"""

from collections.abc import Sequence
from functools import lru_cache
from types import SimpleNamespace
from typing import Any, Literal

import numpy as np
import torch
from diffusers.pipelines.cogvideo.pipeline_cogvideox import CogVideoXPipeline
from pydantic import Field
from torch import Tensor, nn

from likeness.training.engine.settings import LoopSettings

TimestepDistribution = Literal["uniform", "logit_normal", "log_snr_normal"]
NUM_TRAIN_TIMESTEPS = 1000
UNIFORM_SHARE = 0.1
"""Share of the timesteps of `log_snr_normal` that are uniform, so that pure noise is among them."""


class DiffusionStageSettings(LoopSettings):
    """Settings of every stage that learns to predict v."""

    data: Literal["images", "clips", "mixed"]
    """What the stage trains on; `mixed`, for data from files, is both."""
    text_drop: float = Field(default=0.1, ge=0, le=1)
    """Share of samples with an empty prompt, for classifier-free guidance."""
    timesteps: TimestepDistribution = "uniform"
    """Distribution of the training timesteps; `log_snr_normal` samples the logarithm of signal over noise (EDM,
    arXiv:2206.00364) and looks up the timestep."""
    log_snr_mean: float = 0.0
    """Mean of the logarithm of signal over noise, with `log_snr_normal`."""
    log_snr_std: float = Field(default=2.0, gt=0)
    """Standard deviation of it."""
    dtype: Literal["auto", "float32", "bfloat16"] = "auto"
    """Of activations, products and frozen weights; trained weights are float32. `auto` is bfloat16 on processors that
    multiply it, float32 elsewhere."""
    guidance: float = 5.0
    """Classifier-free guidance scale of sample sheets and of rollouts."""


def masked_error(mask: Tensor, error: Tensor, uses_whole_frame: Tensor) -> Tensor:
    """The mean error of each sample, of some samples over the face alone.

    Shapes:
        mask: (batch, frames, height, width), the share of each latent pixel that shows the face
        error: (batch, frames, channels, height, width)
        uses_whole_frame: (batch,), boolean: whose error is averaged over the whole frame, as without a face
        returns: (batch,)
    """
    face = mask.float().unsqueeze(2)
    uses_whole_frame = uses_whole_frame | (face.flatten(1).sum(dim=1) < 1)
    weight = torch.where(uses_whole_frame.view(-1, 1, 1, 1, 1), torch.ones_like(face), face)
    return (error * weight).flatten(1).sum(dim=1) / (weight.flatten(1).sum(dim=1) * error.shape[2])


def sample_timesteps(count: int, settings: DiffusionStageSettings, alphas_cumprod: Tensor) -> Tensor:
    """Timesteps of a batch, (count,), by `settings.timesteps`; `alphas_cumprod` (timesteps,) falls to 0."""
    if settings.timesteps == "log_snr_normal":
        negative_log_snr = ((1 - alphas_cumprod) / alphas_cumprod).log()  # Rises with the timestep, to infinity.
        log_snr = settings.log_snr_mean + settings.log_snr_std * torch.randn(count)
        timesteps = torch.searchsorted(negative_log_snr, -log_snr).clamp(max=NUM_TRAIN_TIMESTEPS - 1)
        return torch.where(torch.rand(count) < UNIFORM_SHARE, torch.randint(NUM_TRAIN_TIMESTEPS, (count,)), timesteps)
    share = torch.rand(count) if settings.timesteps == "uniform" else torch.sigmoid(torch.randn(count))
    return (share * NUM_TRAIN_TIMESTEPS).long().clamp(0, NUM_TRAIN_TIMESTEPS - 1)


def noisy_and_velocity(clean: Tensor, noise: Tensor, alpha_bar: Tensor) -> tuple[Tensor, Tensor]:
    """Noisy latents, and the target v = sqrt(alpha_bar) noise - sqrt(1 - alpha_bar) x0.

    Shapes:
        clean, noise: (batch, ...)
        alpha_bar: (batch,), of each sample's timestep
        returns: two as `clean`
    """
    signal, sigma = _scales(alpha_bar, clean)
    return signal * clean + sigma * noise, signal * noise - sigma * clean


def velocity_to_x0(noisy: Tensor, velocity: Tensor, alpha_bar: Tensor) -> Tensor:
    """The x0 that v implies.

    Shapes:
        noisy, velocity, returns: (batch, ...)
        alpha_bar: (batch,)
    """
    signal, sigma = _scales(alpha_bar, noisy)
    return signal * noisy - sigma * velocity


def velocity_to_noise(noisy: Tensor, velocity: Tensor, alpha_bar: Tensor) -> Tensor:
    """The noise that v implies.

    Shapes:
        noisy, velocity, returns: (batch, ...)
        alpha_bar: (batch,)
    """
    signal, sigma = _scales(alpha_bar, noisy)
    return signal * velocity + sigma * noisy


def _scales(alpha_bar: Tensor, like: Tensor) -> tuple[Tensor, Tensor]:
    """Factors of signal and noise, shaped to multiply `like`."""
    shaped = alpha_bar.to(like.dtype).view(-1, *[1] * (like.ndim - 1))
    return shaped.sqrt(), (1 - shaped).sqrt()


RotaryEmbedding = tuple[Tensor, Tensor]


def rotary_embedding(transformer: Any, latents: Tensor) -> RotaryEmbedding | None:
    """The rotary embedding of latents, made by the stock pipeline's own function; None for a base without one.

    Shapes:
        latents: (batch, frames, channels, height, width)
        returns: cosine and sine, (video_tokens, head_dim)
    """
    config = transformer.config
    if not config.use_rotary_positional_embeddings:
        return None
    frames, _, height, width = latents.shape[1:]
    sizes = (config.patch_size, config.patch_size_t, config.sample_width, config.sample_height)
    return _stock_rotary_embedding(height, width, frames, *sizes, config.attention_head_dim, str(latents.device))


@lru_cache(maxsize=64)
def _stock_rotary_embedding(
    height: int,
    width: int,
    frames: int,
    patch_size: int,
    patch_size_t: int | None,
    sample_width: int,
    sample_height: int,
    head_dim: int,
    device: str,
) -> RotaryEmbedding:
    config = SimpleNamespace(
        patch_size=patch_size,
        patch_size_t=patch_size_t,
        sample_width=sample_width,
        sample_height=sample_height,
        attention_head_dim=head_dim,
    )
    # In units of latent pixels, so that the VAE's factor is 1.
    pipe: Any = SimpleNamespace(transformer=SimpleNamespace(config=config), vae_scale_factor_spatial=1)
    return CogVideoXPipeline._prepare_rotary_positional_embeddings(pipe, height, width, frames, torch.device(device))


def predict_velocity(
    transformer: Any, noisy: Tensor, text: Tensor, timesteps: Tensor, frames: Sequence[int] | None = None
) -> Tensor:
    """The v that a CogVideoX transformer predicts, with the rotary embedding of the stock pipeline.

    Shapes:
        noisy: (batch, frames, channels, height, width)
        text: (batch, tokens, width)
        timesteps: (batch,)
        frames: positions of the latent frames if `noisy` has only some of a clip: [0, 3] for the first and fourth
        returns: v, as `noisy`
    """
    count = noisy.shape[1] if frames is None else max(frames) + 1
    embedding = rotary_embedding(transformer, noisy[:, :1].expand(-1, count, -1, -1, -1))
    if frames is not None and embedding is not None:
        cosine, sine = (part.unflatten(0, (count, -1))[list(frames)].flatten(0, 1) for part in embedding)
        embedding = (cosine, sine)
    return transformer(
        hidden_states=noisy,
        encoder_hidden_states=text,
        timestep=timesteps,
        image_rotary_emb=embedding,
        return_dict=False,
    )[0]


class Autocast(nn.Module):
    """Runs a module under `torch.autocast`: parameters keep their dtype, and each operation chooses its own.

    It works with gradient checkpointing and FSDP2, for which `CastParameters` does not.
    """

    def __init__(self, module: nn.Module, dtype: torch.dtype, device: torch.device) -> None:
        super().__init__()
        self.module, self.dtype, self.device_type = module, dtype, device.type

    def forward(self, *args: Any, **kwargs: Any) -> Any:
        # Its cache of cast weights would outlive a shard that FSDP2 has released.
        with torch.autocast(
            self.device_type, dtype=self.dtype, enabled=self.dtype != torch.float32, cache_enabled=False
        ):
            return self.module(*args, **kwargs)


class CastParameters(nn.Module):
    """Runs a module in another dtype; its parameters and their gradients keep theirs.

    All parameters are cast once in each call, which is faster than `Autocast` on small models. Parameters below a
    module named in `keep_in_fp32_modules` are not cast.

    With bfloat16 weights on a CPU it disables PyTorch's flash attention for the whole process: there the fused kernel
    takes four times as long in bfloat16 as plain products. On a GPU the setting is left alone.
    """

    def __init__(self, module: nn.Module, dtype: torch.dtype, *, keep_in_fp32_modules: tuple[str, ...] = ()) -> None:
        super().__init__()
        self.module, self.dtype, self.keep_in_fp32_modules = module, dtype, frozenset(keep_in_fp32_modules)
        if dtype == torch.bfloat16 and all(parameter.device.type == "cpu" for parameter in module.parameters()):
            torch.backends.cuda.enable_flash_sdp(False)

    def forward(self, *args: Any, **kwargs: Any) -> Any:
        cast = {
            name: p.to(self.dtype)
            for name, p in self.module.named_parameters()
            if self.keep_in_fp32_modules.isdisjoint(name.split("."))
        }
        return torch.func.functional_call(self.module, cast, args, kwargs)


def cast_base(transformer: nn.Module, method: nn.Module, dtype: torch.dtype) -> None:
    """Cast the transformer's own parameters, not those of the attached method."""
    method_ids = {id(parameter) for parameter in method.parameters()}
    for parameter in transformer.parameters():
        if id(parameter) not in method_ids:
            parameter.data = parameter.data.to(dtype)


@torch.no_grad()
def sample_clips(
    pipe: CogVideoXPipeline, *, num_frames: int, seed: int, guidance: float, steps: int = 20, **prompt: Any
) -> list[np.ndarray]:
    """Clips from a pipeline as bytes, one a prompt: (frames, height, width, 3)."""
    generator = torch.Generator().manual_seed(seed)
    output: Any = pipe(
        **prompt,
        num_frames=num_frames,
        num_inference_steps=steps,
        guidance_scale=guidance,
        generator=generator,
        output_type="np",
    )
    return [(clip * 255).round().astype(np.uint8) for clip in output.frames]
