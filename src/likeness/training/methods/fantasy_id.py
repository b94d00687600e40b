"""Trains FantasyID's paper profile (arXiv:2502.13995v1) on puppets.

Their neutral heads are known exactly, but when videos are made a network reads them from images, so that is what
`shape` trains with: training and use then see the same heads.

F1, the multi-view face collection, is here the set of looks of a person that references are drawn from. What the paper
takes from CLIP, patch features that know faces already, begins here as the convolutions of a recognizer (`stem`).
"""

from collections.abc import Callable
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
from likeness.training.data.render_puppets import PuppetSettings
from likeness.training.engine.loop import finish, finished, train
from likeness.training.methods.descriptor import DescriptorSettings, DescriptorStage, known_of_puppets
from likeness.training.methods.settings import MethodRecipe
from likeness.training.methods.spec import MethodTrainingSpec
from likeness.training.methods.train import train_method

Heads = Callable[[Tensor], Tensor]
"""From rows of references (batch, references) to vertices (batch, vertices, 3)."""


class FantasyIDRecipe(MethodRecipe):
    """FantasyID over a trained base."""

    kind: Literal["fantasy_id"]
    views: int = Field(default=NUM_VIEWS, ge=1)
    """Looks of a person in the collection, those that differ most in head pose. 1 is the paper's ablation: images then
    are their own reference, and clips always have the same one."""
    stem: Path | None = None
    """Folder of a recognizer whose first convolutions the encoder's stem, of the same widths, begins as; from nothing if
    absent."""
    shape: Path | None = None
    """Folder of the network that reads heads from the references, as `generate` has it; the exact heads if absent."""
    descriptor: DescriptorSettings | None = None
    """The stage before the image stage, in which the descriptor alone learns to read a person; none if absent. Where
    `start` brings one, it goes on from there."""

    @model_validator(mode="after")
    def _begins_once(self) -> Self:
        if self.stem and self.start:
            raise ValueError("`stem` begins an adapter that `start` brings already: name one of them")
        return self


class FantasyIDTrainingSpec(MethodTrainingSpec):
    """FantasyID reads the neutral head of the person."""

    def __init__(self, recipe: FantasyIDRecipe) -> None:
        super().__init__("fantasy_id", FantasyID)
        self.recipe = recipe

    def prepare(self, method: Any, data: dict[str, Any], *, is_new: bool) -> None:
        encoder = method.descriptor.vertex_encoder
        if encoder is not None:
            sets = {"faces": self.recipe.faces, "validation": self.recipe.validation}
            data["heads"] = {
                name: self._read_heads(data[name]) if self.recipe.shape else exact_heads(settings, data[name])
                for name, settings in sets.items()
            }
        if not is_new:
            return
        if encoder is not None:
            factors = tuple(-(-fine // coarse) for fine, coarse in pairwise(encoder.sizes))
            method.set_topology(puppet_topology(factors=factors))
        if self.recipe.stem:
            load_stem(method.descriptor.face_encoder, self.recipe.stem)

    def begin(self, method: Any, data: dict[str, Any], folder: Path) -> None:
        settings = self.recipe.descriptor
        if settings is None:
            return
        place, modules = folder / settings.name, {"descriptor": method.descriptor}
        if finished(place, modules):
            return
        sets = {"faces": self.recipe.faces, "validation": self.recipe.validation}
        known = {name: known_of_puppets(puppets, data[name]) for name, puppets in sets.items()}
        stage = DescriptorStage(method.descriptor, self, settings, data, known, self.recipe.seed)
        train(stage, settings, place, seed=self.recipe.seed)
        finish(place, modules)

    def extra_conditioning(self, data: dict[str, Any], source: str, faces: Tensor) -> Tensor | None:
        """Vertices (batch, vertices, 3): references of one person share one head, or the mean of what each tells of it."""
        return data["heads"][source](faces) if "heads" in data else None

    def _read_heads(self, shards: Shards) -> Heads:
        assert self.recipe.shape is not None
        network = ShapeNetwork.load(self.recipe.shape)
        with torch.no_grad():
            told = torch.cat([network(network.prepare(to_pixels(part)[:, 0])) for part in shards["crop"].split(64)])
        return lambda faces: network.head(told[faces].mean(dim=1))

    def reference_views(self, data: dict[str, Any]) -> dict[Any, list[int]]:
        looks = data["faces"].rows_of("person")
        landmarks, count = data["faces"]["landmarks"], self.recipe.views
        return {
            person: rows if len(rows) <= count else _most_different(rows, landmarks, count)
            for person, rows in looks.items()
        }


def exact_heads(settings: PuppetSettings, shards: Shards) -> Heads:
    """The true head of whom each row shows."""
    heads = torch.from_numpy(heads_of(settings))
    people = torch.tensor([fact["person"] for fact in shards.facts])
    return lambda faces: heads[people[faces[:, 0]]]


def load_stem(encoder: torch.nn.Module, folder: Path) -> None:
    """Begin with the first convolutions of a recognizer.

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
            f"`stem` names {folder}, and the encoder has none. Set `method.encoder_stem` to the recognizer's first `widths`, or "
            "name no `stem`."
        )
    try:
        stem[:-1].load_state_dict(layers[: len(stem) - 1].state_dict())
    except RuntimeError as error:
        raise ConfigError(
            f"The convolutions of {folder} do not fit the encoder: {error}. Set `method.encoder_stem` to the first of its "
            "`widths`, or name no `stem`."
        ) from error


def _most_different(rows: list[int], landmarks: Tensor, count: int) -> list[int]:
    poses = [head_pose(landmarks[row, 0].numpy()) for row in rows]
    return [rows[place] for place in choose_views(poses, count)]


def run(recipe: FantasyIDRecipe, folder: Path, cache: Path) -> Path:
    """Train the method and write its adapter to `folder/model`."""
    return train_method(recipe, folder, cache, FantasyIDTrainingSpec(recipe))
