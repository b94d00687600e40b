"""Trains Magic Mirror on clips of two people, each with a reference of their own, between steps on clips of one.

The base stays frozen and knows one person in a frame. The video is therefore two frames of its size side by side: each
half has the positions of a frame of its own, and attention across the halves is weighted by `cross_region_weight`
(`likeness.adapters.conditioning.regions`). The paper (arXiv:2501.03931v1) shows one person only.
"""

from functools import partial
from pathlib import Path
from typing import Any, Literal

import torch
from pydantic import Field
from torch import Tensor

from likeness import media
from likeness.adapters.conditioning.regions import Regions
from likeness.errors import ConfigError, PromptError
from likeness.identity.tokens import PersonTokens
from likeness.methods.magic_mirror import MagicMirrorIdentity
from likeness.training.base.pipelines import read_base
from likeness.training.data.datasets import EpochSampler, ShardedDataset, crops_to_references, load_puppets, to_uint8
from likeness.training.data.latents import load_latents, pool_to_latent_frames
from likeness.training.data.pairs import TrainingData
from likeness.training.data.render_puppets import PuppetSettings
from likeness.training.engine import distributed
from likeness.training.engine.logging import TrainingLogger
from likeness.training.methods.magic_mirror import MagicMirrorTrainingSpec
from likeness.training.methods.settings import MethodRecipe
from likeness.training.methods.stage import MethodStage
from likeness.training.methods.train import train_method
from likeness.training.methods.validation import ValidationParts
from likeness.training.objectives import diffusion
from likeness.training.objectives.denoiser import DenoiserInputs, MethodDenoiser
from likeness.training.objectives.diffusion import masked_error
from likeness.training.objectives.identity_loss import choose_samples

VALIDATION_PROMPTS = (
    "{} img1 in a red sweater smiles at the camera and {} img2 in a blue shirt nods in a park",
    "{} img1 talks to the camera and {} img2 looks at the camera in a kitchen",
)


class TwoPersonRecipe(MethodRecipe):
    """Magic Mirror on one person and on two."""

    kind: Literal["two_person"]
    two_person: PuppetSettings
    """Clips of two people; with the seed of `faces` they show the same people."""
    cross_region_weight: float = Field(default=0.0, ge=0, le=1)
    """Weight of the attention between the two halves of the video."""
    single_every: int = Field(default=3, ge=2)
    """One step in this many is on clips of one person."""


class TwoPersonDenoiser(MethodDenoiser):
    """`MethodDenoiser` for one or two people a sample: with two, pixels are (batch, people, references, ...)."""

    def __init__(self, pipe: Any, method: Any, regions: Regions) -> None:
        super().__init__(pipe, method)
        self.regions = regions

    def encode(self, pixels: Tensor, extra_conditioning: Tensor | None) -> PersonTokens:
        """Encode one person, or two, of each sample.

        Shapes:
            pixels: (batch, [people,] references, 3, height, width)
            extra_conditioning: (batch, [people,] references, embedding_width)
        """
        if pixels.ndim == 5:
            return super().encode(pixels, extra_conditioning)
        assert extra_conditioning is not None
        return encode_pairs(self.method, pixels, extra_conditioning)

    def region_arguments(self, identity: PersonTokens, class_mask: Tensor) -> dict[str, Any]:
        """Arguments of `Method.conditioned` for two people; `class_mask` is then the person of each token.

        Shapes:
            class_mask: (batch, text_tokens)
        """
        return {} if identity.num_people == 1 else {"person_index": class_mask, "regions": self.regions}


def encode_pairs(method: Any, pixels: Tensor, extra_conditioning: Tensor) -> MagicMirrorIdentity:
    """Encode two people a row.

    Shapes:
        pixels: (batch, 2, references, 3, height, width)
        extra_conditioning: (batch, 2, references, embedding_width)
    """
    people = zip(pixels.unbind(1), extra_conditioning.unbind(1), strict=True)
    return MagicMirrorIdentity.together([method.encode_tensors(*person) for person in people])


class TwoPersonStage(MethodStage):
    """One stage of a `TwoPersonRecipe`.

    Raises:
        ConfigError: The stage has a setting that steps on clips of two people do not support.
    """

    def __init__(self, *args: Any, recipe: TwoPersonRecipe) -> None:
        super().__init__(*args)
        unsupported = ("attention_guidance", "teacher_scale", "rollout_samples")
        if refused := [name for name in unsupported if getattr(self.settings, name)]:
            raise ConfigError(
                f"Stage `{self.settings.name}` has {', '.join(refused)}, which steps on clips of two people do not "
                "support. Remove such settings from a recipe of kind `two_person`."
            )
        if self.settings.accumulation > 1:
            raise ConfigError(
                f"Stage `{self.settings.name}` has an accumulation of {self.settings.accumulation}, and steps on clips "
                "of two people weight the identity loss within one micro-batch. Leave `accumulation` out."
            )
        self.recipe = recipe
        self.regions = Regions(cross_region_weight=recipe.cross_region_weight, own_positions=True)
        self.set_denoiser(TwoPersonDenoiser(self.pipe, self.method, self.regions))
        self.two_person_clips: ShardedDataset = self.data.targets["two_person"]
        rows, self.token_ids, self.person_mask = self._tokenize_pairs()
        self.pair_rows = torch.tensor(rows)
        self.pair_sampler = EpochSampler(len(rows), self.sampler.seed)

    def _tokenize_pairs(self) -> tuple[list[int], Tensor, Tensor]:
        """Rows whose prompt fits with both class words repeated; of all rows token ids and the person of each token."""
        length = self.pipe.transformer.config.max_text_seq_length
        token_ids = torch.zeros(len(self.two_person_clips), length, dtype=torch.int64)
        person_mask, rows = torch.zeros_like(token_ids), []
        for row, entry in enumerate(self.two_person_clips.metadata):
            has_references = all(person in self.reference_views for person in entry["people"])
            try:
                tokens = self.method.tokenize(
                    [entry["prompt"]], self.pipe.tokenizer, num_references=[1, 1], max_length=length
                )
            except PromptError:
                continue
            token_ids[row], person_mask[row] = tokens.ids[0], tokens.person_index[0]
            rows += [row] if has_references else []
        return rows, token_ids, person_mask

    def loss(self, step: int) -> tuple[Tensor, dict[str, float]]:
        """The loss on clips of one person in every `single_every`-th step, else on clips of two; and its parts."""
        if step % self.recipe.single_every == 0:
            return super().loss(step)
        distributed.seed_by_rank()
        settings = self.settings
        rows = self.pair_rows[self.pair_sampler.local_rows(step, max(1, settings.micro_batch // 2))]
        references = self._sample_pair_references(rows)
        token_ids, person_mask = self.token_ids[rows].clone(), self.person_mask[rows].clone()
        drops_text = torch.rand(len(rows)) < settings.text_drop
        token_ids[drops_text], person_mask[drops_text] = self.prompts.empty_ids, 0
        clean = self.two_person_clips["latents"][rows].float()
        timesteps = diffusion.sample_timesteps(len(rows), settings, self.alphas_cumprod)
        alpha_bar = self.alphas_cumprod[timesteps]
        noisy, target = diffusion.noisy_and_velocity(clean, torch.randn_like(clean), alpha_bar)
        pixels = self.reference_pixels(references)[:, :, None]  # (batch, people, 1, 3, height, width)
        embedding = self.method_spec.extra_conditioning(self.data, "train", references)
        assert embedding is not None
        inputs = DenoiserInputs(
            token_ids=token_ids,
            class_mask=person_mask,
            pixels=pixels.to(self.dtype),
            extra_conditioning=embedding[:, :, None],
            active=torch.ones(len(rows), dtype=torch.bool),
            noisy=noisy.to(self.dtype),
            timesteps=timesteps,
        )
        velocity = self.denoiser(inputs).float()
        uses_whole_frame = torch.rand(len(rows)) >= settings.face_share
        loss = masked_error(self.two_person_clips["mask"][rows], (velocity - target).square(), uses_whole_frame).mean()
        metrics = {"two_person_denoising": float(loss.detach())}
        if not (settings.identity_weight and settings.identity_samples):
            return loss, metrics
        is_qualifying = (alpha_bar > settings.min_alpha_bar) & self.identity_loss.has_face(
            self.two_person_clips["landmarks"][rows]
        )
        limit = max(1, settings.identity_samples // 2)  # Each sample has two faces.
        decoded = choose_samples(
            is_qualifying, limit, "two_person_identity", metrics, average=settings.identity_average
        )
        chosen = decoded.rows
        if len(chosen):
            predicted = diffusion.velocity_to_x0(noisy[chosen], velocity[chosen], alpha_bar[chosen])
            landmarks = self.two_person_clips["landmarks"][rows[chosen]]
            identity = self.identity_loss("two_person_identity", predicted, landmarks, embedding[chosen], metrics)
            loss = loss + settings.identity_weight * decoded.loss_factor * identity
        return loss, metrics

    def _sample_pair_references(self, rows: Tensor) -> Tensor:
        """A view of each person of these pairs: (batch,) to (batch, 2), indices into the references."""
        chosen = torch.empty(len(rows), 2, dtype=torch.long)
        for index, row in enumerate(rows.tolist()):
            for side, person in enumerate(self.two_person_clips.metadata[row]["people"]):
                views = self.reference_views[person]
                chosen[index, side] = views[torch.randint(len(views), (1,))]
        return chosen

    def validation_parts(self, path: Path) -> ValidationParts:
        """The samples of one person, and beside that sheet `*_two_person` with pairs of validation people."""
        metrics = yield from super().validation_parts(path)
        self.set_base_dtype(torch.float32)
        write_pair_sheet(self, path.with_name(f"{path.stem}_two_person{path.suffix}"))
        self.set_base_dtype(self.dtype)
        return metrics


@torch.no_grad()
def write_pair_sheet(stage: TwoPersonStage, path: Path, count: int = 3) -> None:
    """One row for each pair: two references, then frames generated from them."""
    faces, rows = stage.data.references["validation"], []
    people = [views[0] for views in faces.group_rows("person").values()][: 2 * count]
    pairs = torch.tensor(people).view(-1, 2)
    pixels = crops_to_references(faces["crop"][pairs.flatten()]).unflatten(0, (-1, 2))
    embedding = stage.method_spec.extra_conditioning(stage.data, "validation", pairs)
    assert embedding is not None
    identity = encode_pairs(stage.method, pixels, embedding[:, :, None])
    side = 8 * stage.pipe.transformer.config.sample_height
    for template in VALIDATION_PROMPTS:
        groups = [[faces.metadata[int(row)]["group"] for row in pair] for pair in pairs]
        prompts = [template.format(*(f"{'an' if g[0] == 'e' else 'a'} {g}" for g in pair)) for pair in groups]
        with stage.method.identity(identity, regions=stage.regions):
            prompt = stage.method.prompt(prompts)
            clips = diffusion.sample_clips(
                stage.pipe,
                num_frames=stage.pipe.transformer.config.sample_frames,
                seed=0,
                guidance=stage.settings.guidance,
                height=side,
                width=2 * side,
                **prompt,
            )
        for pair, clip in zip(pixels, clips, strict=True):
            frames = [half for frame in clip[::4] for half in (frame[:, :side], frame[:, side:])]
            rows.append([*to_uint8(pair[:, 0]), *frames])
    media.write_image(path, media.contact_sheet(rows, cell_px=96, gap_px=2))


class TwoPersonTrainingSpec(MagicMirrorTrainingSpec):
    """Magic Mirror with clips of two people."""

    def __init__(self, recipe: TwoPersonRecipe, folder: Path, cache: Path) -> None:
        super().__init__(recipe)
        self.folder, self.cache = folder, cache

    def prepare(self, method: Any, data: TrainingData, *, from_scratch: bool) -> None:
        """Initialize Magic Mirror, and add the clips of two people to `data.targets`.

        Shapes:
            landmarks of the clips: (samples, latent_frames, people, 5, 2)
        """
        super().prepare(method, data, from_scratch=from_scratch)
        clips, logger = self.recipe.two_person, TrainingLogger(self.folder, self.name)
        targets = load_latents(clips, read_base(self.recipe.base).vae, self.cache, logger)
        landmarks = load_puppets(clips, self.cache, logger, ("landmarks",))["landmarks"]
        data.targets["two_person"] = targets.with_tensor("landmarks", pool_to_latent_frames(landmarks))


def run(recipe: TwoPersonRecipe, folder: Path, cache: Path) -> Path:
    """Train the method and write its adapter to `folder/model`."""
    method_spec = TwoPersonTrainingSpec(recipe, folder, cache)
    return train_method(recipe, folder, cache, method_spec, make_stage=partial(TwoPersonStage, recipe=recipe))
