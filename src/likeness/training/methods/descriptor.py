"""Teaches FantasyID's descriptor to read a person before it is used in any video.

The paper's descriptor begins with an encoder that knows faces, this one with a recognizer's first convolutions
(`FantasyIDRecipe.stem`), and the video transformer is a poor teacher of what a face is. Here a linear layer, thrown away later,
has to tell from V_F what is known of a puppet: its identity numbers, its colors, and a face recognizer's embedding. No sentence,
latent or transformer takes part, so a minute of it sees several times as many people as a minute of the image stage.
"""

from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from pydantic import Field
from torch import Tensor, nn

from likeness import media
from likeness.puppets.people.anatomy import SHAPE_NUMBERS
from likeness.training.data.datasets import Order, Shards, jitter_crops, to_pixels
from likeness.training.data.render_puppets import PuppetSettings, person_of
from likeness.training.engine.loop import LoopSettings
from likeness.training.methods.spec import MethodTrainingSpec


class DescriptorSettings(LoopSettings):
    """The stage before the image stage."""

    name: str = "descriptor"
    batch: int = 96
    face_weight: float = Field(default=0.0, ge=0)
    """Weight of the same error where a second reader tells it from X_F alone, before the fusion: V_F can say no more of a
    image than X_F does, which learns sooner when it is asked itself."""
    shape_swap: float = Field(default=0.0, ge=0, le=1)
    """Share of samples that come with the head of another person of the step, whose shape numbers are then wanted and no
    embedding: what images and vertices both tell, V_F is meant to take from vertices, which alone follow sliders."""


class DescriptorStage:
    """From images and vertices to what is known of a person."""

    def __init__(
        self,
        descriptor: Any,
        method_spec: MethodTrainingSpec,
        settings: DescriptorSettings,
        data: dict[str, Any],
        known: dict[str, Tensor],
        seed: int,
    ) -> None:
        """Prepare the stage.

        Args:
            descriptor: What is trained.
            method_spec: What gives vertices and looks.
            settings: How long and how.
            data: The sets `faces` and `validation`.
            known: What is known of the person of each row of both, (rows, numbers).
            seed: Of the order of people.
        """
        self.descriptor, self.method_spec, self.settings, self.data = descriptor, method_spec, settings, data
        mean, spread = known["faces"].mean(dim=0), known["faces"].std(dim=0).clamp(min=1e-6)
        self.wanted = {name: (rows - mean) / spread for name, rows in known.items()}
        self.reader, self.face_reader = nn.LazyLinear(len(mean)), nn.LazyLinear(len(mean))
        self.reference_views = [torch.tensor(rows) for rows in method_spec.reference_views(data).values()]
        self.validation = torch.tensor([rows[0] for rows in data["validation"].rows_of("person").values()])
        with torch.no_grad():
            self.read("validation", self.validation[:1])  # Gives readers their width.
        self.has_heads = method_spec.extra_conditioning(data, "validation", self.validation[:1, None]) is not None
        self.embedding_width = data["faces"]["embedding"].shape[1]
        self.is_shape = torch.arange(len(mean)) < len(SHAPE_NUMBERS)
        self.modules: dict[str, nn.Module] = {"descriptor": descriptor, "reader": self.reader}
        if settings.face_weight:
            self.modules["face_reader"] = self.face_reader
        self.order = Order(len(self.reference_views), seed)

    def read(
        self, source: str, rows: Tensor, *, heads: Tensor | None = None, jitter: bool = False
    ) -> tuple[Tensor, Tensor]:
        """What the readers tell of one image each: from V_F, normed as injections norm it, and from X_F.

        Shapes:
            rows: (batch,)
            heads: (batch,), rows of those whose vertices come with the images; of whom they show if absent
            returns: (batch, numbers), twice
        """
        crops = self.data[source]["crop"]
        pixels = jitter_crops(crops, rows[:, None]) if jitter else to_pixels(crops[rows])
        heads = rows if heads is None else heads
        x_f = self.descriptor.read_faces(pixels)
        v_f = self.descriptor.describe(x_f, self.method_spec.extra_conditioning(self.data, source, heads[:, None]))
        readers = ((self.reader, v_f), (self.face_reader, x_f))
        told, seen = (read(F.layer_norm(x, x.shape[-1:]).mean(dim=1)) for read, x in readers)
        return told, seen

    def loss(self, step: int) -> tuple[Tensor, dict[str, float]]:
        people = [self.reference_views[i] for i in self.order.rows(step, self.settings.batch).tolist()]
        rows = torch.stack([looks[torch.randint(len(looks), ())] for looks in people])
        swapped = torch.rand(len(rows)) < self.settings.shape_swap * self.has_heads
        heads = torch.where(swapped, rows.roll(1), rows)
        own = self.wanted["faces"][rows]
        wanted, weights = own.clone(), torch.ones_like(own)
        wanted[:, self.is_shape] = self.wanted["faces"][heads][:, self.is_shape]
        weights[swapped, -self.embedding_width :] = 0
        told, seen = self.read("faces", rows, heads=heads, jitter=True)
        error = ((told - wanted).square() * weights).sum() / weights.sum()
        figures = {"unexplained": float(error.detach())}
        if self.settings.face_weight:
            before = F.mse_loss(seen, own)
            figures["unexplained_by_face"] = float(before.detach())
            error = error + self.settings.face_weight * before
        return error, figures

    @torch.no_grad()
    def sheet(self, path: Path) -> dict[str, float]:
        """How alike validation people are: by what is known on the left, by what is read on the right, white for the same."""
        wanted = self.wanted["validation"][self.validation]
        read, seen = (
            torch.cat(parts)
            for parts in zip(*map(partial(self.read, "validation"), self.validation.split(32)), strict=True)
        )
        gray = ((torch.cat([cosines(wanted[:64]), cosines(read[:64])], dim=1) + 1) * 127.5).byte().numpy()
        media.write_image(path, np.kron(np.stack([gray] * 3, axis=-1), np.ones((6, 6, 1), dtype=np.uint8)))
        figures = {"unseen_r2": explained(read, wanted)}
        if self.settings.face_weight:
            figures["unseen_face_r2"] = explained(seen, wanted)
        if self.has_heads:
            # Everybody with the head of the next: how much of that head's shape is told?
            heads, shape = self.validation.roll(-1), self.is_shape
            rows = zip(self.validation.split(32), heads.split(32), strict=True)
            read = torch.cat([self.read("validation", own, heads=other)[0] for own, other in rows])
            figures["unseen_swapped_shape_r2"] = explained(read[:, shape], self.wanted["validation"][heads][:, shape])
        return figures


def explained(read: Tensor, wanted: Tensor) -> float:
    """Share of the spread of standardized numbers that is read, r2 around 0."""
    return float(1 - (read - wanted).square().sum() / wanted.square().sum())


def known_of_puppets(settings: PuppetSettings, faces: Shards) -> Tensor:
    """For each row what is known of its person, (rows, numbers): identity numbers, colors of skin and hair, mean embedding."""
    embeddings = faces["embedding"].float()
    known = []
    for person, rows in faces.rows_of("person").items():
        puppet = person_of(settings, person)
        truth = np.concatenate([puppet.numbers, puppet.skin, puppet.hair_color])
        own = torch.cat([torch.from_numpy(truth).float(), embeddings[rows].mean(dim=0)])
        known += [(row, own) for row in rows]
    return torch.stack([own for _, own in sorted(known, key=lambda pair: pair[0])])


def cosines(rows: Tensor) -> Tensor:
    """Of all pairs, (rows, rows)."""
    unit = F.normalize(rows, dim=1)
    return unit @ unit.T
