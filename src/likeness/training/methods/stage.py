"""One stage of a method's training: sampling, targets and losses.

A sample is an image or clip of a puppet (a rendered synthetic person) with its prompt, and reference images of the same
puppet: the same scene (self-reference, images only) or another one. L = L_noise + lambda (1 - cos(q_id,
F_id(D(x0_hat)))), where L_noise is the squared error of v, for part of the samples over the face alone, and F_id a
recognizer with gradients. It is Magic Mirror's loss (arXiv:2501.03931v1), used for every method.
"""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from diffusers.pipelines.cogvideo.pipeline_cogvideox import CogVideoXPipeline
from torch import Tensor, nn

from likeness.errors import ConfigError
from likeness.faces.engines.base import FaceEngine
from likeness.faces.engines.registry import resolve_engine
from likeness.identity.encoders.recognizer import IdentityRecognizer
from likeness.methods.method import Method
from likeness.runtime import choose_training_dtype
from likeness.training.data.datasets import jitter_crops
from likeness.training.data.pairs import TrainingData
from likeness.training.data.prompts import tokenize_dataset
from likeness.training.engine import distributed
from likeness.training.engine.settings import run_validation_parts
from likeness.training.methods import validation
from likeness.training.methods.batch import BatchSpec, MethodBatch, with_identity_row
from likeness.training.methods.settings import MethodStageSettings
from likeness.training.methods.spec import MethodTrainingSpec
from likeness.training.objectives import diffusion
from likeness.training.objectives.denoiser import DenoiserInputs, MethodDenoiser, ReferenceEncoder
from likeness.training.objectives.diffusion import masked_error
from likeness.training.objectives.distillation import DistillationTeacher
from likeness.training.objectives.face_decoder import FaceDecoder, build_frame_decoder
from likeness.training.objectives.identity_loss import (
    DecodedSamples,
    IdentityLoss,
    check_embedding_width,
    choose_samples,
)
from likeness.training.objectives.noise_levels import loss_by_noise_level
from likeness.training.objectives.on_policy import sample_on_policy
from likeness.training.objectives.perturbed_guidance import MethodGuidance
from likeness.training.precompute.prefetch import Prefetcher


class MethodStage:
    """One stage of a `MethodRecipe`.

    What a batch consists of (rows, references, noise, timesteps, dropping) is drawn for all processes together, so that
    it does not depend on their number.
    """

    def __init__(
        self,
        pipe: CogVideoXPipeline,
        method: Method,
        method_spec: MethodTrainingSpec,
        recognizer: IdentityRecognizer,
        settings: MethodStageSettings,
        data: TrainingData,
        seed: int,
    ) -> None:
        self.pipe, self.method, self.method_spec = pipe, method, method_spec
        self.settings, self.data, self.seed = settings, data, seed
        self.targets = data.targets[settings.data]
        self.modules: dict[str, nn.Module] = {method_spec.name: method}
        self.device: torch.device = pipe.transformer.device
        self.dtype = choose_training_dtype(settings.dtype, self.device)
        self.uses_autocast = (
            self.device.type != "cpu" or settings.gradient_checkpointing or settings.parallel == "fsdp2"
        )
        if settings.gradient_checkpointing:
            pipe.transformer.enable_gradient_checkpointing()
        else:
            pipe.transformer.disable_gradient_checkpointing()
        self.set_denoiser(MethodDenoiser(pipe, method))
        self.identity_loss = self.build_identity_loss(recognizer)
        self.alphas_cumprod = pipe.scheduler.alphas_cumprod.float()
        views = method_spec.reference_views(data)
        self.reference_views = {person: torch.tensor(rows) for person, rows in views.items()}
        self.rows = torch.tensor([row for row, entry in enumerate(self.targets.metadata) if entry["person"] in views])
        if not len(self.rows):
            raise ConfigError(
                f"Stage `{settings.name}` trains on `{settings.data}`: the data set has none with a reference. "
                'Use another `data` for the stage ("images", "clips" or "mixed"), or add such files.'
            )
        self.sampler = self.targets.make_sampler(self.rows, settings.micro_batch, seed)
        self.prompts = tokenize_dataset(pipe, method, self.targets)
        self.validation = data.validation_targets[settings.data]
        self.validation_prompts = tokenize_dataset(pipe, method, self.validation)
        self.guidance: MethodGuidance | None = None
        self.teacher: DistillationTeacher | None = None
        self.set_base_dtype(self.dtype)
        self.prefetcher: Prefetcher | None = None
        if not self.targets.is_in_memory:
            text_states = self.text_states
            self.prefetcher = Prefetcher(
                self.targets,
                data.references["train"],
                lambda step: distributed.local_rows(self.rows[self.sampler.global_rows(step, settings.micro_batch)]),
                lambda rows: [text_states(ids[rows]) for ids in (self.prompts.prompt_ids[1], self.prompts.caption_ids)],
                settings.workers,
            )

    @property
    def waited_s(self) -> float:
        """Seconds that this process has waited for data so far."""
        return self.data.waited_s()

    def build_identity_loss(self, recognizer: IdentityRecognizer) -> IdentityLoss:
        """The loss with the decoder, margin and views of the settings."""
        settings = self.settings
        if settings.identity_weight:
            check_embedding_width(recognizer, self.data.references["train"]["embedding"])
        decode = build_frame_decoder(
            settings.identity_decoder, self.pipe.vae, self.dtype, is_checkpointed=settings.identity_checkpointing
        )
        decoder = FaceDecoder(decode=decode, template=recognizer.template, margin=settings.identity_margin)
        return IdentityLoss(
            decoder,
            recognizer,
            num_views=settings.identity_views,
            contrast_weight=settings.identity_contrast,
            frames=settings.identity_frames,
        )

    def set_denoiser(self, denoiser: MethodDenoiser) -> None:
        """Use `denoiser`, and its encoder of references, in the stage's dtype."""
        if self.uses_autocast:
            self.denoiser = diffusion.Autocast(denoiser, self.dtype, self.device)
            self.encode = diffusion.Autocast(ReferenceEncoder(denoiser), self.dtype, self.device)
            return
        keep = tuple(self.method._keep_in_fp32_modules or ())
        self.denoiser = diffusion.CastParameters(denoiser, self.dtype, keep_in_fp32_modules=keep)
        self.encode = diffusion.CastParameters(ReferenceEncoder(denoiser), self.dtype, keep_in_fp32_modules=keep)

    def set_base_dtype(self, dtype: torch.dtype) -> None:
        """Cast the frozen base, not the method."""
        diffusion.cast_base(self.pipe.transformer, self.method, dtype)

    def shardable(self) -> list[nn.Module]:
        """What FSDP2 gathers as units: the blocks with their layers, the rest of the transformer, the encoders."""
        transformer: Any = self.pipe.transformer
        encoders = [module for name, module in self.method.named_children() if name != "layers"]
        return [*transformer.transformer_blocks, transformer, *encoders]

    def loss(self, step: int) -> tuple[Tensor, dict[str, float]]:
        batch = self.sample_batch(step)
        # References are encoded once; rollouts use the same identity tokens.
        inputs = batch.inputs
        identity = self.encode(inputs.pixels, inputs.extra_conditioning, inputs.active)
        inputs = inputs.replace(identity=identity)
        velocity = self.denoiser(inputs).float()
        unused = velocity.new_zeros(())
        if len(velocity) > len(batch.rows):  # The row that `with_identity_row` has added.
            unused, velocity = 0.0 * velocity[-1].sum(), velocity[:-1]
        target = self.target_velocity(batch)
        mask = self.targets["mask"][batch.rows].to(velocity)
        error = masked_error(mask, (velocity - target).square(), batch.uses_whole_frame)
        loss = (batch.weight * error).sum() + unused
        metrics = {"denoising": float(loss.detach())}
        metrics |= loss_by_noise_level(error, inputs.timesteps[: len(error)], batch.weight)
        if self.settings.identity_weight and self.settings.identity_samples:
            loss = self.add_identity_loss(step, loss, batch, velocity, metrics)
        if self.settings.rollout_samples:
            limit = self.settings.rollout_samples
            chosen, counts = self.choose_samples(step, batch, self.qualifies_on_policy, "on_policy", limit)
            metrics |= counts
            if len(chosen.rows):
                loss = loss + chosen.loss_factor * self.on_policy_loss(batch, inputs, chosen.rows, metrics)
        if not loss.requires_grad:  # No sample of this process has an identity; its gradients are zero.
            parameter = next(p for p in self.method.parameters() if p.requires_grad)
            loss = loss + 0.0 * parameter.sum()
        return loss, metrics

    def choose_samples(
        self, step: int, batch: MethodBatch, qualifies: Callable[[BatchSpec], Tensor], name: str, limit: int
    ) -> tuple[DecodedSamples, dict[str, float]]:
        """Which samples of a micro-batch an auxiliary loss is computed of and the share that it has, and metrics.

        With accumulation the micro-batches of an optimizer step are drawn ahead, so that the loss is the mean over all
        qualifying samples of the step.
        """
        settings, metrics = self.settings, {}
        is_qualifying, num_in_step = qualifies(batch.spec), None
        if settings.accumulation > 1:
            first, num_in_step = step - step % settings.accumulation, 0
            with torch.random.fork_rng(devices=[]):
                for number in range(first, first + settings.accumulation):
                    distributed.seed_micro_step(self.seed, number)
                    num_in_step += int(qualifies(self.draw_spec(number).local_share()).sum())
        counts: dict[str, Any] = {"num_in_step": num_in_step, "micro_batches": settings.accumulation}
        chosen = choose_samples(is_qualifying, limit, name, metrics, average=settings.identity_average, **counts)
        return chosen, metrics

    def qualifies_for_identity(self, spec: BatchSpec) -> Tensor:
        """Samples with an identity, enough signal and a known face: (batch,), boolean."""
        has_signal = self.alphas_cumprod[spec.timesteps] > self.settings.min_alpha_bar
        return spec.active & has_signal & self.identity_loss.has_face(self.targets["landmarks"][spec.rows])

    def qualifies_on_policy(self, spec: BatchSpec) -> Tensor:
        """Samples with an identity, and a known face if it is scored: (batch,), boolean."""
        if not self.settings.identity_weight:
            return spec.active
        return spec.active & self.identity_loss.has_face(self.targets["landmarks"][spec.rows])

    def draw_spec(self, step: int) -> BatchSpec:
        """Draw what a micro-batch consists of, for all processes together; reads no latents."""
        settings = self.settings
        rows = self.rows[self.sampler.global_rows(step, settings.micro_batch)]
        count, processes = len(rows), distributed.world_size()
        weight = torch.full((count,), processes / count)
        if count < processes:  # The end of an epoch: every process needs a sample, some of them count nothing.
            rows = torch.cat([rows, rows[:1].expand(processes - count)])
            weight = torch.cat([weight, torch.zeros(processes - count)])
        every = settings.two_references_every
        references = self.sample_references(rows, 2 if every and step % every == every - 1 else 1)
        token_ids, class_mask, active = self.sample_conditions(rows, references.shape[1])
        return BatchSpec(
            rows=rows,
            weight=weight,
            reference_indices=references,
            token_ids=token_ids,
            class_mask=class_mask,
            active=active,
            timesteps=diffusion.sample_timesteps(len(rows), settings, self.alphas_cumprod),
        )

    def sample_batch(self, step: int) -> MethodBatch:
        """Targets with noise, and their references and prompts after dropping."""
        settings, local_rows = self.settings, distributed.local_rows
        if self.prefetcher is not None:
            self.prefetcher.request(step)
        global_spec = self.draw_spec(step)
        spec = global_spec.local_share()
        timesteps, rows, references = spec.timesteps, spec.rows, spec.reference_indices
        clean = self.targets["latents"][rows].float().to(self.device)
        noise = local_rows(torch.randn(len(global_spec.rows), *clean.shape[1:])).to(self.device)
        alpha_bar = self.alphas_cumprod[timesteps].to(self.device)
        noisy, velocity = diffusion.noisy_and_velocity(clean, noise, alpha_bar)
        pixels = self.reference_pixels(references).to(self.device, self.dtype)
        uses_whole_frame = local_rows(torch.rand(len(global_spec.rows))) >= settings.face_share
        distributed.seed_by_rank()
        extra = self.method_spec.extra_conditioning(self.data, "train", references)
        inputs = DenoiserInputs(
            token_ids=spec.token_ids.to(self.device),
            class_mask=spec.class_mask.to(self.device),
            pixels=pixels,
            extra_conditioning=None if extra is None else extra.to(self.device),
            active=spec.active,
            noisy=noisy.to(self.dtype),
            timesteps=timesteps.to(self.device),
            text=self.text_states(spec.token_ids),
        )
        if settings.parallel == "fsdp2" and distributed.world_size() > 1:
            inputs = with_identity_row(self, inputs, rows[:1], references.shape[1])
        return MethodBatch(
            rows=rows,
            reference_indices=references,
            inputs=inputs,
            noisy=noisy,
            velocity=velocity,
            alpha_bar=alpha_bar,
            uses_whole_frame=uses_whole_frame.to(self.device),
            weight=spec.weight.to(self.device),
            spec=spec,
        )

    def text_states(self, token_ids: Tensor) -> Tensor | None:
        """Precomputed states of prompts (batch, tokens), None where the text encoder is loaded."""
        return None if self.data.text_states is None else self.data.text_states(token_ids).to(self.device)

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
                batch.reference_indices,
                inputs.pixels,
                is_unconditional=self.is_unconditional(inputs.token_ids),
                active=inputs.active,
                noisy=batch.noisy,
                timesteps=inputs.timesteps,
            )
        return target

    def add_identity_loss(
        self, step: int, loss: Tensor, batch: MethodBatch, velocity: Tensor, metrics: dict[str, float]
    ) -> Tensor:
        """Add the identity loss of x0 predicted from the data's noisy latents, of samples with enough signal."""
        settings = self.settings
        limit = settings.identity_samples
        decoded, counts = self.choose_samples(step, batch, self.qualifies_for_identity, "identity", limit)
        metrics |= counts
        chosen = decoded.rows
        if not len(chosen):
            return loss
        clean = diffusion.velocity_to_x0(batch.noisy[chosen], velocity[chosen], batch.alpha_bar[chosen])
        landmarks = self.targets["landmarks"][batch.rows[chosen]]
        embedding = self.data.references["train"]["embedding"][batch.reference_indices[chosen, 0]]
        identity = self.identity_loss("identity", clean, landmarks, embedding, metrics)
        return loss + settings.identity_weight * decoded.loss_factor * identity

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
        settings, rows, references = self.settings, batch.rows[chosen], batch.reference_indices[chosen]
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
                text=None if inputs.text is None else inputs.text[chosen],
            )
        )
        clean = self.targets["latents"][rows].float()
        noisy, timesteps = sample_on_policy(
            lambda latents, steps: self.apply_cfg(*branches(latents, steps)), clean, self.alphas_cumprod, settings
        )
        unconditional, conditional = branches(noisy, timesteps)
        loss = torch.zeros(())
        if settings.identity_weight:
            velocity = self.apply_cfg(unconditional, conditional)
            predicted = diffusion.velocity_to_x0(noisy, velocity, self.alphas_cumprod[timesteps])
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
            mask = self.targets["mask"][rows].to(conditional)
            distillation = masked_error(mask, (conditional - target).square(), batch.uses_whole_frame[chosen]).mean()
            metrics["on_policy_distillation"] = float(distillation.detach())
            loss = loss + settings.on_policy_distillation_weight * distillation
        return loss

    def cfg_branches(self, inputs: DenoiserInputs) -> Callable[[Tensor, Tensor], tuple[Tensor, Tensor]]:
        """A function from noisy latents and timesteps to the unconditional and the conditional v.

        Only the conditional v has gradients. `inputs` are those of the conditional branch.
        """
        empty = self.prompts.empty_ids.expand(inputs.token_ids.shape)
        unconditional = inputs.replace(
            token_ids=empty.to(self.device),
            class_mask=torch.zeros_like(inputs.class_mask),
            active=~inputs.active,
            identity=None,
            text=self.text_states(empty),
        )

        def predict_branches(noisy: Tensor, timesteps: Tensor) -> tuple[Tensor, Tensor]:
            noisy = noisy.to(self.dtype)
            with torch.no_grad():
                unconditional_velocity = self.denoiser(unconditional.replace(noisy=noisy, timesteps=timesteps)).float()
            return unconditional_velocity, self.denoiser(inputs.replace(noisy=noisy, timesteps=timesteps)).float()

        return predict_branches

    def apply_cfg(self, unconditional: Tensor, conditional: Tensor) -> Tensor:
        """Classifier-free guidance with the stage's scale."""
        return unconditional + self.settings.guidance * (conditional - unconditional)

    def is_unconditional(self, token_ids: Tensor) -> Tensor:
        """Which prompts (batch, tokens) are empty: (batch,), boolean."""
        return (token_ids == self.prompts.empty_ids).all(dim=1)

    def sample_references(self, rows: Tensor, count: int) -> Tensor:
        """References of targets `rows` (batch,), (batch, count): the first may show the same scene, others do not."""
        allowed = self.targets.reference_rows
        if allowed:  # Files say which references a target may have.
            views = [torch.tensor(allowed[row]) for row in rows.tolist()]
            return torch.stack([view[torch.randint(len(view), (count,))] for view in views])
        chosen = torch.empty(len(rows), count, dtype=torch.long)
        is_image = self.settings.data == "images"
        for index, row in enumerate(rows.tolist()):
            views = self.reference_views[self.targets.metadata[row]["person"]]
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
        token_ids, class_mask = prompts.prompt_ids[num_references][rows], prompts.class_masks[num_references][rows]
        token_ids = torch.where(drops_identity[:, None], prompts.caption_ids[rows], token_ids)
        token_ids = torch.where(drops_text[:, None], prompts.empty_ids, token_ids)
        class_mask = class_mask & ~(drops_text | drops_identity)[:, None]
        return token_ids, class_mask, ~drops_identity

    @property
    def rows_per_validation_part(self) -> int:
        """Rows of a forward pass that costs about as much as a training step of this process."""
        return max(1, 3 * self.settings.micro_batch // (2 * distributed.world_size()))

    @property
    def face_engine(self) -> FaceEngine:
        """The engine that read the references; it scores samples of validation people."""
        return resolve_engine(self.data.face_engine)

    def validation_parts(self, path: Path) -> validation.ValidationParts:
        """Draw and score validation people in parts; returns the metrics."""
        return validation.validate(self, path)

    def validate(self, path: Path) -> dict[str, float]:
        """The same at once."""
        return run_validation_parts(self.validation_parts(path))
