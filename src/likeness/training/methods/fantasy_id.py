"""Trains FantasyID's paper profile (arXiv:2502.13995v1) on puppets.

The neutral heads of puppets are known exactly, but at inference a network estimates them from images. With `shape` set,
training uses the same estimates.

F1, the paper's multi-view face collection, is here the set of views of a person that references are sampled from. In
the place of CLIP's pretrained patch features, the encoder can be initialized with the convolutions of a recognizer
(`stem`).
"""

from itertools import pairwise
from pathlib import Path
from typing import Any, Literal, Self

import torch
from pydantic import Field, model_validator
from torch import Tensor

from likeness.errors import ConfigError
from likeness.faces.geometry.align import head_pose
from likeness.faces.views import NUM_VIEWS, choose_views
from likeness.identity.encoders.recognizer import Recognizer
from likeness.identity.face_shape.network import ShapeNetwork
from likeness.identity.mesh.puppet_topology import puppet_topology
from likeness.methods.fantasy_id import FantasyID
from likeness.training.base.shape_network import heads_of
from likeness.training.data.datasets import Shards, to_pixels
from likeness.training.data.pairs import Split, TrainingData, VerticesOf
from likeness.training.data.render_puppets import PuppetSettings
from likeness.training.engine.loop import load_finished, save_finished, train
from likeness.training.methods.descriptor import DescriptorSettings, DescriptorStage, puppet_attributes
from likeness.training.methods.settings import MethodRecipe
from likeness.training.methods.spec import MethodTrainingSpec
from likeness.training.methods.train import train_method


class FantasyIDRecipe(MethodRecipe):
    """FantasyID over a trained base."""

    kind: Literal["fantasy_id"]
    views: int = Field(default=NUM_VIEWS, ge=1)
    """Views of a person in the collection, those that differ most in head pose. 1 is the paper's ablation: an image is
    then its own reference, and clips of one person always have the same one."""
    stem: Path | None = None
    """Folder of a recognizer whose first convolutions initialize the encoder's stem, which needs the same widths;
    random weights if absent."""
    shape: Path | None = None
    """Folder of the network that estimates heads from the references, as at inference; the exact heads if absent."""
    descriptor: DescriptorSettings | None = None
    """A stage before the image stage that trains the descriptor alone; none if absent. With `start` it continues from
    those weights."""

    @model_validator(mode="after")
    def _has_one_initialization(self) -> Self:
        if self.stem and self.start:
            raise ValueError("`stem` initializes an adapter whose weights `start` brings already: name one of them")
        return self


class FantasyIDTrainingSpec(MethodTrainingSpec):
    """FantasyID reads the mesh of the person's neutral head."""

    def __init__(self, recipe: FantasyIDRecipe) -> None:
        super().__init__("fantasy_id", FantasyID)
        self.recipe = recipe

    def prepare(self, method: Any, data: TrainingData, *, is_new: bool) -> None:
        encoder = method.descriptor.vertex_encoder
        if encoder is not None:
            data.vertices = {
                split: self._estimate_heads(data.references[split])
                if self.recipe.shape
                else exact_heads(settings, data.references[split])
                for split, settings in self._puppets().items()
            }
        if not is_new:
            return
        if encoder is not None:
            factors = tuple(-(-fine // coarse) for fine, coarse in pairwise(encoder.sizes))
            method.set_topology(puppet_topology(factors=factors))
        if self.recipe.stem:
            load_stem(method.descriptor.face_encoder, self.recipe.stem)

    def train_first(self, method: Any, data: TrainingData, folder: Path) -> None:
        settings = self.recipe.descriptor
        if settings is None:
            return
        stage_folder, modules = folder / settings.name, {"descriptor": method.descriptor}
        if load_finished(stage_folder, modules):
            return
        attributes: dict[Split, Tensor] = {
            split: puppet_attributes(puppets, data.references[split]) for split, puppets in self._puppets().items()
        }
        stage = DescriptorStage(method.descriptor, self, settings, data, attributes, self.recipe.seed)
        train(stage, settings, stage_folder, seed=self.recipe.seed)
        save_finished(stage_folder, modules)

    def extra_conditioning(self, data: TrainingData, split: Split, rows: Tensor) -> Tensor | None:
        """Vertices (batch, vertices, 3): the exact head, or that of the mean estimate over the references."""
        return data.vertices[split](rows) if data.vertices else None

    def _puppets(self) -> dict[Split, PuppetSettings]:
        assert self.recipe.faces is not None
        assert self.recipe.validation is not None
        return {"train": self.recipe.faces, "validation": self.recipe.validation}

    def _estimate_heads(self, shards: Shards) -> VerticesOf:
        assert self.recipe.shape is not None
        network = ShapeNetwork.load(self.recipe.shape)
        with torch.no_grad():
            parts = [network(network.prepare(to_pixels(crops)[:, 0])) for crops in shards["crop"].split(64)]
        coefficients = torch.cat(parts)
        return lambda rows: network.head(coefficients[rows].mean(dim=1))

    def reference_views(self, data: TrainingData) -> dict[Any, list[int]]:
        references, count = data.references["train"], self.recipe.views
        landmarks = references["landmarks"]
        return {
            person: rows if len(rows) <= count else _most_different(rows, landmarks, count)
            for person, rows in references.rows_of("person").items()
        }


def exact_heads(settings: PuppetSettings, shards: Shards) -> VerticesOf:
    """The true head of the person of each row."""
    heads = torch.from_numpy(heads_of(settings))
    people = torch.tensor([fact["person"] for fact in shards.facts])
    return lambda rows: heads[people[rows[:, 0]]]


def load_stem(encoder: torch.nn.Module, folder: Path) -> None:
    """Initialize the stem of an encoder with the first convolutions of a recognizer.

    Args:
        encoder: A `SmallVisionTransformer`.
        folder: Of the recognizer.

    Raises:
        WeightsError: There is no recognizer.
        ConfigError: The encoder has no stem, or one of other widths.
    """
    stem, layers = getattr(encoder, "patch_embed", None), Recognizer.load(folder).layers
    if not isinstance(stem, torch.nn.Sequential):
        raise ConfigError(
            f"`stem` is {folder}, but the encoder has no stem. Set `method.encoder_stem` to the recognizer's first "
            "`widths`, or remove `stem`."
        )
    try:
        stem[:-1].load_state_dict(layers[: len(stem) - 1].state_dict())
    except RuntimeError as error:
        raise ConfigError(
            f"The convolutions of {folder} do not fit the encoder: {error}. Set `method.encoder_stem` to the first of "
            "its `widths`, or remove `stem`."
        ) from error


def _most_different(rows: list[int], landmarks: Tensor, count: int) -> list[int]:
    poses = [head_pose(landmarks[row, 0].numpy()) for row in rows]
    return [rows[index] for index in choose_views(poses, count)]


def run(recipe: FantasyIDRecipe, folder: Path, cache: Path) -> Path:
    """Train the method and write its adapter to `folder/model`."""
    return train_method(recipe, folder, cache, FantasyIDTrainingSpec(recipe))
