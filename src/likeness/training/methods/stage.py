"""One stage of a method's training: pairs, dropping, losses, sheets.

A sample is a puppet's image or clip with its sentence, and reference images of the same puppet: the very scene
(self-reference, images only) or another look. L = L_noise + lambda (1 - cos(q_id, F_id(D(x0_hat)))) with L_noise
the squared error of v, on part of the samples over the face alone, and F_id the distilled recognizer; it is Magic
Mirror's loss (arXiv:2501.03931v1), and serves every method.
"""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from diffusers.pipelines.cogvideo.pipeline_cogvideox import CogVideoXPipeline
from torch import Tensor, nn

from likeness.backbones import codec
from likeness.identity.encoders.recognizer import Recognizer, align, contrastive_loss
from likeness.identity.tokens import PersonTokens
from likeness.methods.method import Method
from likeness.runtime import choose_training_dtype
from likeness.training.data.datasets import Order, jitter_crops, jitter_landmarks
from likeness.training.data.pairs import TokenizedPrompts
from likeness.training.methods import validation
from likeness.training.methods.denoiser import MethodDenoiser, MethodReader
from likeness.training.methods.settings import MethodStageSettings
from likeness.training.methods.spec import MethodTrainingSpec
from likeness.training.objectives import diffusion
from likeness.training.objectives.distillation import DistillationTeacher
from likeness.training.objectives.on_policy import sample_on_policy
from likeness.training.objectives.perturbed_guidance import MethodGuidance


class MethodStage:
    """One stage of a `MethodRecipe`."""

    def __init__(
        self,
        pipe: CogVideoXPipeline,
        method: Method,
        method_spec: MethodTrainingSpec,
        recognizer: Recognizer,
        settings: MethodStageSettings,
        data: dict[str, Any],
        seed: int,
    ) -> None:
        self.pipe, self.method, self.method_spec = pipe, method, method_spec
        self.recognizer, self.settings = recognizer, settings
        self.data, self.targets = data, data[settings.data]
        self.modules: dict[str, nn.Module] = {method_spec.name: method}
        self.dtype = choose_training_dtype(settings.dtype)
        wide = tuple(method._keep_in_fp32_modules or ())
        self.set_denoiser(MethodDenoiser(pipe, method), wide)
        self.alpha_bars = pipe.scheduler.alphas_cumprod.float()
        looks = method_spec.reference_views(data)
        self.reference_views = {person: torch.tensor(rows) for person, rows in looks.items()}
        self.rows = torch.tensor([row for row, fact in enumerate(self.targets.facts) if fact["person"] in looks])
        self.order = Order(len(self.rows), seed)
        self.sentences = TokenizedPrompts(pipe, method, self.targets)
        self.validation = data[f"validation_{settings.data}"]
        self.validation_sentences = TokenizedPrompts(pipe, method, self.validation)
        self.guidance: MethodGuidance | None = None
        self.teacher: DistillationTeacher | None = None
        self.set_base_dtype(self.dtype)

    def set_denoiser(self, denoiser: MethodDenoiser, wide: tuple[str, ...]) -> None:
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
        ids, mask, active = self.sample_conditions(rows, faces.shape[1])
        clean = self.targets["latents"][rows].float()
        timesteps = diffusion.sample_timesteps(len(rows), settings, self.alpha_bars)
        alpha_bar = self.alpha_bars[timesteps]
        noisy, target = diffusion.add_noise(clean, torch.randn_like(clean), alpha_bar)
        pixels, extra_conditioning = (
            self.reference_pixels(faces),
            self.method_spec.extra_conditioning(self.data, "faces", faces),
        )
        pixels = pixels.to(self.dtype)
        inputs = (ids, mask, pixels, extra_conditioning, active, noisy.to(self.dtype), timesteps)
        person = self.read(pixels, extra_conditioning, active)
        velocity = self.cast(*inputs, person=person).float()
        if self.guidance is not None:
            is_conditional = ~self.is_unconditional(ids).view(-1, 1, 1, 1, 1)
            target = target + settings.attention_guidance * is_conditional * self.guidance(*inputs)
        if self.teacher is not None:
            told = {
                "is_unconditional": self.is_unconditional(ids),
                "active": active,
                "noisy": noisy,
                "timesteps": timesteps,
            }
            target = self.teacher(rows, faces, pixels, **told)
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
        if len(chosen):
            parts = (rows[chosen], faces[chosen], ids[chosen], mask[chosen], pixels[chosen])
            loss = self.on_policy_loss(*parts, person.rows(chosen), points[chosen], figures)
            error = error + loss * len(chosen) / len(rows)
        return error, figures

    def on_policy_loss(
        self,
        rows: Tensor,
        faces: Tensor,
        ids: Tensor,
        mask: Tensor,
        pixels: Tensor,
        person: PersonTokens,
        points: Tensor,
        figures: dict[str, float],
    ) -> Tensor:
        """The loss on latents that the method draws itself: of identity, and how far a teacher would go elsewhere.

        Shapes:
            rows: (batch,), of what is learned from
            faces, pixels: as `DistillationTeacher` takes them
            ids, mask: (batch, tokens)
            person: one in each row
            points: (batch, landmarks, 2) px
        """
        settings = self.settings
        branches = self.cfg_branches(ids, mask, person)
        clean = self.targets["latents"][rows].float()
        noisy, ends = sample_on_policy(lambda *told: self.apply_cfg(*branches(*told)), clean, self.alpha_bars, settings)
        plain, meant = branches(noisy, ends)
        loss = torch.zeros(())
        if settings.identity_weight:
            seen = diffusion.clean_from(noisy, self.apply_cfg(plain, meant), self.alpha_bars[ends])
            embedding = self.data["faces"]["embedding"][faces[:, 0]]
            loss = settings.identity_weight * self.person_loss("rollout", seen, points, embedding, figures)
        if settings.on_policy_distillation_weight:
            assert self.teacher is not None
            someone, is_unconditional = torch.ones(len(rows), dtype=torch.bool), self.is_unconditional(ids)
            told = {"is_unconditional": is_unconditional, "active": someone, "noisy": noisy, "timesteps": ends}
            apart = self.weigh(rows, (meant - self.teacher(rows, faces, pixels, **told)).square())
            figures["own"] = float(apart.detach())
            loss = loss + settings.on_policy_distillation_weight * apart
        return loss

    def cfg_branches(
        self, ids: Tensor, mask: Tensor, person: PersonTokens
    ) -> Callable[[Tensor, Tensor], tuple[Tensor, Tensor]]:
        """From noisy latents and timesteps to the two v that a sampler blends.

        The first is without the sentence; the second, with it and the person, alone learns.

        Shapes:
            ids, mask: (batch, tokens)
            person: one in each row
        """
        someone = torch.ones(len(ids), dtype=torch.bool)
        empty, nowhere = self.sentences.empty.expand_as(ids), torch.zeros_like(mask)

        def denoise(noisy: Tensor, timesteps: Tensor) -> tuple[Tensor, Tensor]:
            noisy = noisy.to(self.dtype)
            with torch.no_grad():
                plain = self.cast(empty, nowhere, None, None, ~someone, noisy, timesteps).float()
            return plain, self.cast(ids, mask, None, None, someone, noisy, timesteps, person=person).float()

        return denoise

    def apply_cfg(self, plain: Tensor, meant: Tensor) -> Tensor:
        """The v that a sampler follows."""
        return plain + self.settings.guidance * (meant - plain)

    def is_unconditional(self, ids: Tensor) -> Tensor:
        """Whose sentence (batch, tokens) was dropped: (batch,), boolean."""
        return (ids == self.sentences.empty).all(dim=1)

    def references(self, rows: Tensor, count: int) -> Tensor:
        """Rows of faces, (batch, count): the first may show the same scene, the others show other looks."""
        chosen = torch.empty(len(rows), count, dtype=torch.long)
        for place, row in enumerate(rows.tolist()):
            looks = self.reference_views[self.targets.facts[row]["person"]]
            is_image = self.settings.data == "images"
            others = looks[looks != row] if is_image and len(looks) > 1 else looks
            chosen[place] = others[torch.randint(len(others), (count,))]
            if is_image and float(torch.rand(())) < self.settings.self_reference:
                chosen[place, 0] = row
            if is_image and len(looks) == 1:
                chosen[place] = row  # There is no other view of this person.
        return chosen

    def reference_pixels(self, faces: Tensor) -> Tensor:
        """Pixels (batch, references, 3, height, width), framed a little differently each time."""
        return jitter_crops(self.data["faces"]["crop"], faces)

    def sample_conditions(self, rows: Tensor, references: int) -> tuple[Tensor, Tensor, Tensor]:
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
            crops = align(frames, jitter_landmarks(points) if view else points, self.recognizer.size_px)
            found = self.recognizer(crops.flip(-1) if view % 2 else crops)
            errors.append(1 - F.cosine_similarity(found, told).mean())
            if self.settings.identity_contrast:
                confusions.append(contrastive_loss(found, told))
        return torch.stack(errors).mean(), torch.stack(confusions).sum() / self.settings.identity_views

    def sheet(self, path: Path) -> dict[str, float]:
        """Unseen people: the reference, then frames made from it; the error on their faces."""
        figures = {"validation_face_loss": validation.face_loss(self)}
        self.set_base_dtype(torch.float32)
        validation.draw(self, path)
        self.set_base_dtype(self.dtype)
        return figures
