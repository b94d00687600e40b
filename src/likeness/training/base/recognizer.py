"""Distills dlib's face recognizer into a small differentiable network, on puppets (rendered synthetic people)."""

import json
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch
import torch.nn.functional as F
from pydantic import Field
from torch import Tensor, nn

from likeness import files, media
from likeness.config import Settings
from likeness.identity.encoders.recognizer import Recognizer, align
from likeness.training.data.datasets import EpochSampler, ShardedDataset, load_puppets, to_float, to_uint8
from likeness.training.data.render_puppets import PuppetSettings
from likeness.training.engine import distributed
from likeness.training.engine.logging import TrainingLogger
from likeness.training.engine.loop import load_final_weights, save_final_weights, train
from likeness.training.engine.settings import LoopSettings


class RecognizerStageSettings(LoopSettings):
    """One stage of the recognizer."""

    frame_px: int = Field(default=64, gt=0)
    """Images are reduced to this size, that of generated frames."""
    jitter_px: float = 0.7
    """Standard deviation of the noise on landmarks."""
    blur: float = Field(default=0.3, ge=0, le=1)
    """Share of samples that are blurred, for robustness to reconstructions."""


class RecognizerRecipe(Settings):
    """A new recognizer."""

    kind: Literal["recognizer"]
    seed: int = 0
    widths: tuple[int, ...] = (24, 48, 96, 160)
    """Channels at 1/2, 1/4, ... of the resolution."""
    faces: PuppetSettings
    validation: PuppetSettings
    stages: tuple[RecognizerStageSettings, ...] = Field(min_length=1)


class RecognizerStage:
    """Regression of standardized embeddings."""

    def __init__(
        self, model: Recognizer, settings: RecognizerStageSettings, data: dict[str, ShardedDataset], seed: int
    ) -> None:
        self.model, self.settings, self.data = model, settings, data
        self.modules: dict[str, nn.Module] = {"recognizer": model}
        self.sampler = EpochSampler(len(data["faces"]), seed)

    def loss(self, step: int) -> tuple[Tensor, dict[str, float]]:
        distributed.seed_by_rank()
        faces = self.data["faces"]
        rows = self.sampler.local_rows(step, self.settings.micro_batch)
        images, points = read_downsampled(faces, rows, self.settings.frame_px)
        points = points + self.settings.jitter_px * torch.randn_like(points)
        is_blurred = torch.rand(len(rows), 1, 1, 1) < self.settings.blur
        images = torch.where(is_blurred, _blur(images), images)
        brightness = 1 + 0.08 * torch.randn(len(rows), 3, 1, 1)
        images = ((images + 1) * brightness - 1).clamp(-1, 1)
        predicted = self.model(align(images, points, self.model.size_px).contiguous(memory_format=torch.channels_last))
        target = self.model.standardize(faces["embedding"][rows])
        squared = F.mse_loss(predicted, target)
        cosine = F.cosine_similarity(predicted, target).mean()
        return squared + (1 - cosine), {"cosine": float(cosine.detach())}

    @torch.no_grad()
    def validate(self, path: Path) -> dict[str, float]:
        """The aligned input crops; returns the agreement with dlib on validation people."""
        validation = self.data["validation"]
        images, points = read_downsampled(validation, torch.arange(len(validation)), self.settings.frame_px)
        crops = align(images[:32], points[:32], self.model.size_px)
        media.write_image(path, media.contact_sheet([list(to_uint8(row)) for row in crops.split(8)], cell_px=96))
        predicted = torch.cat([self.model.embed(p, q) for p, q in zip(images.split(64), points.split(64), strict=True)])
        return compare_with_dlib(predicted, validation["embedding"], [entry["person"] for entry in validation.metadata])


def read_downsampled(faces: ShardedDataset, rows: Tensor, size_px: int) -> tuple[Tensor, Tensor]:
    """First frames of these rows reduced to (rows, 3, size_px, size_px), and landmarks (rows, 5, 2) in their pixels."""
    images, points = to_float(faces["frames"][rows])[:, 0], faces["landmarks"][rows][:, 0]
    factor = images.shape[-1] // size_px
    return F.avg_pool2d(images, factor), (points + 0.5) / factor - 0.5


def compare_with_dlib(predicted: Tensor, target: Tensor, people: list[Any]) -> dict[str, float]:
    """Agreement of embeddings with dlib's, by name of the metric.

    `r2` is the explained variance, `cosine` the mean cosine, `distance_correlation` the correlation of distances of all
    pairs, `auc` and `dlib_auc` the AUC of verification.

    Shapes:
        predicted, target: (images, embedding_width), the network's and dlib's

    Args:
        predicted: Embeddings of the network.
        target: Embeddings of dlib.
        people: The person of each image.
    """
    residual = (predicted - target).square().sum() / (target - target.mean(dim=0)).square().sum()
    first, second = torch.triu_indices(len(predicted), len(predicted), offset=1)
    distances, dlib_distances = ((x[first] - x[second]).norm(dim=1).numpy() for x in (predicted, target))
    is_same_person = np.array([people[a] == people[b] for a, b in zip(first.tolist(), second.tolist(), strict=True)])
    return {
        "r2": float(1 - residual),
        "cosine": float(F.cosine_similarity(predicted, target).mean()),
        "distance_correlation": float(np.corrcoef(distances, dlib_distances)[0, 1]),
        "auc": verification_auc(distances, is_same_person),
        "dlib_auc": verification_auc(dlib_distances, is_same_person),
    }


def verification_auc(distances: np.ndarray, is_same_person: np.ndarray) -> float:
    """AUC: probability that two images of one person are closer than two of different people."""
    ranks = np.argsort(np.argsort(distances)) + 1
    num_same, num_other = is_same_person.sum(), (~is_same_person).sum()
    above = ranks[~is_same_person].sum() - num_other * (num_other + 1) / 2
    return float(above / (num_same * num_other))


def _blur(images: Tensor) -> Tensor:
    return F.avg_pool2d(F.pad(images, (1, 1, 1, 1), mode="replicate"), 3, stride=1)


def run(recipe: RecognizerRecipe, folder: Path, cache: Path) -> Path:
    """Train a recognizer and write it, with its agreement with dlib, to `folder/model`."""
    logger = TrainingLogger(folder, "recognizer")
    data = {name: load_puppets(getattr(recipe, name), cache, logger) for name in ("faces", "validation")}
    torch.manual_seed(recipe.seed)
    model = Recognizer(data["faces"]["embedding"].shape[1], recipe.widths)
    model.fit_standardization(data["faces"]["embedding"])
    modules: dict[str, nn.Module] = {"recognizer": model}
    for number, settings in enumerate(recipe.stages):
        stage_folder = folder / settings.name
        if load_final_weights(stage_folder, modules):
            continue
        train(
            RecognizerStage(model, settings, data, recipe.seed + number),
            settings,
            stage_folder,
            seed=recipe.seed + number,
        )
        save_final_weights(stage_folder, modules)
    target = folder / "model"
    if distributed.rank() == 0:
        metrics = RecognizerStage(model, recipe.stages[-1], data, 0).validate(target.parent / "validation.png")
        with files.write_atomically(target, replaces_folder=True) as draft:
            model.save(draft)
            (draft / "agreement.json").write_text(json.dumps(metrics, indent=1) + "\n")
        logger.info(f"recognizer written to {target}: {metrics}")
    return target
