"""Trains Magic Mirror on clips of two people, each from a reference of their own, between steps on clips of one.

The base stays frozen and knows one person in a frame, so the video is two of its frames side by side: each has the
positions of a frame of its own, and heeds the other as little as `cross_region_weight` says (`likeness.adapters.regions`). The
paper (arXiv:2501.03931v1) shows one person alone.
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
from likeness.training.data.datasets import Order, Shards, puppets, to_bytes, to_pixels
from likeness.training.data.latents import latents
from likeness.training.data.pairs import read_base
from likeness.training.data.render_puppets import PuppetSettings
from likeness.training.engine.logging import Journal
from likeness.training.methods.denoiser import MethodDenoiser
from likeness.training.methods.magic_mirror import MagicMirrorTrainingSpec
from likeness.training.methods.settings import MethodRecipe
from likeness.training.methods.stage import MethodStage
from likeness.training.methods.train import train_method
from likeness.training.objectives import diffusion

SHEET_PROMPTS = (
    "{} img1 in a red sweater smiles at the camera and {} img2 in a blue shirt nods in a park",
    "{} img1 talks to the camera and {} img2 looks at the camera in a kitchen",
)


class TwoPersonRecipe(MethodRecipe):
    """Magic Mirror on one person and on two."""

    kind: Literal["two_person"]
    two_person: PuppetSettings
    """Clips of two, of the same seed as `faces`."""
    cross_region_weight: float = Field(default=0.0, ge=0, le=1)
    """How much the two halves of the video heed each other."""
    single_every: int = Field(default=3, ge=2)
    """Every so many steps one on clips of one person."""


class TwoPersonDenoiser(MethodDenoiser):
    """`MethodDenoiser`, and the same with two people in a row: pixels are (batch, people, references, ...) then."""

    def __init__(self, pipe: Any, method: Any, regions: Regions) -> None:
        super().__init__(pipe, method)
        self.regions = regions

    def read(self, pixels: Tensor, extra_conditioning: Tensor | None) -> PersonTokens:
        if pixels.ndim == 5:
            return super().read(pixels, extra_conditioning)
        assert extra_conditioning is not None
        return together(self.method, pixels, extra_conditioning)

    def places(self, identity: PersonTokens, mask: Tensor) -> dict[str, Any]:
        return {} if identity.num_people == 1 else {"whose": mask, "regions": self.regions}


def together(method: Any, pixels: Tensor, extra_conditioning: Tensor) -> MagicMirrorIdentity:
    """Encode two people a row.

    Shapes:
        pixels: (batch, 2, references, 3, height, width)
        extra_conditioning: (batch, 2, references, embedding_width)
    """
    people = zip(pixels.unbind(1), extra_conditioning.unbind(1), strict=True)
    return MagicMirrorIdentity.together([method.encode_tensors(*person) for person in people])


class TwoPersonStage(MethodStage):
    """One stage of a `TwoPersonRecipe`."""

    def __init__(self, *args: Any, recipe: TwoPersonRecipe) -> None:
        super().__init__(*args)
        unknown = ("attention_guidance", "teacher_scale", "rollout_samples")
        if asked := [name for name in unknown if getattr(self.settings, name)]:
            raise ConfigError(
                f"Stage `{self.settings.name}` has {', '.join(asked)}, which steps on clips of two people do not know. "
                "Leave such settings out of a recipe of two."
            )
        self.recipe = recipe
        self.regions = Regions(cross_region_weight=recipe.cross_region_weight, own_positions=True)
        self.set_denoiser(TwoPersonDenoiser(self.pipe, self.method, self.regions), tuple(self.cast.wide))
        self.pairs: Shards = self.data["two_person"]
        rows, self.ids, self.whose = self._sentences()
        self.pair_rows = torch.tensor(rows)
        self.pair_order = Order(len(rows), self.order.seed)

    def _sentences(self) -> tuple[list[int], Tensor, Tensor]:
        """Rows whose sentence fits with both class words repeated, and the token ids of all."""
        length = self.pipe.transformer.config.max_text_seq_length
        ids = torch.zeros(len(self.pairs), length, dtype=torch.int64)
        whose, rows = torch.zeros_like(ids), []
        for row, fact in enumerate(self.pairs.facts):
            known = all(person in self.reference_views for person in fact["people"])
            try:
                tokens = self.method.tokenize(
                    [fact["prompt"]], self.pipe.tokenizer, num_references=[1, 1], max_length=length
                )
            except PromptError:
                continue
            ids[row], whose[row] = tokens.ids[0], tokens.person_index[0]
            rows += [row] if known else []
        return rows, ids, whose

    def loss(self, step: int) -> tuple[Tensor, dict[str, float]]:
        if step % self.recipe.single_every == 0:
            return super().loss(step)
        settings = self.settings
        rows = self.pair_rows[self.pair_order.rows(step, max(1, settings.batch // 2))]
        faces = self._faces(rows)
        ids, whose = self.ids[rows].clone(), self.whose[rows].clone()
        without_text = torch.rand(len(rows)) < settings.text_drop
        ids[without_text], whose[without_text] = self.sentences.empty, 0
        clean = self.pairs["latents"][rows].float()
        timesteps = diffusion.sample_timesteps(len(rows), settings, self.alpha_bars)
        alpha_bar = self.alpha_bars[timesteps]
        noisy, target = diffusion.add_noise(clean, torch.randn_like(clean), alpha_bar)
        pixels = self.reference_pixels(faces)[:, :, None]
        extra_conditioning = self.method_spec.extra_conditioning(self.data, "faces", faces)
        assert extra_conditioning is not None
        active = torch.ones(len(rows), dtype=torch.bool)
        velocity = self.cast(
            ids, whose, pixels.to(self.dtype), extra_conditioning[:, :, None], active, noisy.to(self.dtype), timesteps
        ).float()
        error = self._weigh(rows, (velocity - target).square())
        figures = {"duo_noise": float(error.detach())}
        chosen = (alpha_bar > settings.min_alpha_bar).nonzero()[: settings.identity_samples // 2, 0]
        if settings.identity_weight and len(chosen):
            seen = diffusion.clean_from(noisy[chosen], velocity[chosen], alpha_bar[chosen])
            points = self.data["landmarks"]["two_person"][rows[chosen]]
            loss = self.person_loss("duo_identity", seen, points, extra_conditioning[chosen], figures)
            error = error + settings.identity_weight * loss * len(chosen) / len(rows)
        return error, figures

    def _faces(self, rows: Tensor) -> Tensor:
        """A look of each person, (batch, 2), rows of faces."""
        chosen = torch.empty(len(rows), 2, dtype=torch.long)
        for place, row in enumerate(rows.tolist()):
            for side, person in enumerate(self.pairs.facts[row]["people"]):
                looks = self.reference_views[person]
                chosen[place, side] = looks[torch.randint(len(looks), (1,))]
        return chosen

    def _weigh(self, rows: Tensor, error: Tensor) -> Tensor:
        targets, self.targets = self.targets, self.pairs
        try:
            return self.weigh(rows, error)
        finally:
            self.targets = targets

    def sheet(self, path: Path) -> dict[str, float]:
        """Unseen people, two by two, beside the sheet of one person."""
        figures = super().sheet(path)
        self.set_base_dtype(torch.float32)
        draw(self, path.with_name(f"{path.stem}_duos{path.suffix}"))
        self.set_base_dtype(self.dtype)
        return figures


@torch.no_grad()
def draw(stage: TwoPersonStage, path: Path, count: int = 3) -> None:
    """Rows of two references each, then frames made of them."""
    faces, rows = stage.data["validation"], []
    people = [looks[0] for looks in faces.rows_of("person").values()][: 2 * count]
    pairs = torch.tensor(people).view(-1, 2)
    pixels = to_pixels(faces["crop"][pairs.flatten()]).unflatten(0, (-1, 2))
    extra_conditioning = stage.method_spec.extra_conditioning(stage.data, "validation", pairs)
    assert extra_conditioning is not None
    identity = together(stage.method, pixels, extra_conditioning[:, :, None])
    side = 8 * stage.pipe.transformer.config.sample_height
    for words in SHEET_PROMPTS:
        groups = [[faces.facts[int(row)]["group"] for row in pair] for pair in pairs]
        prompts = [words.format(*(f"{'an' if g[0] == 'e' else 'a'} {g}" for g in two)) for two in groups]
        with stage.method.identity(identity, regions=stage.regions):
            prompt = stage.method.prompt(prompts)
            clips = diffusion.sample(
                stage.pipe,
                num_frames=stage.pipe.transformer.config.sample_frames,
                seed=0,
                guidance=stage.settings.guidance,
                height=side,
                width=2 * side,
                **prompt,
            )
        for two, clip in zip(pixels, clips, strict=True):
            frames = [half for frame in clip[::4] for half in (frame[:, :side], frame[:, side:])]
            rows.append([*to_bytes(two[:, 0]), *frames])
    media.write_image(path, media.contact_sheet(rows, cell_px=96, gap_px=2))


class TwoPersonTrainingSpec(MagicMirrorTrainingSpec):
    """Magic Mirror's, and the clips of two."""

    def __init__(self, recipe: TwoPersonRecipe, folder: Path, cache: Path) -> None:
        super().__init__()
        self.recipe, self.folder, self.cache = recipe, folder, cache

    def prepare(self, method: Any, data: dict[str, Any], *, is_new: bool) -> None:
        super().prepare(method, data, is_new=is_new)
        two_person_clips, journal = self.recipe.two_person, Journal(self.folder, self.name)
        data["two_person"] = latents(two_person_clips, read_base(self.recipe.base).vae, self.cache, journal)
        points = puppets(two_person_clips, self.cache, journal, ("landmarks",))["landmarks"]
        data["landmarks"]["two_person"] = points[:, 0]  # of the first frame: (samples, 2, 5, 2)


def run(recipe: TwoPersonRecipe, folder: Path, cache: Path) -> Path:
    """Train the method and write its adapter to `folder/model`."""
    method_spec = TwoPersonTrainingSpec(recipe, folder, cache)
    return train_method(recipe, folder, cache, method_spec, make_stage=partial(TwoPersonStage, recipe=recipe))
