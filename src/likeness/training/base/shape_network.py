"""Trains the network that estimates neutral heads from head crops (`identity/face_shape/network.py`).

The heads are those of puppets (rendered synthetic people).
"""

import json
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch
import torch.nn.functional as F
from pydantic import Field
from safetensors import SafetensorError, safe_open
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from likeness import files, media
from likeness.config import Settings
from likeness.identity.face_shape.draw import draw_head
from likeness.identity.face_shape.network import ShapeNetwork, principal_shapes
from likeness.identity.face_shape.proportions import face_width, is_face
from likeness.identity.face_shape.sliders import derive_directions, save_directions
from likeness.training.data import render_puppets
from likeness.training.data.datasets import EpochSampler, ShardedDataset, load_puppets
from likeness.training.data.render_puppets import PuppetSettings, dataset_person
from likeness.training.engine import checkpoints, distributed
from likeness.training.engine.logging import TrainingLogger
from likeness.training.engine.loop import load_final_weights, save_final_weights, train
from likeness.training.engine.settings import LoopSettings


class ShapeStageSettings(LoopSettings):
    """One stage of the shape network."""

    turn_deg: float = 4.0
    """Standard deviation of the rotation of crops, as errors of landmarks cause it."""
    scale: float = 0.04
    """Standard deviation of their scale, as a share."""
    shift: float = 0.02
    """Standard deviation of their position, as a share of the side."""
    light: float = 0.12
    """Standard deviation of the brightness of each color channel, as a share."""


class ShapeRecipe(Settings):
    """A new shape network."""

    kind: Literal["shape"]
    seed: int = 0
    basis_people: int = Field(default=600, gt=1)
    """Number of heads from which the basis is computed."""
    network: dict[str, Any] = Field(default_factory=dict)
    """Changes of `ShapeNetwork`'s own sizes: `num_components`, `hidden_width`."""
    faces: PuppetSettings
    validation: PuppetSettings
    stages: tuple[ShapeStageSettings, ...] = Field(min_length=1)


class ShapeStage:
    """Regression of standardized shape coefficients."""

    def __init__(
        self,
        model: ShapeNetwork,
        settings: ShapeStageSettings,
        crops: Tensor,
        coefficients: Tensor,
        validation: tuple[Tensor, Tensor],
        seed: int,
    ) -> None:
        """Prepare a stage.

        Args:
            model: Has its basis set.
            settings: Of the stage.
            crops: (samples, size_px, size_px, 3) uint8.
            coefficients: (samples, components), of the person of each crop.
            validation: Crops and vertices of validation people.
            seed: Of the order of samples.
        """
        self.model, self.settings = model, settings
        self.crops, self.coefficients, self.validation = crops, coefficients, validation
        self.modules: dict[str, nn.Module] = {"shape": model}
        self.sampler = EpochSampler(len(crops), seed)
        # Between equal weights (small components are mostly noise) and the error of vertices (only large ones count).
        self.component_weights = model.spread.sqrt() / model.spread.sqrt().sum()

    def loss(self, step: int) -> tuple[Tensor, dict[str, float]]:
        distributed.seed_by_rank()
        rows = self.sampler.local_rows(step, self.settings.micro_batch)
        images = self.crops[rows].movedim(-1, 1).float() / 127.5 - 1
        predicted = self.model(self.augment(images).contiguous(memory_format=torch.channels_last))
        squared = (predicted - self.coefficients[rows]).square()
        return (squared * self.component_weights).sum(dim=1).mean(), {"unweighted": float(squared.detach().mean())}

    def augment(self, images: Tensor) -> Tensor:
        """Random mirroring (heads of puppets are symmetric), rotation, scale, shift and brightness."""
        settings, count = self.settings, len(images)
        angle = settings.turn_deg * torch.pi / 180 * torch.randn(count)
        scale = 1 + settings.scale * torch.randn(count)
        mirror = torch.where(torch.rand(count) < 0.5, -1.0, 1.0)
        shift = 2 * settings.shift * torch.randn(count, 2)  # The sampler's crop runs from -1 to 1.
        cosine, sine = scale * angle.cos(), scale * angle.sin()
        rows = [
            torch.stack([mirror * cosine, -sine, shift[:, 0]], -1),
            torch.stack([mirror * sine, cosine, shift[:, 1]], -1),
        ]
        grid = F.affine_grid(torch.stack(rows, dim=1), list(images.shape), align_corners=False)
        images = F.grid_sample(images, grid, padding_mode="border", align_corners=False)
        brightness = 1 + settings.light * torch.randn(count, 3, 1, 1)
        return ((images + 1) * brightness - 1).clamp(-1, 1)

    @torch.no_grad()
    def validate(self, path: Path) -> dict[str, float]:
        """Crops of validation people with the estimated and the true head; returns the errors of all of them."""
        crops, target = self.validation
        predicted = self.model.head(_predict(self.model, crops))
        rows = list(range(0, len(crops), max(1, len(crops) // 8)))[:8]
        cells = [
            [crops[row].numpy(), draw_head(predicted[row].numpy()), draw_head(target[row].numpy())] for row in rows
        ]
        pairs = [cells[first] + cells[first + 1] for first in range(0, len(cells) - 1, 2)]
        media.write_image(path, media.contact_sheet(pairs, cell_px=96))
        return vertex_errors(predicted.numpy(), target.numpy(), self.model.mean.numpy())


def vertex_errors(predicted: np.ndarray, target: np.ndarray, mean: np.ndarray) -> dict[str, float]:
    """Mean distance of vertices in units of the width of each face, also for the mean head as a baseline.

    For `head` (all vertices) and `face` (its front): `*_error`, `*_mean_shape_error` (the baseline), `*_ratio` of both.

    Args:
        predicted: (people, vertices, 3).
        target: (people, vertices, 3).
        mean: (vertices, 3), the mean head.
    """
    widths = np.array([face_width(head) for head in target])
    front = is_face()
    metrics: dict[str, float] = {}
    for name, selected in (("head", np.ones(len(front), dtype=bool)), ("face", front)):
        error, baseline = (
            (np.linalg.norm(heads - target, axis=-1)[:, selected].mean(axis=1) / widths).mean()
            for heads in (predicted, np.broadcast_to(mean, target.shape))
        )
        metrics |= {f"{name}_error": float(error), f"{name}_mean_shape_error": float(baseline)}
        metrics[f"{name}_ratio"] = float(error / baseline)
    return metrics


def puppet_head_vertices(settings: PuppetSettings, count: int | None = None) -> np.ndarray:
    """Vertices (people, vertices, 3) of the first `count` people of a data set, all if absent."""
    from likeness.puppets.people.shape import build_head

    people = range(settings.people if count is None else min(count, settings.people))
    return np.stack([build_head(dataset_person(settings, number)).vertices for number in people])


def _predict(model: ShapeNetwork, crops: Tensor) -> Tensor:
    batches = (batch.movedim(-1, 1).float() / 127.5 - 1 for batch in crops.split(64))
    return torch.cat([model(model.prepare(batch)) for batch in batches])


def _targets(model: ShapeNetwork, recipe: ShapeRecipe, folder: Path, logger: TrainingLogger) -> tuple[Tensor, Tensor]:
    """Set the basis; returns coefficients (people, components) and validation heads. They are computed once."""
    path, cache_key = folder / "targets.safetensors", _targets_cache_key(recipe, len(model.basis))
    if distributed.rank() == 0 and not _has_cache_key(path, cache_key):
        logger.info(f"building the heads of {recipe.faces.people} people")
        heads = puppet_head_vertices(recipe.faces)
        mean, basis = principal_shapes(heads[: recipe.basis_people], len(model.basis))
        model.set_basis(torch.from_numpy(mean), torch.from_numpy(basis))
        tensors = {
            "mean": model.mean,
            "basis": model.basis,
            "coefficients": model.coefficients(torch.from_numpy(heads)),
            "validation": torch.from_numpy(puppet_head_vertices(recipe.validation)),
        }
        checkpoints.check_finite(tensors.items(), f"{path} is not written")
        with files.write_atomically(path) as draft:
            save_file(tensors, draft, metadata={"origin": cache_key})
    distributed.barrier()
    tensors = load_file(path)
    model.set_basis(tensors["mean"], tensors["basis"])
    return tensors["coefficients"], tensors["validation"]


def _targets_cache_key(recipe: ShapeRecipe, components: int) -> str:
    """Everything that determines the targets, so that targets of other people are not reused."""
    sets = f"{render_puppets.digest(recipe.faces)} {render_puppets.digest(recipe.validation)}"
    return f"{sets} {recipe.basis_people} {components}"


def _has_cache_key(path: Path, cache_key: str) -> bool:
    """Whether `path` has complete targets with this cache key."""
    try:
        with safe_open(path, "pt") as file:
            return (file.metadata() or {}).get("origin") == cache_key
    except (OSError, SafetensorError):
        return False


def _person_indices(dataset: ShardedDataset) -> Tensor:
    return torch.tensor([entry["person"] for entry in dataset.metadata])


def run(recipe: ShapeRecipe, folder: Path, cache: Path) -> Path:
    """Train a shape network and write it, with its error on validation people, to `folder/model`."""
    logger = TrainingLogger(folder, "shape")
    faces, validation = (
        load_puppets(settings, cache, logger, names=("crop",)) for settings in (recipe.faces, recipe.validation)
    )
    torch.manual_seed(recipe.seed)
    model = ShapeNetwork(**recipe.network)
    coefficients, heads = _targets(model, recipe, folder, logger)
    inputs = torch.cat(
        [model.prepare(part.movedim(-1, 1).float()).round().byte() for part in faces["crop"].split(500)]
    ).movedim(1, -1)
    modules: dict[str, nn.Module] = {"shape": model}
    held_out = (validation["crop"], heads[_person_indices(validation)])
    for number, settings in enumerate(recipe.stages):
        stage_folder = folder / settings.name
        if load_final_weights(stage_folder, modules):
            continue
        stage = ShapeStage(
            model, settings, inputs, coefficients[_person_indices(faces)], held_out, recipe.seed + number
        )
        train(stage, settings, stage_folder, seed=recipe.seed + number)
        save_final_weights(stage_folder, modules)
    target = folder / "model"
    if distributed.rank() == 0:
        metrics = vertex_errors(
            model.head(_predict(model, held_out[0])).detach().numpy(), held_out[1].numpy(), model.mean.numpy()
        )
        with files.write_atomically(target, replaces_folder=True) as draft:
            model.save(draft)
            save_directions(draft, derive_directions())
            (draft / "validation.json").write_text(json.dumps(metrics, indent=1) + "\n")
        logger.info(f"shape network written to {target}: {metrics}")
    return target
