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
from torch import Tensor, nn

from likeness.backbones import codec
from likeness.errors import ConfigError
from likeness.identity.recognizer import Recognizer, align, contrast
from likeness.identity.tokens import PersonTokens
from likeness.methods.method import Method
from likeness.runtime import choose_training_dtype
from likeness.training import checkpoints, diffusion, parallel, unseen
from likeness.training.data import Order, jittered, nudged
from likeness.training.denoiser import MethodDenoiser, MethodReader
from likeness.training.guided import MethodGuidance
from likeness.training.lessons import Lesson
from likeness.training.loop import finish, finished, train
from likeness.training.mentor import Mentor
from likeness.training.method_settings import MethodRecipe, MethodStageSettings
from likeness.training.pairs import Sentences, read_base, read_data
from likeness.training.progress import Journal
from likeness.training.rollout import Denoise, see_own


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
        self.dtype = choose_training_dtype(settings.dtype)
        wide = tuple(method._keep_in_fp32_modules or ())
        self.hear(MethodDenoiser(pipe, method), wide)
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
        self.mentor: Mentor | None = None
        self.set_base_dtype(self.dtype)

    def hear(self, denoiser: MethodDenoiser, wide: tuple[str, ...]) -> None:
        """Denoise with `denoiser`, and read with it, in the stage's dtype."""
        self.cast = diffusion.CastParameters(denoiser, self.dtype, wide=wide)
        self.read = diffusion.CastParameters(MethodReader(denoiser), self.dtype, wide=wide)

    def set_base_dtype(self, dtype: torch.dtype) -> None:
        """The frozen base, and nothing of the method."""
        diffusion.cast_base(self.pipe.transformer, self.method, dtype)

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
        pixels = pixels.to(self.dtype)
        inputs = (ids, mask, pixels, traits, active, noisy.to(self.dtype), timesteps)
        person = self.read(pixels, traits, active)
        velocity = self.cast(*inputs, person=person).float()
        if self.guidance is not None:
            says_something = (ids != self.sentences.empty).any(dim=1).view(-1, 1, 1, 1, 1)
            target = target + settings.attention_guidance * says_something * self.guidance(*inputs)
        if self.mentor is not None:
            is_silent = (ids == self.sentences.empty).all(dim=1)
            told = {"is_silent": is_silent, "active": active, "noisy": noisy, "timesteps": timesteps}
            target = self.mentor(rows, faces, pixels, **told)
        error = self.weigh(rows, (velocity - target).square())
        figures = {"noise": float(error.detach())}
        points = self.data["landmarks"][settings.data][rows]
        embedding = self.data["faces"]["embedding"][faces[:, 0]]
        if settings.identity_weight and settings.identity_samples:
            chosen = (active & (alpha_bar > settings.min_alpha_bar)).nonzero()[: settings.identity_samples, 0]
            if len(chosen):
                seen = diffusion.clean_from(noisy[chosen], velocity[chosen], alpha_bar[chosen])
                loss = self.person_loss("identity", seen, points[chosen], embedding[chosen], figures)
                error = error + settings.identity_weight * loss * len(chosen) / len(rows)
        chosen = active.nonzero()[: settings.rollout_samples, 0]
        if settings.identity_weight and len(chosen):
            denoise = self.guided(ids[chosen], mask[chosen], person.rows(chosen))
            seen = see_own(denoise, clean[chosen], self.alpha_bars, settings)
            loss = self.person_loss("rollout", seen, points[chosen], embedding[chosen], figures)
            error = error + settings.identity_weight * loss * len(chosen) / len(rows)
        return error, figures

    def guided(self, ids: Tensor, mask: Tensor, person: PersonTokens) -> Denoise:
        """What a sampler hears: v guided by the sentence, the person in its branch alone. Only that branch learns.

        Shapes:
            ids, mask: (batch, tokens)
            person: one in each row
        """
        someone = torch.ones(len(ids), dtype=torch.bool)
        empty, nowhere = self.sentences.empty.expand_as(ids), torch.zeros_like(mask)

        def denoise(noisy: Tensor, timesteps: Tensor) -> Tensor:
            noisy = noisy.to(self.dtype)
            with torch.no_grad():
                plain = self.cast(empty, nowhere, None, None, ~someone, noisy, timesteps).float()
            meant = self.cast(ids, mask, None, None, someone, noisy, timesteps, person=person).float()
            return plain + self.settings.guidance * (meant - plain)

        return denoise

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

    def person_loss(
        self, name: str, seen: Tensor, points: Tensor, embedding: Tensor, figures: dict[str, float]
    ) -> Tensor:
        """The distance of `identity_distance` and, where it is asked for, the confusion; both into `figures`."""
        distance, confusion = self.identity_distance(seen, points, embedding)
        figures[name] = float(distance.detach())
        if not self.settings.identity_contrast:
            return distance
        figures[f"{name}_contrast"] = float(confusion.detach())
        return distance + self.settings.identity_contrast * confusion

    def identity_distance(self, seen: Tensor, points: Tensor, embedding: Tensor) -> tuple[Tensor, Tensor]:
        """1 - cos of embeddings, each number standardized: raw ones of dlib share a mean that hides people.

        Shapes:
            seen: (batch, frames, channels, height, width), of which the first frame is looked at
            points: (batch, landmarks, 2) px, or (batch, people, landmarks, 2)
            embedding: (batch, embedding_width), or (batch, people, embedding_width)
            returns: (), the mean; and (), how badly people are told from each other, 0 without `identity_contrast`
        """
        scaled = seen[:, :1].transpose(1, 2) / self.pipe.vae.config.scaling_factor
        frames = codec.decode(self.pipe.vae, scaled.to(self.dtype)).squeeze(2).float()
        points, embedding = points.flatten(0, -3), embedding.flatten(0, -2)
        frames = frames.repeat_interleave(len(points) // len(frames), dim=0)
        told, errors, confusions = self.recognizer.standardize(embedding), [], [torch.zeros(())]
        for view in range(self.settings.identity_views):
            crops = align(frames, nudged(points) if view else points, self.recognizer.size_px)
            found = self.recognizer(crops.flip(-1) if view % 2 else crops)
            errors.append(1 - F.cosine_similarity(found, told).mean())
            if self.settings.identity_contrast:
                confusions.append(contrast(found, told))
        return torch.stack(errors).mean(), torch.stack(confusions).sum() / self.settings.identity_views

    def sheet(self, path: Path) -> dict[str, float]:
        """Unseen people: the reference, then frames made from it; the error on their faces."""
        figures = {"unseen_face_loss": unseen.face_loss(self)}
        self.set_base_dtype(torch.float32)
        unseen.draw(self, path)
        self.set_base_dtype(self.dtype)
        return figures


def read_guidance(recipe: MethodRecipe, lesson: Lesson, settings: MethodStageSettings) -> MethodGuidance:
    """What guides a stage: the recipe's `teacher` over its `unguided`."""
    assert recipe.unguided is not None
    assert recipe.teacher is not None
    pipe = read_base(recipe.unguided)
    teacher = lesson.build(pipe.transformer.config, recipe.method)
    checkpoints.start_from(teacher, recipe.teacher)
    return MethodGuidance(
        pipe,
        teacher,
        layers=settings.perturbed_layers,
        dtype=choose_training_dtype(settings.dtype),
    )


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
    if guided and (recipe.unguided is None or recipe.teacher is None):
        raise ConfigError(
            f"Stage `{guided[0]}` has attention_guidance. Name the base before it learned guidance as the recipe's "
            "`unguided`, and an adapter that was trained over that base as its `teacher`."
        )
    taught = [stage.name for stage in recipe.stages if stage.mentor_scale]
    if taught and recipe.mentor is None:
        raise ConfigError(
            f"Stage `{taught[0]}` has a mentor_scale. Name a Magic Mirror adapter over `base` as the recipe's `mentor`."
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
    method.attach(pipe)
    method.trainable_parameters()
    modules: dict[str, nn.Module] = {lesson.name: method}
    for number, settings in enumerate(recipe.stages):
        place = folder / settings.name
        if settings.name in recipe.without or finished(place, modules):
            continue
        stage = make_stage(pipe, method, lesson, recognizer, settings, data, recipe.seed + number)
        if settings.attention_guidance:
            stage.guidance = read_guidance(recipe, lesson, settings)
        if settings.mentor_scale:
            assert recipe.mentor is not None
            scale, dtype = settings.mentor_scale, stage.dtype
            stage.mentor = Mentor(recipe.base, recipe.mentor, data, settings.data, scale=scale, dtype=dtype)
        train(stage, settings, place, seed=recipe.seed + number)
        finish(place, modules)
    target = folder / "model"
    if parallel.rank() == 0:
        copy.deepcopy(method).half().save_pretrained(target)
        journal.say(f"adapter written to {target}")
    return target
