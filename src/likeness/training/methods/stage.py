"""One stage of a method's training: sampling, targets and losses.

A sample is an image or clip of a puppet with its prompt, and reference images of the same puppet: the same scene
(self-reference, images only) or another one. L = L_noise + lambda (1 - cos(q_id, F_id(D(x0_hat)))), where L_noise is
the squared error of v, for part of the samples over the face alone, and F_id the distilled recognizer. It is Magic
Mirror's loss (arXiv:2501.03931v1), used for every method.
"""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import torch
from diffusers.pipelines.cogvideo.pipeline_cogvideox import CogVideoXPipeline
from torch import Tensor, nn

from likeness.identity.encoders.recognizer import Recognizer
from likeness.methods.method import Method
from likeness.runtime import choose_training_dtype
from likeness.training.data.datasets import EpochSampler, jitter_crops
from likeness.training.data.pairs import TrainingData
from likeness.training.data.prompts import TokenizedPrompts
from likeness.training.methods import validation
from likeness.training.methods.settings import MethodStageSettings
from likeness.training.methods.spec import MethodTrainingSpec
from likeness.training.objectives import diffusion
from likeness.training.objectives.denoiser import DenoiserInputs, MethodDenoiser, ReferenceEncoder
from likeness.training.objectives.distillation import DistillationTeacher
from likeness.training.objectives.identity_loss import IdentityLoss
from likeness.training.objectives.on_policy import sample_on_policy
from likeness.training.objectives.perturbed_guidance import MethodGuidance


@dataclass(frozen=True, kw_only=True, slots=True)
class MethodBatch:
    """One batch of `MethodStage`."""

    rows: Tensor
    """(batch,), rows of the targets."""
    references: Tensor
    """(batch, references), rows of the references."""
    inputs: DenoiserInputs
    """What the denoiser is given, in the stage's dtype."""
    noisy: Tensor
    """(batch, frames, channels, height, width), in float32."""
    velocity: Tensor
    """The v of the data, as `noisy`."""
    alpha_bar: Tensor
    """(batch,), the share of signal."""


class MethodStage:
    """One stage of a `MethodRecipe`."""

    def __init__(
        self,
        pipe: CogVideoXPipeline,
        method: Method,
        method_spec: MethodTrainingSpec,
        recognizer: Recognizer,
        settings: MethodStageSettings,
        data: TrainingData,
        seed: int,
    ) -> None:
        self.pipe, self.method, self.method_spec = pipe, method, method_spec
        self.settings, self.data = settings, data
        self.targets = data.targets[settings.data]
        self.modules: dict[str, nn.Module] = {method_spec.name: method}
        self.dtype = choose_training_dtype(settings.dtype)
        self.set_denoiser(MethodDenoiser(pipe, method))
        self.identity_loss = IdentityLoss(
            pipe.vae,
            recognizer,
            self.dtype,
            num_views=settings.identity_views,
            contrast_weight=settings.identity_contrast,
        )
        self.alpha_bars = pipe.scheduler.alphas_cumprod.float()
        views = method_spec.reference_views(data)
        self.reference_views = {person: torch.tensor(rows) for person, rows in views.items()}
        self.rows = torch.tensor([row for row, fact in enumerate(self.targets.facts) if fact["person"] in views])
        self.sampler = EpochSampler(len(self.rows), seed)
        self.prompts = TokenizedPrompts(pipe, method, self.targets)
        self.validation = data.validation_targets[settings.data]
        self.validation_prompts = TokenizedPrompts(pipe, method, self.validation)
        self.guidance: MethodGuidance | None = None
        self.teacher: DistillationTeacher | None = None
        self.set_base_dtype(self.dtype)

    def set_denoiser(self, denoiser: MethodDenoiser) -> None:
        """Use `denoiser`, and its encoder of references, in the stage's dtype."""
        keep_float32 = tuple(self.method._keep_in_fp32_modules or ())
        self.denoiser = diffusion.CastParameters(denoiser, self.dtype, keep_float32=keep_float32)
        self.encode = diffusion.CastParameters(ReferenceEncoder(denoiser), self.dtype, keep_float32=keep_float32)

    def set_base_dtype(self, dtype: torch.dtype) -> None:
        """Cast the frozen base, not the method."""
        diffusion.cast_base(self.pipe.transformer, self.method, dtype)

    def loss(self, step: int) -> tuple[Tensor, dict[str, float]]:
        batch = self.sample_batch(step)
        # References are encoded once; rollouts use the same identity tokens.
        inputs = batch.inputs
        identity = self.encode(inputs.pixels, inputs.extra_conditioning, inputs.active)
        inputs = inputs.replace(identity=identity)
        velocity = self.denoiser(inputs).float()
        target = self.target_velocity(batch)
        loss = masked_mean(self.targets["mask"][batch.rows], (velocity - target).square(), self.settings.face_share)
        metrics = {"denoising": float(loss.detach())}
        if self.settings.identity_weight and self.settings.identity_samples:
            loss = self.add_identity_loss(loss, batch, velocity, metrics)
        chosen = inputs.active.nonzero()[: self.settings.rollout_samples, 0]
        if len(chosen):
            on_policy = self.on_policy_loss(batch, inputs, chosen, metrics)
            loss = loss + on_policy * len(chosen) / len(batch.rows)
        return loss, metrics

    def sample_batch(self, step: int) -> MethodBatch:
        """Targets with noise, and their references and prompts after dropping."""
        settings = self.settings
        rows = self.rows[self.sampler.rows(step, settings.batch)]
        every = settings.two_references_every
        references = self.sample_references(rows, 2 if every and step % every == every - 1 else 1)
        token_ids, class_mask, active = self.sample_conditions(rows, references.shape[1])
        clean = self.targets["latents"][rows].float()
        timesteps = diffusion.sample_timesteps(len(rows), settings, self.alpha_bars)
        alpha_bar = self.alpha_bars[timesteps]
        noisy, velocity = diffusion.add_noise(clean, torch.randn_like(clean), alpha_bar)
        inputs = DenoiserInputs(
            token_ids=token_ids,
            class_mask=class_mask,
            pixels=self.reference_pixels(references).to(self.dtype),
            extra_conditioning=self.method_spec.extra_conditioning(self.data, "train", references),
            active=active,
            noisy=noisy.to(self.dtype),
            timesteps=timesteps,
        )
        return MethodBatch(
            rows=rows, references=references, inputs=inputs, noisy=noisy, velocity=velocity, alpha_bar=alpha_bar
        )

    def target_velocity(self, batch: MethodBatch) -> Tensor:
        """The v to learn: the data's, the data's with guidance, or the teacher's; as `batch.noisy`."""
        inputs = batch.inputs
        target = batch.velocity
        if self.guidance is not None:
            is_conditional = ~self.is_unconditional(inputs.token_ids).view(-1, 1, 1, 1, 1)
            target = target + self.settings.attention_guidance * is_conditional * self.guidance(inputs)
        if self.teacher is not None:
            assert inputs.pixels is not None
            target = self.teacher(
                batch.rows,
                batch.references,
                inputs.pixels,
                is_unconditional=self.is_unconditional(inputs.token_ids),
                active=inputs.active,
                noisy=batch.noisy,
                timesteps=inputs.timesteps,
            )
        return target

    def add_identity_loss(
        self, loss: Tensor, batch: MethodBatch, velocity: Tensor, metrics: dict[str, float]
    ) -> Tensor:
        """Add the identity loss of x0 predicted from the data's noisy latents, of samples with enough signal."""
        settings = self.settings
        is_eligible = batch.inputs.active & (batch.alpha_bar > settings.min_alpha_bar)
        chosen = is_eligible.nonzero()[: settings.identity_samples, 0]
        if not len(chosen):
            return loss
        clean = diffusion.predict_clean(batch.noisy[chosen], velocity[chosen], batch.alpha_bar[chosen])
        landmarks = self.targets["landmarks"][batch.rows[chosen]]
        embedding = self.data.references["train"]["embedding"][batch.references[chosen, 0]]
        identity = self.identity_loss("identity", clean, landmarks, embedding, metrics)
        return loss + settings.identity_weight * identity * len(chosen) / len(batch.rows)

    def on_policy_loss(
        self, batch: MethodBatch, inputs: DenoiserInputs, chosen: Tensor, metrics: dict[str, float]
    ) -> Tensor:
        """The losses on latents from a rollout: the identity loss, and the error to the teacher.

        Args:
            batch: All samples.
            inputs: Those of `batch` with encoded references.
            chosen: (samples,), the samples that are rolled out; all of them have an identity.
            metrics: Gets the parts of the loss.
        """
        settings, rows, references = self.settings, batch.rows[chosen], batch.references[chosen]
        token_ids, class_mask = inputs.token_ids[chosen], inputs.class_mask[chosen]
        assert inputs.identity is not None
        branches = self.cfg_branches(
            inputs.replace(
                token_ids=token_ids,
                class_mask=class_mask,
                pixels=None,
                extra_conditioning=None,
                active=torch.ones(len(chosen), dtype=torch.bool),
                identity=inputs.identity.rows(chosen),
            )
        )
        clean = self.targets["latents"][rows].float()
        noisy, timesteps = sample_on_policy(
            lambda latents, steps: self.apply_cfg(*branches(latents, steps)), clean, self.alpha_bars, settings
        )
        unconditional, conditional = branches(noisy, timesteps)
        loss = torch.zeros(())
        if settings.identity_weight:
            velocity = self.apply_cfg(unconditional, conditional)
            predicted = diffusion.predict_clean(noisy, velocity, self.alpha_bars[timesteps])
            landmarks = self.targets["landmarks"][rows]
            embedding = self.data.references["train"]["embedding"][references[:, 0]]
            identity = self.identity_loss("on_policy_identity", predicted, landmarks, embedding, metrics)
            loss = settings.identity_weight * identity
        if settings.on_policy_distillation_weight:
            assert self.teacher is not None
            assert inputs.pixels is not None
            target = self.teacher(
                rows,
                references,
                inputs.pixels[chosen],
                is_unconditional=self.is_unconditional(token_ids),
                active=torch.ones(len(rows), dtype=torch.bool),
                noisy=noisy,
                timesteps=timesteps,
            )
            mask = self.targets["mask"][rows]
            distillation = masked_mean(mask, (conditional - target).square(), settings.face_share)
            metrics["on_policy_distillation"] = float(distillation.detach())
            loss = loss + settings.on_policy_distillation_weight * distillation
        return loss

    def cfg_branches(self, inputs: DenoiserInputs) -> Callable[[Tensor, Tensor], tuple[Tensor, Tensor]]:
        """A function from noisy latents and timesteps to the unconditional and the conditional v.

        Only the conditional v has gradients. `inputs` are those of the conditional branch.
        """
        unconditional = inputs.replace(
            token_ids=self.prompts.empty.expand_as(inputs.token_ids),
            class_mask=torch.zeros_like(inputs.class_mask),
            active=~inputs.active,
            identity=None,
        )

        def denoise(noisy: Tensor, timesteps: Tensor) -> tuple[Tensor, Tensor]:
            noisy = noisy.to(self.dtype)
            with torch.no_grad():
                without = self.denoiser(unconditional.replace(noisy=noisy, timesteps=timesteps)).float()
            return without, self.denoiser(inputs.replace(noisy=noisy, timesteps=timesteps)).float()

        return denoise

    def apply_cfg(self, unconditional: Tensor, conditional: Tensor) -> Tensor:
        """Classifier-free guidance with the stage's scale."""
        return unconditional + self.settings.guidance * (conditional - unconditional)

    def is_unconditional(self, token_ids: Tensor) -> Tensor:
        """Which prompts (batch, tokens) are empty: (batch,), boolean."""
        return (token_ids == self.prompts.empty).all(dim=1)

    def sample_references(self, rows: Tensor, count: int) -> Tensor:
        """Rows of references, (batch, count): the first may show the same scene, the others show other scenes."""
        chosen = torch.empty(len(rows), count, dtype=torch.long)
        is_image = self.settings.data == "images"
        for index, row in enumerate(rows.tolist()):
            views = self.reference_views[self.targets.facts[row]["person"]]
            others = views[views != row] if is_image and len(views) > 1 else views
            chosen[index] = others[torch.randint(len(others), (count,))]
            if is_image and float(torch.rand(())) < self.settings.self_reference:
                chosen[index, 0] = row
            if is_image and len(views) == 1:
                chosen[index] = row  # There is no other view of this person.
        return chosen

    def reference_pixels(self, references: Tensor) -> Tensor:
        """Pixels (batch, references, 3, height, width) with a random shift."""
        return jitter_crops(self.data.references["train"]["crop"], references)

    def sample_conditions(self, rows: Tensor, num_references: int) -> tuple[Tensor, Tensor, Tensor]:
        """Token ids, the class-word mask m, and which samples have an identity, after dropping."""
        settings, prompts = self.settings, self.prompts
        draw = torch.rand(len(rows))
        drops_both = draw < settings.both_drop
        drops_text = drops_both | (draw >= 1 - settings.text_drop)
        drops_identity = draw < settings.both_drop + settings.identity_drop
        token_ids, class_mask = prompts.ids[num_references][rows], prompts.masks[num_references][rows]
        token_ids = torch.where(drops_identity[:, None], prompts.plain[rows], token_ids)
        token_ids = torch.where(drops_text[:, None], prompts.empty, token_ids)
        class_mask = class_mask & ~(drops_text | drops_identity)[:, None]
        return token_ids, class_mask, ~drops_identity

    def validate(self, path: Path) -> dict[str, float]:
        """Draw validation people: the reference, then generated frames. Returns the error on their faces."""
        metrics = {"validation_face_loss": validation.face_loss(self)}
        self.set_base_dtype(torch.float32)
        validation.draw_validation_samples(self, path)
        self.set_base_dtype(self.dtype)
        return metrics


def masked_mean(mask: Tensor, error: Tensor, face_share: float) -> Tensor:
    """The mean error, for a random share of the samples over the face alone.

    Shapes:
        mask: (batch, frames, height, width), the share of each latent pixel that shows the face
        error: (batch, frames, channels, height, width)
        returns: ()
    """
    face = mask.float().unsqueeze(2)
    is_whole = (torch.rand(len(mask)) >= face_share) | (face.flatten(1).sum(dim=1) < 1)
    weight = torch.where(is_whole.view(-1, 1, 1, 1, 1), torch.ones_like(face), face)
    by_sample = (error * weight).flatten(1).sum(dim=1) / (weight.flatten(1).sum(dim=1) * error.shape[2])
    return by_sample.mean()
