"""Trains the network that reads a puppet's neutral head from its head crops (`identity/face_shape/network.py`)."""

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
from likeness.training.data.datasets import Order, Shards, puppets
from likeness.training.data.render_puppets import PuppetSettings, person_of
from likeness.training.engine import checkpoints, distributed
from likeness.training.engine.logging import Journal
from likeness.training.engine.loop import LoopSettings, finish, finished, train


class ShapeStageSettings(LoopSettings):
    """The one stage."""

    turn_deg: float = 4.0
    """Spread of the turn by which crops differ from what landmarks without error would give."""
    scale: float = 0.04
    """Spread of their size, as a share."""
    shift: float = 0.02
    """Spread of their place, in shares of the side."""
    light: float = 0.12
    """Spread of each color's brightness, as a share."""


class ShapeRecipe(Settings):
    """A shape network from nothing."""

    kind: Literal["shape"]
    seed: int = 0
    basis_people: int = Field(default=600, gt=1)
    """People whose heads the basis is made of."""
    network: dict[str, Any] = Field(default_factory=dict)
    """Changes of `ShapeNetwork`'s own sizes: `num_components`, `hidden_width`."""
    faces: PuppetSettings
    validation: PuppetSettings
    stages: tuple[ShapeStageSettings, ...] = Field(min_length=1)


class ShapeStage:
    """Regression of standardized coefficients."""

    def __init__(
        self,
        model: ShapeNetwork,
        settings: ShapeStageSettings,
        crops: Tensor,
        wanted: Tensor,
        validation: tuple[Tensor, Tensor],
        seed: int,
    ) -> None:
        """Prepare a stage.

        Args:
            model: What learns, with its basis set.
            settings: How.
            crops: (samples, size_px, size_px, 3) uint8.
            wanted: (samples, components), the coefficients of who is shown.
            validation: Crops and vertices of people whom no step sees.
            seed: Of the order of samples.
        """
        self.model, self.settings = model, settings
        self.crops, self.wanted, self.validation = crops, wanted, validation
        self.modules: dict[str, nn.Module] = {"shape": model}
        self.order = Order(len(crops), seed)
        # Between each component alike (small ones are mostly noise) and vertices alike (large ones are all that counts).
        self.weights = model.spread.sqrt() / model.spread.sqrt().sum()

    def loss(self, step: int) -> tuple[Tensor, dict[str, float]]:
        rows = self.order.rows(step, self.settings.batch)
        images = self.crops[rows].movedim(-1, 1).float() / 127.5 - 1
        seen = self.model(self.vary(images).contiguous(memory_format=torch.channels_last))
        squared = (seen - self.wanted[rows]).square()
        return (squared * self.weights).sum(dim=1).mean(), {"unweighted": float(squared.detach().mean())}

    def vary(self, images: Tensor) -> Tensor:
        """Mirror half of them (puppets' heads are symmetric), and frame and light all of them a little differently."""
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
        light = 1 + settings.light * torch.randn(count, 3, 1, 1)
        return ((images + 1) * light - 1).clamp(-1, 1)

    @torch.no_grad()
    def sheet(self, path: Path) -> dict[str, float]:
        """Unseen people's crops, their heads as read and as they are; the error of all of them."""
        crops, true = self.validation
        read = self.model.head(_read(self.model, crops))
        rows = list(range(0, len(crops), max(1, len(crops) // 8)))[:8]
        cells = [[crops[row].numpy(), draw_head(read[row].numpy()), draw_head(true[row].numpy())] for row in rows]
        halves = [cells[first] + cells[first + 1] for first in range(0, len(cells) - 1, 2)]
        media.write_image(path, media.contact_sheet(halves, cell_px=96))
        return errors(read.numpy(), true.numpy(), self.model.mean.numpy())


def errors(read: np.ndarray, true: np.ndarray, mean: np.ndarray) -> dict[str, float]:
    """Mean distance of vertices in units of each face's own width, beside the mean head's.

    Args:
        read: (people, vertices, 3), as read from images.
        true: The same people as they are.
        mean: (vertices, 3), the baseline.
    """
    widths = np.array([face_width(head) for head in true])
    front = is_face()
    figures: dict[str, float] = {}
    for name, chosen in (("head", np.ones(len(front), dtype=bool)), ("face", front)):
        ours, theirs = (
            (np.linalg.norm(heads - true, axis=-1)[:, chosen].mean(axis=1) / widths).mean()
            for heads in (read, np.broadcast_to(mean, true.shape))
        )
        figures |= {f"{name}_error": float(ours), f"{name}_mean_shape_error": float(theirs)}
        figures[f"{name}_ratio"] = float(ours / theirs)
    return figures


def heads_of(settings: PuppetSettings, count: int | None = None) -> np.ndarray:
    """Vertices (people, vertices, 3) of the people whom `render` numbers so; `count` of them if given."""
    from likeness.puppets.people.shape import build_head

    people = range(settings.people if count is None else min(count, settings.people))
    return np.stack([build_head(person_of(settings, who)).vertices for who in people])


def _read(model: ShapeNetwork, crops: Tensor) -> Tensor:
    parts = (part.movedim(-1, 1).float() / 127.5 - 1 for part in crops.split(64))
    return torch.cat([model(model.prepare(part)) for part in parts])


def _targets(model: ShapeNetwork, recipe: ShapeRecipe, folder: Path, journal: Journal) -> tuple[Tensor, Tensor]:
    """Set the basis, and give coefficients (people, components) and validation heads; computed once, in minutes."""
    path, origin = folder / "targets.safetensors", _origin(recipe, len(model.basis))
    if distributed.rank() == 0 and not _is_of(path, origin):
        journal.say(f"shaping the heads of {recipe.faces.people} people")
        seen = heads_of(recipe.faces)
        mean, basis = principal_shapes(seen[: recipe.basis_people], len(model.basis))
        model.set_basis(torch.from_numpy(mean), torch.from_numpy(basis))
        tensors = {
            "mean": model.mean,
            "basis": model.basis,
            "coefficients": model.coefficients(torch.from_numpy(seen)),
            "validation": torch.from_numpy(heads_of(recipe.validation)),
        }
        checkpoints.check_finite(tensors.items(), f"{path} is not written")
        with files.write_atomically(path) as draft:
            save_file(tensors, draft, metadata={"origin": origin})
    distributed.wait()
    tensors = load_file(path)
    model.set_basis(tensors["mean"], tensors["basis"])
    return tensors["coefficients"], tensors["validation"]


def _origin(recipe: ShapeRecipe, components: int) -> str:
    """What targets follow from, so that those of other people are not taken for these."""
    sets = f"{render_puppets.digest(recipe.faces)} {render_puppets.digest(recipe.validation)}"
    return f"{sets} {recipe.basis_people} {components}"


def _is_of(path: Path, origin: str) -> bool:
    """Are there whole targets of this origin?"""
    try:
        with safe_open(path, "pt") as file:
            return (file.metadata() or {}).get("origin") == origin
    except (OSError, SafetensorError):
        return False


def _people(shards: Shards) -> Tensor:
    return torch.tensor([fact["person"] for fact in shards.facts])


def run(recipe: ShapeRecipe, folder: Path, cache: Path) -> Path:
    """Train a shape network and write it, with its error on validation people, to `folder/model`."""
    journal = Journal(folder, "shape")
    faces, validation = (
        puppets(settings, cache, journal, names=("crop",)) for settings in (recipe.faces, recipe.validation)
    )
    torch.manual_seed(recipe.seed)
    model = ShapeNetwork(**recipe.network)
    coefficients, heads = _targets(model, recipe, folder, journal)
    small = torch.cat(
        [model.prepare(part.movedim(-1, 1).float()).round().byte() for part in faces["crop"].split(500)]
    ).movedim(1, -1)
    modules: dict[str, nn.Module] = {"shape": model}
    held_out = (validation["crop"], heads[_people(validation)])
    for number, settings in enumerate(recipe.stages):
        place = folder / settings.name
        if finished(place, modules):
            continue
        stage = ShapeStage(model, settings, small, coefficients[_people(faces)], held_out, recipe.seed + number)
        train(stage, settings, place, seed=recipe.seed + number)
        finish(place, modules)
    target = folder / "model"
    if distributed.rank() == 0:
        figures = errors(
            model.head(_read(model, held_out[0])).detach().numpy(), held_out[1].numpy(), model.mean.numpy()
        )
        with files.write_atomically(target, replaces_folder=True) as draft:
            model.save(draft)
            save_directions(draft, derive_directions())
            (draft / "validation.json").write_text(json.dumps(figures, indent=1) + "\n")
        journal.say(f"shape network written to {target}: {figures}")
    return target
