"""Trains the tiny transformer and its text encoder: images first, then clips.

The data are latents of puppets (rendered synthetic people).

Three things speed it up on little compute: dense maps predicted from a middle block
(`likeness.training.objectives.dense_maps`), noise levels at which faces are formed, and steps on a few latent frames of
a clip at their positions in time.
"""

from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import Any, Literal

import torch
from diffusers.models.autoencoders.autoencoder_kl_cogvideox import AutoencoderKLCogVideoX
from pydantic import Field
from torch import Tensor, nn

from likeness import files, media
from likeness.backbones import tiny
from likeness.config import Settings
from likeness.errors import ConfigError
from likeness.puppets.scenes.captions import vocabulary
from likeness.runtime import choose_training_dtype
from likeness.training.base.pipelines import read_vae
from likeness.training.data.datasets import EpochSampler, ShardedDataset
from likeness.training.data.latents import load_latents
from likeness.training.data.prompts import tokenize, tokenize_captions
from likeness.training.data.render_puppets import PuppetSettings
from likeness.training.engine import checkpoints, distributed
from likeness.training.engine.logging import TrainingLogger
from likeness.training.engine.loop import load_final_weights, save_final_weights, train
from likeness.training.objectives import diffusion, perturbed_guidance
from likeness.training.objectives.dense_maps import DenseMapHead, VideoTokenHook

VALIDATION_PROMPTS = (
    "a woman in a red sweater turns her head to the left in a park",
    "a man in a blue shirt turns his head to the right in a studio",
    "an elderly man with glasses wearing a green jacket nods on a street",
    "a girl in a yellow t-shirt smiles at the camera on a beach",
    "a boy in a purple hoodie tilts his head in a library",
    "an elderly woman in a white shirt talks to the camera in a kitchen",
    "a man with a beard in a black jacket comes closer to the camera in front of a brick wall",
    "a baby in an orange shirt laughs in a living room",
)


class BaseStageSettings(diffusion.DiffusionStageSettings):
    """One stage of the base."""

    image_every: int = Field(default=0, ge=0)
    """While training on clips, one step in this many is on images; 0 for never."""
    face_weight: float = Field(default=1.0, ge=1)
    """Weight of errors on the face relative to the rest of the frame."""
    latent_frames: tuple[int, ...] = ()
    """Numbers of latent frames of a clip that a step uses, one of which is sampled for each step; all frames if empty.
    Steps with fewer frames have more samples, so that all steps cost the same."""
    map_weight: float = Field(default=0.0, ge=0)
    """Weight of the loss of dense maps, which a small head predicts from the tokens of a block; 0 for no head."""
    map_layer: int = Field(default=2, ge=0)
    """The block whose tokens the head reads."""
    attention_guidance: float = Field(default=0.0, ge=0)
    """Scale of perturbed-attention guidance to distill (target: guided v of the initial weights); 0 for none."""
    perturbed_layers: tuple[int, ...] = ()
    """Blocks whose attention is perturbed for `attention_guidance`."""
    long_text_every: int = Field(default=64, ge=0)
    """One step in this many has prompts padded to 226 tokens, the default of the stock pipeline; 0 for never."""


class BaseRecipe(Settings):
    """A text-to-video transformer over a trained VAE."""

    kind: Literal["base"]
    seed: int = 0
    vae: Path
    """Folder of the VAE."""
    start: Path | None = None
    """Folder of a pipeline of this shape, or with larger patches, over the same latents to continue from."""
    snr_shift_scale: float = Field(default=1.0, gt=0)
    """Divides the signal-to-noise ratio of all timesteps; below 1 more steps are at low noise, where details form."""
    transformer: tiny.TransformerSettings = tiny.TransformerSettings()
    text: tiny.TextSettings = tiny.TextSettings()
    images: PuppetSettings
    clips: PuppetSettings
    validation: PuppetSettings
    """Validation clips, of other people."""
    stages: tuple[BaseStageSettings, ...] = Field(min_length=1)


class Denoiser(nn.Module):
    """Text encoder and transformer as one module, from token ids and noisy latents to v."""

    def __init__(self, text_encoder: nn.Module, transformer: Any) -> None:
        super().__init__()
        self.text_encoder, self.transformer = text_encoder, transformer

    def forward(
        self, token_ids: Tensor, noisy: Tensor, timesteps: Tensor, frames: Sequence[int] | None = None
    ) -> Tensor:
        text = self.text_encoder(token_ids)[0]
        return diffusion.predict_velocity(self.transformer, noisy, text, timesteps, frames)


class BaseStage:
    """One stage of a `BaseRecipe`."""

    def __init__(
        self,
        pipe: Any,
        settings: BaseStageSettings,
        data: dict[str, ShardedDataset],
        seed: int,
        head: DenseMapHead | None = None,
    ) -> None:
        self.pipe, self.settings, self.data = pipe, settings, data
        self.denoiser = Denoiser(pipe.text_encoder, pipe.transformer).train()
        self.modules: dict[str, nn.Module] = {"denoiser": self.denoiser}
        self.samplers = {name: EpochSampler(len(dataset), seed) for name, dataset in data.items()}
        self.dtype = choose_training_dtype(settings.dtype)
        self.cast_denoiser = diffusion.CastParameters(self.denoiser, self.dtype)
        self.map_head, self.cast_map_head, self.token_hook = head, None, None
        if head is not None and settings.map_weight:
            self.modules["map_head"] = head
            self.cast_map_head = diffusion.CastParameters(head, self.dtype)
            self.token_hook = VideoTokenHook(pipe.transformer.transformer_blocks[settings.map_layer])
        self.teacher = None
        # Guidance is distilled into the transformer alone: adapters were trained with this text encoder.
        self.denoiser.text_encoder.requires_grad_(not settings.attention_guidance)
        if settings.attention_guidance:
            self.teacher = perturbed_guidance.GuidedTeacher(
                self.denoiser,
                scale=settings.attention_guidance,
                layers=settings.perturbed_layers,
                dtype=self.dtype,
            )
        self.alphas_cumprod = pipe.scheduler.alphas_cumprod.float()
        self.max_text_length = pipe.transformer.config.max_text_seq_length
        empty = tokenize(pipe.tokenizer, [""], 226)[0]
        self.token_ids = {
            n: tokenize_captions(pipe.tokenizer, dataset, self.max_text_length) for n, dataset in data.items()
        }
        self.empty_prompt_ids, self.padding_ids = empty[: self.max_text_length], empty[self.max_text_length :]

    def loss(self, step: int) -> tuple[Tensor, dict[str, float]]:
        distributed.seed_by_rank()
        settings = self.settings
        every = settings.image_every
        on_images = settings.data == "images" or (every > 0 and step % every == every - 1)
        name = "images" if on_images else "clips"
        frames, batch_factor = self._sample_frames(step), 1
        if on_images:
            frames, batch_factor = [0], 3 if settings.data == "clips" else 1
        elif frames is not None:
            batch_factor = round(self.data[name]["latents"].shape[1] / len(frames))
        rows = self.samplers[name].local_rows(step, settings.micro_batch * batch_factor)
        token_ids = self.token_ids[name][rows]
        token_ids[torch.rand(len(rows)) < settings.text_drop] = self.empty_prompt_ids
        if settings.long_text_every and step % settings.long_text_every == settings.long_text_every - 1:
            token_ids = torch.cat([token_ids, self.padding_ids.expand(len(token_ids), -1)], dim=1)
        timesteps = diffusion.sample_timesteps(len(rows), settings, self.alphas_cumprod)
        clean, mask = (_select_frames(self.data[name][key][rows], frames).float() for key in ("latents", "mask"))
        error = self._squared_error(clean, token_ids, timesteps, frames)
        metrics = {f"{name}_loss": float(error.detach().mean())}
        weight = 1 + (settings.face_weight - 1) * mask.unsqueeze(2)
        loss = (error * (weight / weight.mean())).mean()
        if self.map_head and self.cast_map_head and self.token_hook:
            maps = _select_frames(self.data[name]["maps"][rows], frames)
            predicted = self.cast_map_head(self.token_hook.pop_tokens(), maps.shape[1]).float()
            map_error = (predicted - self.map_head.standardize(maps)).square().mean()
            metrics["map_loss"] = float(map_error.detach())
            loss = loss + settings.map_weight * map_error
        return loss, metrics

    def _sample_frames(self, step: int) -> list[int] | None:
        """The latent frames that a step uses, the same in all processes; None for all frames."""
        counts = self.settings.latent_frames
        if not counts:
            return None
        num_frames = self.data["clips"]["latents"].shape[1]
        random = torch.Generator().manual_seed(step)
        count = counts[int(torch.randint(len(counts), (), generator=random))]
        return sorted(torch.randperm(num_frames, generator=random)[:count].tolist()) if count < num_frames else None

    def _squared_error(
        self, clean: Tensor, token_ids: Tensor, timesteps: Tensor, frames: Sequence[int] | None = None
    ) -> Tensor:
        """The squared error of v, as `clean`."""
        noisy, target = diffusion.noisy_and_velocity(clean, torch.randn_like(clean), self.alphas_cumprod[timesteps])
        if self.teacher is not None:
            is_conditional = (token_ids[:, : self.max_text_length] != self.empty_prompt_ids).any(dim=1)
            target = self.teacher(token_ids, noisy, timesteps, is_conditional)
        velocity = self.cast_denoiser(token_ids, noisy.to(self.dtype), timesteps, frames).float()
        return (velocity - target).square()

    def close(self) -> None:
        """Remove the hook from the transformer."""
        if self.token_hook is not None:
            self.token_hook.remove()

    @torch.no_grad()
    def validate(self, path: Path) -> dict[str, float]:
        """One row for each of eight prompts; returns the error on validation clips at fixed noise."""
        self.denoiser.eval()
        name = "validation" if self.settings.data == "clips" else "validation_images"
        clean = self.data[name]["latents"][:64].float()
        timesteps = torch.linspace(20, 980, len(clean)).long()
        error = self._squared_error(clean, self.token_ids[name][:64], timesteps).mean()
        frames = 1 if self.settings.data == "images" else self.pipe.transformer.config.sample_frames
        clips = diffusion.sample_clips(
            self.pipe,
            prompt=list(VALIDATION_PROMPTS),
            max_sequence_length=self.max_text_length,
            num_frames=frames,
            seed=0,
            guidance=self.settings.guidance,
        )
        self.denoiser.train()
        if frames == 1:
            rows = [[clip[0] for clip in clips]]
            media.write_image(path, media.contact_sheet(rows, cell_px=128))
        else:
            rows = [list(clip[::2]) for clip in clips]
            media.write_image(path, media.contact_sheet(rows, list(VALIDATION_PROMPTS), cell_px=96, gap_px=2))
        return {"validation_loss": float(error)}


def _select_frames(values: Tensor, frames: Sequence[int] | None) -> Tensor:
    """Some latent frames of (samples, frames, ...), or all of them."""
    return values if frames is None else values[:, list(frames)]


def build_initial_pipeline(recipe: BaseRecipe, vae: AutoencoderKLCogVideoX, captions: list[str]) -> Any:
    """The pipeline before training: new, or with the weights and the vocabulary of `recipe.start`."""
    torch.manual_seed(recipe.seed)
    start = recipe.start
    tokenizer = tiny.read_tokenizer(start / "tokenizer") if start else tiny.build_tokenizer(set(captions))
    text_encoder = tiny.build_text_encoder(recipe.text, tokenizer)
    transformer = tiny.build_transformer(recipe.transformer, recipe.text)
    if start:
        checkpoints.load_initial_weights(text_encoder, start / "text_encoder")
        convert = partial(tiny.refine_patches, patch_size=recipe.transformer.patch_size)
        checkpoints.load_initial_weights(transformer, start / "transformer", convert)
    shift = recipe.snr_shift_scale
    return tiny.build_pipeline(vae, text_encoder, tokenizer, transformer, snr_shift_scale=shift)


def build_map_head(recipe: BaseRecipe, data: dict[str, ShardedDataset]) -> DenseMapHead:
    """A new head for dense maps, with the mean and scale of those in `data`."""
    layers = {stage.map_layer for stage in recipe.stages if stage.map_weight}
    if max(layers) >= recipe.transformer.num_layers:
        raise ConfigError(
            f"map_layer = {max(layers)}, but the transformer has blocks 0 to {recipe.transformer.num_layers - 1}. "
            "Name one of them; those before the middle work best."
        )
    head = DenseMapHead(recipe.transformer.num_heads * recipe.transformer.head_width, recipe.transformer.patch_size)
    head.fit_standardization(data["images"]["maps"][:1000])
    return head


def run(recipe: BaseRecipe, folder: Path, cache: Path) -> Path:
    """Train a base and write the whole pipeline to `folder/model`."""
    logger = TrainingLogger(folder, "base")
    vae = read_vae(recipe.vae)
    validation_images = recipe.validation.model_copy(update={"kind": "images"})
    puppet_sets = {"validation": recipe.validation, "validation_images": validation_images}
    puppet_sets |= {"images": recipe.images, "clips": recipe.clips}
    data = {name: load_latents(settings, vae, cache, logger) for name, settings in puppet_sets.items()}
    # All words that captions can have, so that the tokenizer does not depend on the data set.
    pipe = build_initial_pipeline(recipe, vae, vocabulary())
    modules: dict[str, nn.Module] = {"denoiser": Denoiser(pipe.text_encoder, pipe.transformer)}
    head = build_map_head(recipe, data) if any(stage.map_weight for stage in recipe.stages) else None
    if head is not None:
        modules["map_head"] = head
    for number, settings in enumerate(recipe.stages):
        stage_folder, seed = folder / settings.name, recipe.seed + number
        if load_final_weights(stage_folder, modules):
            continue
        stage = BaseStage(pipe, settings, data, seed, head)
        train(stage, settings, stage_folder, seed=seed)
        stage.close()
        save_final_weights(stage_folder, modules)
    target = folder / "model"
    if distributed.rank() == 0:
        with files.write_atomically(target, replaces_folder=True) as draft:
            tiny.save_pipeline(pipe, draft)
        logger.info(f"pipeline written to {target}")
    return target
