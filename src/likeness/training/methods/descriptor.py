"""Trains FantasyID's descriptor before it is used in any video.

The paper's descriptor starts from an encoder that was pretrained on faces, this one from a recognizer's first
convolutions (`FantasyIDRecipe.stem`), and the video transformer teaches it slowly. Here a linear layer, dropped
afterwards, regresses known attributes of the puppet (a rendered synthetic person) from V_F: its identity numbers, its
colors and a face recognizer's embedding. Without text, latents and transformer a minute covers several times as many
people as a minute of the image stage.
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
from likeness.training.data.datasets import EpochSampler, ShardedDataset, crops_to_references, jitter_crops
from likeness.training.data.pairs import Split, TrainingData
from likeness.training.data.render_puppets import PuppetSettings, dataset_person
from likeness.training.engine import distributed
from likeness.training.engine.settings import LoopSettings
from likeness.training.methods.spec import MethodTrainingSpec


class DescriptorSettings(LoopSettings):
    """The stage before the image stage."""

    name: str = "descriptor"
    batch: int = 96
    face_weight: float = Field(default=0.0, ge=0)
    """Weight of the same regression from X_F, before the fusion (deep supervision): V_F cannot contain more of an image
    than X_F does, and X_F learns faster with a loss of its own."""
    shape_swap: float = Field(default=0.0, ge=0, le=1)
    """Share of samples with the vertices of another person of the batch. Their target has that person's shape numbers
    and no embedding, so that V_F takes shape from vertices, which sliders change, and not from images."""


class DescriptorStage:
    """Regression of attributes of a person from images and vertices."""

    def __init__(
        self,
        descriptor: Any,
        method_spec: MethodTrainingSpec,
        settings: DescriptorSettings,
        data: TrainingData,
        attributes: dict[Split, Tensor],
        seed: int,
    ) -> None:
        """Prepare the stage.

        Args:
            descriptor: The module to train.
            method_spec: Gives vertices and reference views.
            settings: Of the stage.
            data: Its references are read.
            attributes: `puppet_attributes` of the person of each row of the references, (rows, attributes).
            seed: Of the order of people.
        """
        self.descriptor, self.method_spec, self.settings, self.data = descriptor, method_spec, settings, data
        mean, std = attributes["train"].mean(dim=0), attributes["train"].std(dim=0).clamp(min=1e-6)
        self.attributes = {split: (rows - mean) / std for split, rows in attributes.items()}
        self.head, self.face_head = nn.LazyLinear(len(mean)), nn.LazyLinear(len(mean))
        self.reference_views = [torch.tensor(rows) for rows in method_spec.reference_views(data).values()]
        people = data.references["validation"].group_rows("person")
        self.validation = torch.tensor([rows[0] for rows in people.values()])
        with torch.no_grad():
            self.predict("validation", self.validation[:1])  # Lazy layers get their width.
        self.has_vertices = method_spec.extra_conditioning(data, "validation", self.validation[:1, None]) is not None
        self.embedding_width = data.references["train"]["embedding"].shape[1]
        self.is_shape_attribute = torch.arange(len(mean)) < len(SHAPE_NUMBERS)
        self.modules: dict[str, nn.Module] = {"descriptor": descriptor, "reader": self.head}
        if settings.face_weight:
            self.modules["face_reader"] = self.face_head
        self.sampler = EpochSampler(len(self.reference_views), seed)

    def predict(
        self, split: Split, reference_indices: Tensor, *, vertex_indices: Tensor | None = None, jitter: bool = False
    ) -> tuple[Tensor, Tensor]:
        """Attributes predicted from V_F, normalized as injection layers normalize it, and from X_F.

        Shapes:
            reference_indices: (batch,), into `data.references[split]`, one image each
            vertex_indices: (batch,), of the people whose vertices are used; `reference_indices` if absent
            returns: (batch, attributes), twice
        """
        crops = self.data.references[split]["crop"]
        pixels = (
            jitter_crops(crops, reference_indices[:, None]) if jitter else crops_to_references(crops[reference_indices])
        )
        vertex_indices = reference_indices if vertex_indices is None else vertex_indices
        x_f = self.descriptor.read_faces(pixels)
        vertices = self.method_spec.extra_conditioning(self.data, split, vertex_indices[:, None])
        v_f = self.descriptor.describe(x_f, vertices)
        heads = ((self.head, v_f), (self.face_head, x_f))
        from_v_f, from_x_f = (head(F.layer_norm(x, x.shape[-1:]).mean(dim=1)) for head, x in heads)
        return from_v_f, from_x_f

    def loss(self, step: int) -> tuple[Tensor, dict[str, float]]:
        distributed.seed_by_rank()
        people = [self.reference_views[i] for i in self.sampler.local_rows(step, self.settings.micro_batch).tolist()]
        indices = torch.stack([views[torch.randint(len(views), ())] for views in people])
        is_swapped = torch.rand(len(indices)) < self.settings.shape_swap * self.has_vertices
        vertex_indices = torch.where(is_swapped, indices.roll(1), indices)
        attributes = self.attributes["train"][indices]
        target, weights = attributes.clone(), torch.ones_like(attributes)
        target[:, self.is_shape_attribute] = self.attributes["train"][vertex_indices][:, self.is_shape_attribute]
        weights[is_swapped, -self.embedding_width :] = 0
        from_v_f, from_x_f = self.predict("train", indices, vertex_indices=vertex_indices, jitter=True)
        loss = ((from_v_f - target).square() * weights).sum() / weights.sum()
        metrics = {"unexplained": float(loss.detach())}
        if self.settings.face_weight:
            face_loss = F.mse_loss(from_x_f, attributes)
            metrics["unexplained_by_face"] = float(face_loss.detach())
            loss = loss + self.settings.face_weight * face_loss
        return loss, metrics

    @torch.no_grad()
    def validate(self, path: Path) -> dict[str, float]:
        """Similarity matrices of validation people, true attributes left and predicted right; white is the same."""
        target = self.attributes["validation"][self.validation]
        from_v_f, from_x_f = (
            torch.cat(parts)
            for parts in zip(*map(partial(self.predict, "validation"), self.validation.split(32)), strict=True)
        )
        similarity = torch.cat(
            [pairwise_cosine_similarity(target[:64]), pairwise_cosine_similarity(from_v_f[:64])], dim=1
        )
        gray = ((similarity + 1) * 127.5).byte().numpy()
        media.write_image(path, np.kron(np.stack([gray] * 3, axis=-1), np.ones((6, 6, 1), dtype=np.uint8)))
        metrics = {"validation_r2": r_squared(from_v_f, target)}
        if self.settings.face_weight:
            metrics["validation_face_r2"] = r_squared(from_x_f, target)
        if self.has_vertices:
            # Everyone with the vertices of the next person: how much of that shape is predicted?
            vertex_indices, shape = self.validation.roll(-1), self.is_shape_attribute
            pairs = zip(self.validation.split(32), vertex_indices.split(32), strict=True)
            predicted = torch.cat(
                [self.predict("validation", attributes, vertex_indices=other)[0] for attributes, other in pairs]
            )
            swapped = self.attributes["validation"][vertex_indices][:, shape]
            metrics["validation_swapped_shape_r2"] = r_squared(predicted[:, shape], swapped)
        return metrics


def r_squared(predicted: Tensor, target: Tensor) -> float:
    """Explained share of the variance of standardized numbers, around 0."""
    return float(1 - (predicted - target).square().sum() / target.square().sum())


def puppet_attributes(settings: PuppetSettings, references: ShardedDataset) -> Tensor:
    """For each row the attributes of its person: identity numbers, colors of skin and hair, mean embedding.

    Shapes:
        returns: (rows, attributes)
    """
    embeddings = references["embedding"].float()
    by_row = []
    for person, rows in references.group_rows("person").items():
        puppet = dataset_person(settings, person)
        numbers = np.concatenate([puppet.numbers, puppet.skin, puppet.hair_color])
        attributes = torch.cat([torch.from_numpy(numbers).float(), embeddings[rows].mean(dim=0)])
        by_row += [(row, attributes) for row in rows]
    return torch.stack([attributes for _, attributes in sorted(by_row, key=lambda pair: pair[0])])


def pairwise_cosine_similarity(rows: Tensor) -> Tensor:
    """Cosine similarity of all pairs, (rows, rows)."""
    unit = F.normalize(rows, dim=1)
    return unit @ unit.T
