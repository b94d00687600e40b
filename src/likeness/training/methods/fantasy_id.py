"""Trains FantasyID's paper profile (arXiv:2502.13995v1) on puppets (rendered synthetic people).

The neutral heads of puppets are known exactly, but at inference a network estimates them from images. With `shape` set,
training uses the same estimates.

F1, the paper's multi-view face collection, is here the set of views of a person that references are sampled from. In
the place of CLIP's pretrained patch features, the encoder can be initialized with the convolutions of a recognizer
(`stem`).
"""

from functools import lru_cache
from itertools import pairwise
from pathlib import Path
from typing import Any, Literal, Self

import torch
from pydantic import Field, model_validator
from torch import Tensor

from likeness.errors import ConfigError, WeightsError
from likeness.faces.geometry.align import head_pose
from likeness.faces.views import NUM_VIEWS, choose_views
from likeness.identity.encoders.recognizer import Recognizer
from likeness.identity.face_shape.beside import find_vertices
from likeness.identity.face_shape.flame import read_points
from likeness.identity.face_shape.network import ShapeNetwork
from likeness.identity.mesh.published_mesh import read_mesh
from likeness.identity.mesh.puppet_topology import puppet_topology
from likeness.methods.fantasy_id import FantasyID
from likeness.training.base.shape_network import puppet_head_vertices
from likeness.training.data.datasets import ShardedDataset, crops_to_references
from likeness.training.data.pairs import Split, TrainingData, VertexLookup
from likeness.training.data.render_puppets import PuppetSettings
from likeness.training.engine.loop import load_final_weights, save_final_weights, train
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
    shape: Path | Literal["beside"] | None = None
    """Where vertices come from: the folder of the network that estimates heads from the references, as at inference;
    `beside` for files of neutral FLAME vertices beside the references (`me.ply`, `me.obj` or `me.npy` for `me.jpg`);
    the exact heads of puppets if absent."""
    mesh: Path | None = None
    """The file `transform.pkl` with the topology of FLAME's vertices at three levels, for new weights of the profile
    `paper`; tiny's mesh of puppets if absent."""
    clip: Path | None = None
    """Folder of the CLIP whose vision tower is the frozen face encoder of the profile `paper`
    (openai/clip-vit-large-patch14-336)."""
    descriptor: DescriptorSettings | None = None
    """A stage before the image stage that trains the descriptor alone; none if absent. With `start` it continues from
    those weights."""

    @model_validator(mode="after")
    def _has_one_initialization(self) -> Self:
        if self.stem and self.start:
            raise ValueError("`stem` initializes an adapter whose weights `start` brings already: name one of them")
        if self.data is not None and self.shape is None and self.method.get("has_vertices", True):
            raise ValueError(
                'files have no exact heads: set `shape` to the folder of a shape network or to "beside", or leave '
                "vertices out with `method.has_vertices = false`"
            )
        if self.data is not None and self.descriptor is not None:
            raise ValueError("the stage `descriptor` learns attributes that only puppets have: remove it")
        if self.profile == "paper" and self.start is None and (self.clip is None or self.mesh is None):
            raise ValueError("the profile `paper` needs `clip` (the frozen face encoder) and `mesh` (transform.pkl)")
        return self

    def training_spec(self) -> MethodTrainingSpec:
        return FantasyIDTrainingSpec(self)


class FantasyIDTrainingSpec(MethodTrainingSpec):
    """FantasyID reads the mesh of the person's neutral head."""

    needs_class_word = False

    def __init__(self, recipe: FantasyIDRecipe) -> None:
        super().__init__("fantasy_id", FantasyID)
        self.recipe = recipe

    def prepare(self, method: Any, data: TrainingData, *, from_scratch: bool) -> None:
        """Set where vertices come from; for new weights also the mesh, the frozen CLIP and the stem of the encoder."""
        encoder = method.descriptor.vertex_encoder
        if encoder is not None:
            data.vertices = {split: self._heads(split, dataset) for split, dataset in data.references.items()}
        if not from_scratch:
            return
        if encoder is not None:
            factors = tuple(-(-fine // coarse) for fine, coarse in pairwise(encoder.sizes))
            mesh = self.recipe.mesh
            method.set_topology(
                puppet_topology(factors=factors) if mesh is None else read_mesh(mesh, levels=len(encoder.sizes))
            )
        if self.recipe.clip:
            method.descriptor.face_encoder.fill(self.recipe.clip)
        if self.recipe.stem:
            load_stem(method.descriptor.face_encoder, self.recipe.stem)

    def train_first(self, method: Any, data: TrainingData, folder: Path) -> None:
        """Train the descriptor alone, where the recipe has such a stage; `folder` keeps its weights."""
        settings = self.recipe.descriptor
        if settings is None:
            return
        stage_folder, modules = folder / settings.name, {"descriptor": method.descriptor}
        if load_final_weights(stage_folder, modules):
            return
        attributes: dict[Split, Tensor] = {
            split: puppet_attributes(puppets, data.references[split]) for split, puppets in self._puppets().items()
        }
        stage = DescriptorStage(method.descriptor, self, settings, data, attributes, self.recipe.seed)
        train(stage, settings, stage_folder, seed=self.recipe.seed)
        save_final_weights(stage_folder, modules)

    def extra_conditioning(self, data: TrainingData, split: Split, reference_indices: Tensor) -> Tensor | None:
        """Vertices of each person: the exact head, or that of the mean estimate over the references.

        Shapes:
            reference_indices: (batch, references)
            returns: (batch, vertices, 3); None without a vertex encoder
        """
        return data.vertices[split](reference_indices) if data.vertices else None

    def _puppets(self) -> dict[Split, PuppetSettings]:
        assert self.recipe.faces is not None
        assert self.recipe.validation is not None
        return {"train": self.recipe.faces, "validation": self.recipe.validation}

    def _heads(self, split: Split, dataset: ShardedDataset) -> VertexLookup:
        shape = self.recipe.shape
        if shape is None:
            return exact_vertices(self._puppets()[split], dataset)
        return vertices_beside_media(dataset) if shape == "beside" else self._estimate_vertices(dataset, Path(shape))

    @staticmethod
    def _estimate_vertices(dataset: ShardedDataset, folder: Path) -> VertexLookup:
        network = ShapeNetwork.load(folder)

        @torch.no_grad()
        def estimate(reference_indices: Tensor) -> Tensor:
            crops = crops_to_references(dataset["crop"][reference_indices.flatten()])[:, 0]
            coefficients = network(network.prepare(crops)).unflatten(0, tuple(reference_indices.shape))
            return network.head(coefficients.mean(dim=1))

        if not dataset.is_in_memory:
            return estimate
        with torch.no_grad():
            parts = [network(network.prepare(crops_to_references(crops)[:, 0])) for crops in dataset["crop"].split(64)]
        coefficients = torch.cat(parts)
        return lambda reference_indices: network.head(coefficients[reference_indices].mean(dim=1))

    def reference_views(self, data: TrainingData) -> dict[Any, list[int]]:
        """The `views` references of each person that differ most in head pose, as indices."""
        references, count = data.references["train"], self.recipe.views
        if not references.is_in_memory:  # `data.num_views` were chosen when the files were read.
            return references.group_rows("person")
        landmarks = references["landmarks"]
        return {
            person: rows if len(rows) <= count else _most_different(rows, landmarks, count)
            for person, rows in references.group_rows("person").items()
        }


def exact_vertices(settings: PuppetSettings, dataset: ShardedDataset) -> VertexLookup:
    """The true head of the person of each row."""
    heads = torch.from_numpy(puppet_head_vertices(settings))
    people = torch.tensor([entry["person"] for entry in dataset.metadata])
    return lambda reference_indices: heads[people[reference_indices[:, 0]]]


def vertices_beside_media(dataset: ShardedDataset) -> VertexLookup:
    """The vertices in the file beside the media of each row's first reference."""

    @lru_cache(maxsize=256)
    def read(media: str) -> Tensor:
        found = find_vertices(Path(media))
        if found is None:
            raise WeightsError(
                f"No vertices lie beside {media}: a file of the same name with the suffix .ply, .obj or .npy is "
                "missing. Make it (docs/shape_sources.md), or use another `shape`."
            )
        return torch.from_numpy(read_points(found)).float()

    return lambda reference_indices: torch.stack(
        [read(dataset.metadata[index]["media"]) for index in reference_indices[:, 0].tolist()]
    )


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
