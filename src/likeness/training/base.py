"""Trains the tiny transformer and its text encoder on latents of puppets: pictures first, then clips.

What makes it learn sooner on little compute: dense ground truth predicted from a middle block (`likeness.training.maps`),
noise levels where faces are decided, and steps on a few latent frames of a clip at their places in time.
"""

import re
from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import Any, Literal

import torch
from diffusers.models.autoencoders.autoencoder_kl_cogvideox import AutoencoderKLCogVideoX
from pydantic import Field
from torch import Tensor, nn

from likeness import media
from likeness.backbones import tiny
from likeness.config import Settings
from likeness.errors import ConfigError, WeightsError
from likeness.puppets.captions import vocabulary
from likeness.runtime import choose_training_dtype
from likeness.training import checkpoints, diffusion, guided, parallel
from likeness.training.data import Order, Shards
from likeness.training.latents import latents
from likeness.training.loop import finish, finished, train
from likeness.training.maps import MapHead, VideoTokens
from likeness.training.progress import Journal
from likeness.training.render import PuppetSettings

SHEET_PROMPTS = (
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

    picture_every: int = Field(default=0, ge=0)
    """While training on clips, every so many steps one on pictures; 0 for never."""
    face_weight: float = Field(default=1.0, ge=1)
    """An error on the face counts this many times as much as one elsewhere."""
    latent_frames: tuple[int, ...] = ()
    """Of a clip, a step takes so many latent frames, drawn anew each time from these counts; all of them if empty. Samples
    grow in number as their frames fall, so that steps cost the same."""
    map_weight: float = Field(default=0.0, ge=0)
    """Weight of the error of the dense maps that a small head predicts from a block's tokens; 0 for no head."""
    map_layer: int = Field(default=2, ge=0)
    """The block whose tokens it reads."""
    attention_guidance: float = Field(default=0.0, ge=0)
    """Learn, in place of the data's v, what the weights at the start say with this much perturbed-attention guidance."""
    perturbed_layers: tuple[int, ...] = ()
    """Blocks whose attention that guidance perturbs."""
    long_text_every: int = Field(default=64, ge=0)
    """Every so many steps one with text padded to 226 tokens, as a pipeline pads that is not told otherwise."""


class BaseRecipe(Settings):
    """A text-to-video transformer from nothing, over a trained VAE."""

    kind: Literal["base"]
    seed: int = 0
    vae: Path
    """Folder of the VAE."""
    start: Path | None = None
    """Folder of a pipeline of this shape (or of larger patches) to go on from, over the same latents; from nothing if absent."""
    snr_shift_scale: float = Field(default=1.0, gt=0)
    """Every timestep's signal over noise is divided by this: below 1, more steps are spent where details are decided."""
    transformer: tiny.TransformerSettings = tiny.TransformerSettings()
    text: tiny.TextSettings = tiny.TextSettings()
    pictures: PuppetSettings
    clips: PuppetSettings
    unseen: PuppetSettings
    """Clips that no step sees."""
    stages: tuple[BaseStageSettings, ...] = Field(min_length=1)


class Denoiser(nn.Module):
    """From token ids and noisy latents to v: the text encoder and the transformer as one module."""

    def __init__(self, text_encoder: nn.Module, transformer: Any) -> None:
        super().__init__()
        self.text_encoder, self.transformer = text_encoder, transformer

    def forward(
        self, ids: Tensor, noisy: Tensor, timesteps: Tensor, frames: Sequence[int] | None = None
    ) -> Tensor:
        text = self.text_encoder(ids)[0]
        return diffusion.denoise(self.transformer, noisy, text, timesteps, frames)


class BaseStage:
    """One stage of a `BaseRecipe`."""

    def __init__(
        self,
        pipe: Any,
        settings: BaseStageSettings,
        data: dict[str, Shards],
        seed: int,
        head: MapHead | None = None,
    ) -> None:
        self.pipe, self.settings, self.data = pipe, settings, data
        self.denoiser = Denoiser(pipe.text_encoder, pipe.transformer).train()
        self.modules: dict[str, nn.Module] = {"denoiser": self.denoiser}
        self.orders = {name: Order(len(shards), seed) for name, shards in data.items()}
        self.dtype = choose_training_dtype(settings.dtype)
        self.cast = diffusion.CastParameters(self.denoiser, self.dtype)
        self.map_head, self.head, self.tokens = head, None, None
        if head is not None and settings.map_weight:
            self.modules["map_head"] = head
            self.head = diffusion.CastParameters(head, self.dtype)
            self.tokens = VideoTokens(pipe.transformer.transformer_blocks[settings.map_layer])
        self.teacher = None
        # With a teacher only the transformer learns: adapters were trained to this text encoder.
        self.denoiser.text_encoder.requires_grad_(not settings.attention_guidance)
        if settings.attention_guidance:
            self.teacher = guided.GuidedTeacher(
                self.denoiser,
                scale=settings.attention_guidance,
                layers=settings.perturbed_layers,
                dtype=self.dtype,
            )
        self.alpha_bars = pipe.scheduler.alphas_cumprod.float()
        self.length = pipe.transformer.config.max_text_seq_length
        empty = diffusion.tokenize(pipe.tokenizer, [""], 226)[0]
        self.ids = {name: _token_ids(pipe.tokenizer, shards, self.length) for name, shards in data.items()}
        self.empty, self.padding = empty[: self.length], empty[self.length :]

    def loss(self, step: int) -> tuple[Tensor, dict[str, float]]:
        settings = self.settings
        every = settings.picture_every
        on_pictures = settings.data == "pictures" or (every > 0 and step % every == every - 1)
        name = "pictures" if on_pictures else "clips"
        frames, more = self._frames(step), 1
        if on_pictures:
            frames, more = [0], 3 if settings.data == "clips" else 1
        elif frames is not None:
            more = round(self.data[name]["latents"].shape[1] / len(frames))
        rows = self.orders[name].rows(step, settings.batch * more)
        ids = self.ids[name][rows]
        ids[torch.rand(len(rows)) < settings.text_drop] = self.empty
        if settings.long_text_every and step % settings.long_text_every == settings.long_text_every - 1:
            ids = torch.cat([ids, self.padding.expand(len(ids), -1)], dim=1)
        timesteps = diffusion.sample_timesteps(len(rows), settings, self.alpha_bars)
        clean, mask = (_at(self.data[name][key][rows], frames).float() for key in ("latents", "mask"))
        error = self._error(clean, ids, timesteps, frames)
        figures = {f"{name}_loss": float(error.detach().mean())}
        weight = 1 + (settings.face_weight - 1) * mask.unsqueeze(2)
        loss = (error * (weight / weight.mean())).mean()
        if self.map_head and self.head and self.tokens:
            maps = _at(self.data[name]["maps"][rows], frames)
            predicted = self.head(self.tokens.take(), maps.shape[1]).float()
            map_error = (predicted - self.map_head.standardize(maps)).square().mean()
            figures["map_loss"] = float(map_error.detach())
            loss = loss + settings.map_weight * map_error
        return loss, figures

    def _frames(self, step: int) -> list[int] | None:
        """Which latent frames of its clips this step sees, the same in every process; None for all of them."""
        counts, whole = self.settings.latent_frames, self.data["clips"]["latents"].shape[1]
        if not counts:
            return None
        random = torch.Generator().manual_seed(step)
        count = counts[int(torch.randint(len(counts), (), generator=random))]
        return sorted(torch.randperm(whole, generator=random)[:count].tolist()) if count < whole else None

    def _error(
        self, clean: Tensor, ids: Tensor, timesteps: Tensor, frames: Sequence[int] | None = None
    ) -> Tensor:
        noisy, target = diffusion.add_noise(clean, torch.randn_like(clean), self.alpha_bars[timesteps])
        if self.teacher is not None:
            says_something = (ids[:, : self.length] != self.empty).any(dim=1)
            target = self.teacher(ids, noisy, timesteps, says_something)
        return (self.cast(ids, noisy.to(self.dtype), timesteps, frames).float() - target).square()

    def close(self) -> None:
        """Leave the transformer as it was found."""
        if self.tokens is not None:
            self.tokens.remove()

    @torch.no_grad()
    def sheet(self, path: Path) -> dict[str, float]:
        """Eight prompts, one a row; the error on unseen clips at fixed noise."""
        self.denoiser.eval()
        name = "unseen" if self.settings.data == "clips" else "unseen_pictures"
        clean = self.data[name]["latents"][:64].float()
        timesteps = torch.linspace(20, 980, len(clean)).long()
        error = self._error(clean, self.ids[name][:64], timesteps).mean()
        frames = 1 if self.settings.data == "pictures" else self.pipe.transformer.config.sample_frames
        clips = diffusion.sample(
            self.pipe,
            prompt=list(SHEET_PROMPTS),
            max_sequence_length=self.length,
            num_frames=frames,
            seed=0,
            guidance=self.settings.guidance,
        )
        self.denoiser.train()
        if frames == 1:
            rows = [[clip[0] for clip in clips]]
            media.write_picture(path, media.contact_sheet(rows, cell_px=128))
        else:
            rows = [list(clip[::2]) for clip in clips]
            media.write_picture(path, media.contact_sheet(rows, list(SHEET_PROMPTS), cell_px=96, gap_px=2))
        return {"unseen_loss": float(error)}


def _at(values: Tensor, frames: Sequence[int] | None) -> Tensor:
    """Those latent frames of (samples, frames, ...) that a step sees."""
    return values if frames is None else values[:, list(frames)]


def _token_ids(tokenizer: Any, shards: Shards, length: int) -> Tensor:
    return diffusion.tokenize(tokenizer, [caption(fact) for fact in shards.facts], length)


def caption(fact: dict[str, Any]) -> str:
    """The sentence of a sample without its trigger words."""
    return re.sub(r" img\d?\b", "", fact["prompt"])


def read_vae(folder: Path) -> AutoencoderKLCogVideoX:
    """A trained VAE, frozen, float32."""
    if not (folder / "config.json").exists():
        raise WeightsError(f"No VAE at {folder}. Train one: `likeness train recipes/tiny/vae.toml`.")
    vae = AutoencoderKLCogVideoX.from_pretrained(folder, torch_dtype=torch.float32, local_files_only=True)
    return vae.requires_grad_(False).eval()


def build(recipe: BaseRecipe, vae: AutoencoderKLCogVideoX, sentences: list[str]) -> Any:
    """The pipeline before training: new, or with the weights and the words of `recipe.start`."""
    torch.manual_seed(recipe.seed)
    if recipe.start:
        tokenizer = tiny.read_tokenizer(recipe.start / "tokenizer")
    else:
        tokenizer = tiny.build_tokenizer(set(sentences))
    text_encoder = tiny.build_text_encoder(recipe.text, tokenizer)
    transformer = tiny.build_transformer(recipe.transformer, recipe.text)
    if recipe.start:
        checkpoints.start_from(text_encoder, recipe.start / "text_encoder")
        fit = partial(tiny.refine_patches, patch_size=recipe.transformer.patch_size)
        checkpoints.start_from(transformer, recipe.start / "transformer", fit)
    shift = recipe.snr_shift_scale
    return tiny.assemble(vae, text_encoder, tokenizer, transformer, snr_shift_scale=shift)


def build_map_head(recipe: BaseRecipe, data: dict[str, Shards]) -> MapHead:
    """A new head of dense maps, which knows their mean and scale; `data` has maps."""
    layers = {stage.map_layer for stage in recipe.stages if stage.map_weight}
    if max(layers) >= recipe.transformer.num_layers:
        raise ConfigError(
            f"map_layer = {max(layers)}, but the transformer has blocks 0 to {recipe.transformer.num_layers - 1}. "
            "Name one of them; those before the middle do best."
        )
    head = MapHead(
        recipe.transformer.num_heads * recipe.transformer.head_width, recipe.transformer.patch_size
    )
    head.measure(data["pictures"]["maps"][:1000])
    return head


def run(recipe: BaseRecipe, folder: Path, cache: Path) -> Path:
    """Train a base and write the whole pipeline to `folder/model`."""
    journal = Journal(folder, "base")
    vae = read_vae(recipe.vae)
    pictures_unseen = recipe.unseen.model_copy(update={"kind": "pictures"})
    wanted = {"unseen": recipe.unseen, "unseen_pictures": pictures_unseen}
    wanted |= {"pictures": recipe.pictures, "clips": recipe.clips}
    data = {name: latents(settings, vae, cache, journal) for name, settings in wanted.items()}
    # All words that captions can have, so that another set of puppets does not give another tokenizer.
    pipe = build(recipe, vae, vocabulary())
    modules: dict[str, nn.Module] = {"denoiser": Denoiser(pipe.text_encoder, pipe.transformer)}
    head = build_map_head(recipe, data) if any(stage.map_weight for stage in recipe.stages) else None
    if head is not None:
        modules["map_head"] = head
    for number, settings in enumerate(recipe.stages):
        place, seed = folder / settings.name, recipe.seed + number
        if finished(place, modules):
            continue
        stage = BaseStage(pipe, settings, data, seed, head)
        train(stage, settings, place, seed=seed)
        stage.close()
        finish(place, modules)
    target = folder / "model"
    if parallel.rank() == 0:
        tiny.write(pipe, target)
        journal.say(f"pipeline written to {target}")
    return target
