"""Trains a method on a frozen base: an image stage, then a video stage. Which method, a `Lesson` says.

A sample is a puppet's picture or clip with its sentence, and reference pictures of the same puppet: the very scene
(self-reference, pictures only) or another look. L = L_noise + lambda (1 - cos(q_id, F_id(D(x0_hat)))) with L_noise
the squared error of v, on part of the samples over the face alone, and F_id the distilled recognizer; it is Magic
Mirror's loss (arXiv:2501.03931v1), and serves every method.
"""

import copy
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from diffusers.pipelines.cogvideo.pipeline_cogvideox import CogVideoXPipeline
from pydantic import Field
from torch import Tensor, nn

from likeness.backbones import codec
from likeness.config import Settings
from likeness.errors import ConfigError
from likeness.identity.recognizer import Recognizer, align
from likeness.methods.method import Method
from likeness.training import checkpoints, diffusion, parallel, unseen
from likeness.training.data import Order, jittered
from likeness.training.guided import MethodGuidance
from likeness.training.lessons import Lesson
from likeness.training.loop import finish, finished, train
from likeness.training.pairs import Sentences, read_base, read_data
from likeness.training.progress import Journal
from likeness.training.render import PuppetSettings
from likeness.training.rollout import roll_out


class MethodStageSettings(diffusion.DiffusionStageSettings):
    """One stage of the method."""

    identity_drop: float = Field(default=0.1, ge=0, le=1)
    """Share of samples without an identity."""
    both_drop: float = Field(default=0.05, ge=0, le=1)
    """Share of samples without either."""
    face_share: float = Field(default=0.5, ge=0, le=1)
    """Share of samples whose loss is taken over the face alone."""
    self_reference: float = Field(default=0.3, ge=0, le=1)
    """Share of pictures whose reference shows the same scene."""
    two_references_every: int = Field(default=4, ge=0)
    """Every so many steps one with two references a sample; 0 for never."""
    identity_weight: float = Field(default=0.1, ge=0)
    """The paper's lambda."""
    identity_samples: int = Field(default=4, ge=0)
    """At most so many samples of a process's share of a step are decoded for the identity loss."""
    attention_guidance: float = Field(default=0.0, ge=0)
    """Add this much of what perturbed-attention guidance says over the recipe's `unguided` base to what is learned."""
    perturbed_layers: tuple[int, ...] = ()
    """Blocks whose attention that guidance perturbs."""
    min_alpha_bar: float = 0.5
    """The identity loss is taken where more than this share of the variance is signal."""
    identity_views: int = Field(default=1, ge=1)
    """Crops of each decoded face that the identity loss is averaged over; those after the first are moved a little and
    every other one is mirrored, so that no pattern pays that hangs on where pixels lie."""
    rollout_samples: int = Field(default=0, ge=0)
    """Of at most so many samples of a process's share of a step the identity loss is also taken on latents that the
    method has drawn itself, with `guidance`."""
    rollout_steps: int = Field(default=4, ge=1)
    """Steps in which it draws them."""
    rollout_from: float = Field(default=0.03, gt=0, lt=1)
    """They begin with so little signal of a clip: enough to know where its face will be."""
    rollout_to: tuple[float, float] = (0.2, 0.9)
    """They end anywhere between these shares."""


class MethodRecipe(Settings):
    """A method over a trained base."""

    seed: int = 0
    base: Path
    """Folder of the pipeline."""
    unguided: Path | None = None
    """Folder of the pipeline as it was before it learned guidance, for stages with `attention_guidance`; `start` is a
    method that was trained over it."""
    recognizer: Path
    """Folder of the distilled recognizer."""
    start: Path | None = None
    """Folder of an adapter of this shape to go on from; from nothing if absent."""
    method: dict[str, Any] = Field(default_factory=dict)
    """Changes of the method's own defaults, say `has_norm = false` for Magic Mirror."""
    faces: PuppetSettings
    """References, several of each person; pictures of the same scenes are what the image stage learns."""
    clips: PuppetSettings
    """Of the same seed, so of the same people."""
    unseen: PuppetSettings
    """References of people that no step sees."""
    without: tuple[str, ...] = ()
    """Names of stages to leave out: Magic Mirror's ablation of image pre-training."""
    stages: tuple[MethodStageSettings, ...] = Field(min_length=1)


class MethodDenoiser(nn.Module):
    """From token ids, references and noisy latents to v. Only the method learns."""

    def __init__(self, pipe: CogVideoXPipeline, method: Method) -> None:
        super().__init__()
        self.method = method
        # Not registered: the transformer wears the method's layers, and no parameter may be cast under two names.
        self.base = (pipe.text_encoder, pipe.transformer)

    def forward(
        self,
        ids: Tensor,
        mask: Tensor,
        pixels: Tensor,
        traits: Tensor | None,
        active: Tensor,
        noisy: Tensor,
        steps: Tensor,
    ) -> Tensor:
        text_encoder, transformer = self.base
        with torch.no_grad():
            text = text_encoder(ids)[0].to(noisy.dtype)
        identity = self.method.encode_tensors(pixels, traits)
        text = self.method.fuse(text, mask, identity)
        with self.method.conditioned(identity, active=active):
            return diffusion.denoise(transformer, noisy, text, steps)


class MethodStage:
    """One stage of a `MethodRecipe`."""

    def __init__(
        self,
        pipe: CogVideoXPipeline,
        method: Method,
        lesson: Lesson,
        recognizer: Recognizer,
        settings: MethodStageSettings,
        data: dict[str, Any],
        seed: int,
    ) -> None:
        self.pipe, self.method, self.lesson = pipe, method, lesson
        self.recognizer, self.settings = recognizer, settings
        self.data, self.targets = data, data[settings.data]
        self.modules: dict[str, nn.Module] = {lesson.name: method}
        self.dtype = getattr(torch, settings.dtype)
        wide = tuple(method._keep_in_fp32_modules or ())
        self.cast = diffusion.CastParameters(MethodDenoiser(pipe, method), self.dtype, wide=wide)
        self.alpha_bars = pipe.scheduler.alphas_cumprod.float()
        looks = lesson.looks(data)
        self.looks = {person: torch.tensor(rows) for person, rows in looks.items()}
        self.rows = torch.tensor(
            [row for row, fact in enumerate(self.targets.facts) if fact["person"] in looks]
        )
        self.order = Order(len(self.rows), seed)
        self.sentences = Sentences(pipe, method, self.targets)
        self.unseen = data[f"unseen_{settings.data}"]
        self.unseen_sentences = Sentences(pipe, method, self.unseen)
        self.guidance: MethodGuidance | None = None
        self.set_base_dtype(self.dtype)

    def set_base_dtype(self, dtype: torch.dtype) -> None:
        """The frozen base, and nothing of the method."""
        own = {id(parameter) for parameter in self.method.parameters()}
        for parameter in self.pipe.transformer.parameters():
            if id(parameter) not in own:
                parameter.data = parameter.data.to(dtype)

    def loss(self, step: int) -> tuple[Tensor, dict[str, float]]:
        settings = self.settings
        rows = self.rows[self.order.rows(step, settings.batch)]
        every = settings.two_references_every
        faces = self.references(rows, 2 if every and step % every == every - 1 else 1)
        ids, mask, active = self.words(rows, faces.shape[1])
        clean = self.targets["latents"][rows].float()
        timesteps = diffusion.sample_timesteps(len(rows), settings.timesteps)
        alpha_bar = self.alpha_bars[timesteps]
        noisy, target = diffusion.add_noise(clean, torch.randn_like(clean), alpha_bar)
        pixels, traits = self.look(faces), self.lesson.traits(self.data, "faces", faces)
        inputs = (ids, mask, pixels.to(self.dtype), traits, active, noisy.to(self.dtype), timesteps)
        velocity = self.cast(*inputs).float()
        if self.guidance is not None:
            says_something = (ids != self.sentences.empty).any(dim=1).view(-1, 1, 1, 1, 1)
            target = target + settings.attention_guidance * says_something * self.guidance(*inputs)
        error = self.weigh(rows, (velocity - target).square())
        figures = {"noise": float(error.detach())}
        if settings.identity_weight and settings.identity_samples:
            chosen = (active & (alpha_bar > settings.min_alpha_bar)).nonzero()[: settings.identity_samples, 0]
            if len(chosen):
                seen = diffusion.clean_from(noisy[chosen], velocity[chosen], alpha_bar[chosen])
                whose = self.data["faces"]["embedding"][faces[chosen, 0]]
                distance = self.identity_distance(seen, rows[chosen], whose)
                figures["identity"] = float(distance.detach())
                error = error + settings.identity_weight * distance * len(chosen) / len(rows)
        chosen = active.nonzero()[: settings.rollout_samples, 0]
        if settings.identity_weight and len(chosen):
            traits = None if traits is None else traits[chosen]
            own = (ids[chosen], mask[chosen], pixels[chosen].to(self.dtype), traits)
            seen = self.rollout(clean[chosen], own)
            distance = self.identity_distance(
                seen, rows[chosen], self.data["faces"]["embedding"][faces[chosen, 0]]
            )
            figures["rollout"] = float(distance.detach())
            error = error + settings.identity_weight * distance * len(chosen) / len(rows)
        return error, figures

    def rollout(self, clean: Tensor, own: tuple[Tensor, Tensor, Tensor, Tensor | None]) -> Tensor:
        """x0 as the method sees it in latents that it has drawn itself; only the last step has a gradient.

        Shapes:
            clean: (batch, frames, channels, height, width), where the noise is laid over
            own: token ids, the mask m, pixels and traits of the batch
        """
        settings, count = self.settings, len(clean)
        ids, mask, pixels, traits = own
        someone, nobody = torch.ones(count, dtype=torch.bool), torch.zeros(count, dtype=torch.bool)
        empty = self.sentences.empty.expand_as(ids)

        def denoise(noisy: Tensor, timesteps: Tensor) -> Tensor:
            noisy = noisy.to(self.dtype)
            with torch.no_grad():
                plain = self.cast(empty, mask & False, pixels, traits, nobody, noisy, timesteps).float()
            meant = self.cast(ids, mask, pixels, traits, someone, noisy, timesteps).float()
            return plain + settings.guidance * (meant - plain)

        low, high = settings.rollout_to
        start = self.timestep_of(torch.tensor([settings.rollout_from]))
        ends = self.timestep_of(low + (high - low) * torch.rand(count)).clamp(max=int(start))
        noisy, _ = diffusion.add_noise(clean, torch.randn_like(clean), self.alpha_bars[start])
        noisy = roll_out(denoise, noisy, int(start), ends, self.alpha_bars, steps=settings.rollout_steps)
        return diffusion.clean_from(noisy, denoise(noisy, ends), self.alpha_bars[ends])

    def timestep_of(self, signal: Tensor) -> Tensor:
        """The last timestep with at least this share of signal in its variance."""
        return (self.alpha_bars >= signal[:, None]).sum(dim=1).sub(1).clamp(min=0)

    def references(self, rows: Tensor, count: int) -> Tensor:
        """Rows of faces, (batch, count): the first may show the same scene, the others show other looks."""
        chosen = torch.empty(len(rows), count, dtype=torch.long)
        for place, row in enumerate(rows.tolist()):
            looks = self.looks[self.targets.facts[row]["person"]]
            is_picture = self.settings.data == "pictures"
            others = looks[looks != row] if is_picture and len(looks) > 1 else looks
            chosen[place] = others[torch.randint(len(others), (count,))]
            if is_picture and float(torch.rand(())) < self.settings.self_reference:
                chosen[place, 0] = row
            if is_picture and len(looks) == 1:
                chosen[place] = row  # There is no other view of this person.
        return chosen

    def look(self, faces: Tensor) -> Tensor:
        """Pixels (batch, references, 3, height, width), framed a little differently each time."""
        return jittered(self.data["faces"]["crop"], faces)

    def words(self, rows: Tensor, references: int) -> tuple[Tensor, Tensor, Tensor]:
        """Token ids, the mask m and who has an identity, after dropping."""
        settings, sentences = self.settings, self.sentences
        draw = torch.rand(len(rows))
        without_both = draw < settings.both_drop
        without_text = without_both | (draw >= 1 - settings.text_drop)
        before = settings.both_drop + settings.identity_drop
        without_identity = draw < before
        ids, mask = sentences.ids[references][rows], sentences.masks[references][rows]
        ids = torch.where(without_identity[:, None], sentences.plain[rows], ids)
        ids = torch.where(without_text[:, None], sentences.empty, ids)
        mask = mask & ~(without_text | without_identity)[:, None]
        return ids, mask, ~without_identity

    def weigh(self, rows: Tensor, error: Tensor) -> Tensor:
        """The mean error, on part of the samples over the face alone."""
        face = self.targets["mask"][rows].float().unsqueeze(2)
        everywhere = (torch.rand(len(rows)) >= self.settings.face_share) | (face.flatten(1).sum(dim=1) < 1)
        weight = torch.where(everywhere.view(-1, 1, 1, 1, 1), torch.ones_like(face), face)
        by_sample = (error * weight).flatten(1).sum(dim=1) / (weight.flatten(1).sum(dim=1) * error.shape[2])
        return by_sample.mean()

    def identity_distance(self, seen: Tensor, rows: Tensor, embedding: Tensor) -> Tensor:
        """1 - cos of embeddings, each number standardized: raw ones of dlib share a mean that hides people."""
        scaled = seen[:, :1].transpose(1, 2) / self.pipe.vae.config.scaling_factor
        frames = codec.decode(self.pipe.vae, scaled.to(self.dtype)).squeeze(2).float()
        points = self.data["landmarks"][self.settings.data][rows]
        told, errors = self.recognizer.standardize(embedding), []
        for view in range(self.settings.identity_views):
            crops = align(frames, nudged(points) if view else points, self.recognizer.size_px)
            found = self.recognizer(crops.flip(-1) if view % 2 else crops)
            errors.append(1 - F.cosine_similarity(found, told).mean())
        return torch.stack(errors).mean()

    def sheet(self, path: Path) -> dict[str, float]:
        """Unseen people: the reference, then frames made from it; the error on their faces."""
        figures = {"unseen_face_loss": unseen.face_loss(self)}
        self.set_base_dtype(torch.float32)
        unseen.draw(self, path)
        self.set_base_dtype(self.dtype)
        return figures


def nudged(points: Tensor, shift: float = 0.05, scale: float = 0.05) -> Tensor:
    """Landmarks (batch, points, 2) of faces moved and grown by shares of their width, at random."""
    center = points.mean(dim=1, keepdim=True)
    reach = (points.amax(dim=1, keepdim=True) - points.amin(dim=1, keepdim=True)).amax(dim=2, keepdim=True)
    grown = 1 + scale * torch.randn(len(points), 1, 1)
    return center + (points - center) * grown + shift * reach * torch.randn(len(points), 1, 2)


def train_method(
    recipe: MethodRecipe,
    folder: Path,
    cache: Path,
    lesson: Lesson,
    *,
    make_stage: Callable[..., MethodStage] = MethodStage,
) -> Path:
    """Train a method and write its adapter to `folder/model`."""
    unknown = set(recipe.without) - {stage.name for stage in recipe.stages}
    if unknown:
        raise ConfigError(
            f"`without` names {', '.join(sorted(unknown))}; stages are {[s.name for s in recipe.stages]}."
        )
    guided = [stage.name for stage in recipe.stages if stage.attention_guidance]
    if guided and recipe.unguided is None:
        raise ConfigError(
            f"Stage `{guided[0]}` has attention_guidance, and the recipe no `unguided`. "
            "Name the base before it learned guidance."
        )
    journal = Journal(folder, lesson.name)
    pipe, recognizer = read_base(recipe.base), Recognizer.load(recipe.recognizer).requires_grad_(False).eval()
    torch.manual_seed(recipe.seed)
    method = lesson.build(pipe.transformer.config, recipe.method)
    sets = {"faces": recipe.faces, "unseen": recipe.unseen, "clips": recipe.clips}
    data = read_data(sets, pipe, cache, journal)
    if recipe.start:
        checkpoints.start_from(method, recipe.start)
    lesson.prepare(method, data, is_new=recipe.start is None)
    lesson.begin(method, data, folder)
    free = copy.deepcopy(method)
    method.attach(pipe)
    method.trainable_parameters()
    modules: dict[str, nn.Module] = {lesson.name: method}
    for number, settings in enumerate(recipe.stages):
        place = folder / settings.name
        if settings.name in recipe.without or finished(place, modules):
            continue
        stage = make_stage(pipe, method, lesson, recognizer, settings, data, recipe.seed + number)
        if settings.attention_guidance:
            assert recipe.unguided is not None
            stage.guidance = MethodGuidance(
                read_base(recipe.unguided),
                free,
                MethodDenoiser,
                layers=settings.perturbed_layers,
                dtype=stage.dtype,
            )
        train(stage, settings, place, seed=recipe.seed + number)
        finish(place, modules)
    target = folder / "model"
    if parallel.rank() == 0:
        copy.deepcopy(method).half().save_pretrained(target)
        journal.say(f"adapter written to {target}")
    return target
