"""Trains the tiny VAE on images, where 3-D convolutions act as 2-D ones, then on clips.

On images only the last temporal tap of each kernel is trained, so the clip stage starts from a VAE that encodes clips
frame by frame, and only has to learn motion.
"""

import math
from pathlib import Path
from typing import Literal

import torch
from pydantic import Field
from torch import Tensor, nn

from likeness import files, media
from likeness.backbones import vae_forward
from likeness.backbones.tiny import VaeSettings, build_vae, whiten
from likeness.config import Settings
from likeness.errors import ConfigError
from likeness.identity.encoders.recognizer import Recognizer, align
from likeness.runtime import choose_training_dtype
from likeness.training.data.datasets import EpochSampler, ShardedDataset, load_puppets, to_float, to_uint8, unpack_mask
from likeness.training.data.render_puppets import PuppetSettings
from likeness.training.engine import checkpoints, distributed
from likeness.training.engine.checkpoints import DivergedError
from likeness.training.engine.logging import TrainingLogger
from likeness.training.engine.loop import load_final_weights, save_final_weights, train
from likeness.training.engine.settings import LoopSettings


class VaeLossSettings(Settings):
    """Weights of the terms of the reconstruction loss. Pixels are in [-1, 1]."""

    face: float = Field(default=5.0, ge=1)
    """Weight of face pixels relative to others."""
    squared: float = 1.0
    """Weight of the squared error; the absolute error has weight 1."""
    edges: float = 1.0
    """Weight of the absolute error of differences between neighboring pixels, for sharpness."""
    motion: float = 0.5
    """Weight of the absolute error of differences between frames."""
    identity: float = 0.0
    """Weight of the squared error of standardized embeddings of one frame per sample, by the recipe's recognizer."""
    divergence: float = 3e-4
    """Weight of the mean KL divergence of latents from the standard normal distribution."""


class VaeStageSettings(LoopSettings):
    """One stage of the VAE."""

    data: Literal["images", "clips"]
    """The data set that the stage trains on."""
    num_frames: int = Field(default=9, gt=0)
    """Frames of a clip that a sample uses, 1 + a multiple of 8."""
    image_every: int = Field(default=6, ge=1)
    """While training on clips, one step in this many is on images."""
    learns: Literal["all", "decoder"] = "all"
    """`decoder` does not change the latents, so a transformer that was trained on them stays valid."""
    latent_noise: float = Field(default=0.0, ge=0)
    """Latents are decoded with normal noise of a random deviation up to this, to tolerate errors of a transformer."""
    activation_dtype: Literal["auto", "float32", "bfloat16"] = "auto"
    """Dtype of activations and products; weights are float32."""
    loss: VaeLossSettings = Field(default_factory=VaeLossSettings)


class VaeRecipe(Settings):
    """A VAE, new or continued."""

    kind: Literal["vae"]
    seed: int = 0
    model: VaeSettings = Field(default_factory=VaeSettings)
    start: Path | None = None
    """Folder of a VAE of this shape to continue from; new weights if absent."""
    white_floor: float | None = Field(default=None, ge=0)
    """Floor of the whitening of latents before the first stage (`tiny.whiten`); no whitening if absent."""
    recognizer: Path | None = None
    """Folder of a distilled recognizer, for stages with a `loss.identity`."""
    images: PuppetSettings
    clips: PuppetSettings
    validation: PuppetSettings
    """Validation clips of other people, for sheets and metrics."""
    stages: tuple[VaeStageSettings, ...] = Field(min_length=1)


class VaeStage:
    """One stage of a `VaeRecipe`."""

    def __init__(
        self,
        vae: vae_forward.Vae,
        settings: VaeStageSettings,
        data: dict[str, ShardedDataset],
        seed: int,
        recognizer: Recognizer | None = None,
    ) -> None:
        if settings.loss.identity and recognizer is None:
            raise ConfigError(f"Stage `{settings.name}` has an identity loss. Name a `recognizer` in the recipe.")
        self.recognizer = recognizer
        self.vae, self.settings, self.data = vae.train(), settings, data
        vae.requires_grad_(True)
        vae.encoder.requires_grad_(settings.learns == "all")
        self.modules: dict[str, nn.Module] = {"vae": vae}
        self.samplers = {name: EpochSampler(len(dataset), seed) for name, dataset in data.items()}
        self.dtype = choose_training_dtype(settings.activation_dtype)

    def loss(self, step: int) -> tuple[Tensor, dict[str, float]]:
        distributed.seed_by_rank()
        settings = self.settings
        on_images = settings.data == "images" or step % settings.image_every == settings.image_every - 1
        frames, mask, landmarks = self._sample_batch("images" if on_images else "clips", step)
        frames = frames.transpose(1, 2).to(self.dtype)  # (batch, channels, frames, height, width)
        if on_images:
            frames = frames[:, :, 0].contiguous(memory_format=torch.channels_last).unsqueeze(2)
        else:
            frames = frames.contiguous(memory_format=torch.channels_last_3d)
        is_image = settings.data == "images"
        mean, log_variance = vae_forward.encode(self.vae, frames, last_temporal_slice_only=is_image)
        latents = mean + torch.randn_like(mean) * torch.exp(0.5 * log_variance)
        if settings.latent_noise:
            noise_std = settings.latent_noise * torch.rand(len(latents), 1, 1, 1, 1, dtype=latents.dtype)
            latents = latents + noise_std * torch.randn_like(latents)
        output, frames = (
            vae_forward.decode(self.vae, latents, last_temporal_slice_only=is_image).float(),
            frames.float(),
        )
        loss, metrics = reconstruction_loss(output, frames, mask, mean.float(), log_variance.float(), settings.loss)
        if settings.loss.identity:
            error = self.identity_error(output, frames, landmarks)
            loss, metrics["identity"] = loss + settings.loss.identity * error, float(error.detach())
        return loss, metrics

    def identity_error(self, output: Tensor, frames: Tensor, landmarks: Tensor) -> Tensor:
        """Squared error of embeddings of the reconstruction, on one random frame of each sample."""
        assert self.recognizer is not None
        rows, times = torch.arange(len(output)), torch.randint(output.shape[2], (len(output),))
        points, size_px = landmarks[rows, times], self.recognizer.size_px
        predicted, target = (self.recognizer(align(x[rows, :, times], points, size_px)) for x in (output, frames))
        return (predicted - target).square().mean()

    def _sample_batch(self, name: str, step: int) -> tuple[Tensor, Tensor, Tensor]:
        dataset = self.data[name]
        size = self.settings.micro_batch
        if name == "images" and self.settings.data == "clips":
            size *= self.settings.num_frames // 2
        rows = self.samplers[name].local_rows(step, size)
        frames, mask, landmarks = (dataset[key][rows] for key in ("frames", "mask", "landmarks"))
        if name == "clips":
            starts = torch.randint(frames.shape[1] - self.settings.num_frames + 1, (1,))
            window = slice(int(starts), int(starts) + self.settings.num_frames)
            frames, mask, landmarks = frames[:, window], mask[:, window], landmarks[:, window]
        frames, mask = to_float(frames), unpack_mask(mask)
        if float(torch.rand(())) < 0.5:
            frames, mask = frames.flip(-1), mask.flip(-1)
            mirrored = torch.stack([frames.shape[-1] - 1 - landmarks[..., 0], landmarks[..., 1]], dim=-1)
            landmarks = mirrored[..., [3, 2, 1, 0, 4], :]
        return frames, mask, landmarks

    @torch.no_grad()
    def validate(self, path: Path) -> dict[str, float]:
        """Rows of frames with their reconstructions below; returns PSNR of validation clips."""
        clips = self.data["validation"]
        on_images = self.settings.data == "images"
        frames = to_float(clips["frames"][:24]).transpose(1, 2)
        if on_images:
            frames = frames[:, :, 8:9]
        output = reconstruct(self.vae, frames)
        mask = unpack_mask(clips["mask"][:24])[:, 8:9] if on_images else unpack_mask(clips["mask"][:24])
        metrics = {"psnr_db": psnr_db(output, frames), "face_psnr_db": psnr_db(output, frames, mask.unsqueeze(1))}
        if on_images:
            pairs = [(frames[row : row + 12, :, 0], output[row : row + 12, :, 0]) for row in (0, 12)]
        else:
            pairs = [
                (frames[row].transpose(0, 1)[::2], output[row].transpose(0, 1)[::2])
                for row in range(min(4, len(frames)))
            ]
        rows = [list(to_uint8(images)) for pair in pairs for images in pair]
        media.write_image(path, media.contact_sheet(rows, cell_px=96, gap_px=2))
        return metrics


def reconstruction_loss(
    output: Tensor, frames: Tensor, mask: Tensor, mean: Tensor, log_variance: Tensor, settings: VaeLossSettings
) -> tuple[Tensor, dict[str, float]]:
    """The loss of reconstructions and its terms.

    Shapes:
        output, frames: (batch, channels, frames, height, width)
        mask: (batch, frames, height, width), true on the face
        mean, log_variance: (batch, latent_channels, latent_frames, height, width)
    """
    weight = 1 + (settings.face - 1) * mask.unsqueeze(1).float()
    weight = weight / weight.mean()
    error = output - frames
    absolute = (weight * error.abs()).mean()
    squared = (weight * error.square()).mean()
    horizontal, vertical = error.diff(dim=-1), error.diff(dim=-2)
    edges = (weight[..., 1:] * horizontal.abs()).mean() + (weight[..., 1:, :] * vertical.abs()).mean()
    divergence = 0.5 * (mean.square() + log_variance.exp() - 1 - log_variance).mean()
    loss = absolute + settings.squared * squared + settings.edges * edges + settings.divergence * divergence
    metrics = {"absolute": absolute, "edges": edges, "divergence": divergence}
    if frames.shape[2] > 1 and settings.motion:
        motion = (weight[:, :, 1:] * error.diff(dim=2).abs()).mean()
        loss = loss + settings.motion * motion
        metrics["motion"] = motion
    return loss, {name: float(value.detach()) for name, value in metrics.items()}


@torch.no_grad()
def reconstruct(vae: vae_forward.Vae, frames: Tensor, *, batch: int = 8) -> Tensor:
    """Encode and decode frames (batch, channels, frames, height, width) by diffusers' own methods."""
    parts = [vae.decode(vae.encode(part).latent_dist.mode()).sample for part in frames.split(batch)]
    return torch.cat(parts).clamp(-1, 1)


def psnr_db(output: Tensor, frames: Tensor, mask: Tensor | None = None) -> float:
    """Peak signal-to-noise ratio of pixels in [-1, 1], over the mask if one is given."""
    error = (output - frames).square()
    mean = error.mean() if mask is None else (error * mask).sum() / (mask.expand_as(error).sum())
    return float(10 * torch.log10(4 / mean))


def latent_std(vae: vae_forward.Vae, dataset: ShardedDataset, count: int = 200) -> float:
    """Standard deviation of latents of clips; its inverse is the VAE's scaling factor."""
    with torch.no_grad():
        frames = to_float(dataset["frames"][:count]).transpose(1, 2)
        means = [vae_forward.encode(vae, part)[0] for part in frames.split(8)]
    return float(torch.cat(means).std())


@torch.no_grad()
def latent_statistics(vae: vae_forward.Vae, datasets: list[ShardedDataset], count: int = 400) -> tuple[Tensor, Tensor]:
    """Mean and covariance of the unscaled latents of one pixel, over the first samples of each set."""
    pixels = []
    for dataset in datasets:
        frames = to_float(dataset["frames"][:count]).transpose(1, 2)
        pixels += [vae_forward.encode(vae, part)[0].movedim(1, -1).flatten(0, -2) for part in frames.split(8)]
    flat = torch.cat(pixels)
    return flat.mean(dim=0), torch.cov(flat.T)


def run(recipe: VaeRecipe, folder: Path, cache: Path) -> Path:
    """Train a VAE and write it to `folder/model/vae`."""
    torch.manual_seed(recipe.seed)
    vae: vae_forward.Vae = build_vae(recipe.model)
    if recipe.start:
        checkpoints.load_initial_weights(vae, recipe.start)
    logger = TrainingLogger(folder, "vae")
    data = {
        name: load_puppets(getattr(recipe, name), cache, logger, ("frames", "mask", "landmarks"))
        for name in ("images", "clips", "validation")
    }
    if recipe.white_floor is not None:
        whiten(vae, *latent_statistics(vae, [data["images"], data["clips"]]), recipe.white_floor)
    recognizer = Recognizer.load(recipe.recognizer).requires_grad_(False) if recipe.recognizer else None
    for number, settings in enumerate(recipe.stages):
        stage_folder = folder / settings.name
        if load_final_weights(stage_folder, {"vae": vae}):
            continue
        if settings.data == "images":
            vae_forward.keep_only_last_temporal_slice(vae)
        stage = VaeStage(vae, settings, data, recipe.seed + number, recognizer)
        train(stage, settings, stage_folder, seed=recipe.seed + number)
        save_final_weights(stage_folder, {"vae": vae})
    if recipe.white_floor is not None:
        scale = 1.0
    elif recipe.start and all(settings.learns == "decoder" for settings in recipe.stages):
        scale = type(vae).load_config(recipe.start)["scaling_factor"]  # The latents are the same.
    else:
        std = latent_std(vae, data["validation"])
        if not (math.isfinite(std) and std > 0):
            raise DivergedError(
                f"{folder} has no scaling factor: the standard deviation of its latents is {std}. Train again "
                "with a lower learning rate and another `--output`."
            )
        scale = round(1 / std, 5)
    vae.register_to_config(scaling_factor=scale)
    target = folder / "model" / "vae"
    if distributed.rank() == 0:
        with files.write_atomically(target, replaces_folder=True) as draft:
            vae.half().save_pretrained(draft)
    logger.info(f"vae written to {target}, scaling factor {vae.config.scaling_factor}")
    return target
