"""Both methods at a small size, with random data to train them on."""

from types import SimpleNamespace
from typing import Any

import numpy as np
import torch

from likeness.methods.fantasy_id import FantasyID
from likeness.training.data.datasets import ShardedDataset
from likeness.training.data.pairs import TrainingData
from likeness.training.methods.fantasy_id import FantasyIDRecipe, FantasyIDTrainingSpec
from likeness.training.methods.magic_mirror import MagicMirrorTrainingSpec
from likeness.training.methods.settings import MethodStageSettings
from likeness.training.methods.stage import MethodStage

PROMPT = "a woman img in a red sweater nods in a park"


VIT = {"encoder_width": 16, "encoder_depth": 2, "encoder_heads": 2, "face_width": 16, "head_width": 16}
MAGIC_MIRROR = VIT | {"identity_width": 16, "face_tokens": 4, "norm_width": 8, "norm_hidden_width": 8}
FANTASY_ID = VIT | {
    "abstractor_hidden_width": 16, "num_vertices": (30, 8), "vertex_widths": (16,), "fusion_depth": 1,
    "context_width": 16, "injection_width": 16,
}  # fmt: skip


def fantasy_spec(views: int = 6) -> FantasyIDTrainingSpec:
    return FantasyIDTrainingSpec(FantasyIDRecipe.model_construct(views=views))


HEADS = torch.randn(4, 30, 3, generator=torch.Generator().manual_seed(0))
TINY_RECIPE: Any = SimpleNamespace(photomaker=None, profile="tiny")
SPECS = {
    "magic_mirror": (MagicMirrorTrainingSpec(TINY_RECIPE), MAGIC_MIRROR),
    "fantasy_id": (fantasy_spec(), FANTASY_ID),
}


def build(name, frozen_pipe, topology_of):
    """Make a pipeline, a method_spec, and its method, which is not attached."""
    pipe = frozen_pipe([PROMPT])
    method_spec, sizes = SPECS[name]
    method = method_spec.build(pipe.transformer.config, sizes)
    if isinstance(method, FantasyID):
        method.set_topology(topology_of(30, 8))
    return pipe, method, method_spec


def make_data() -> TrainingData:
    facts = [{"person": row % 4, "prompt": PROMPT, "group": "woman"} for row in range(8)]
    rng = np.random.default_rng(0)
    faces = {
        "crop": torch.from_numpy(rng.integers(0, 255, (8, 64, 64, 3), np.uint8)),
        "embedding": torch.randn(8, 128),
        "landmarks": torch.randn(8, 1, 5, 2),
    }
    points = torch.tensor([[22.0, 30], [28, 30], [36, 30], [42, 30], [32, 38]])

    def targets(frames: int) -> ShardedDataset:
        tensors = {
            "latents": torch.randn(8, frames, 16, 8, 8).half(),
            "mask": torch.rand(8, frames, 8, 8).half(),
            "landmarks": points.expand(8, frames, 5, 2),
        }
        return ShardedDataset(tensors, facts)

    splits = ("train", "validation")
    return TrainingData(
        references={split: ShardedDataset(faces, facts) for split in splits},
        targets={"images": targets(1), "clips": targets(5)},
        validation_targets={"images": targets(1), "clips": targets(5)},
        vertices=dict.fromkeys(splits, lambda rows: HEADS[rows[:, 0] % 4]),
    )


def make_stage(parts, method_spec=None, **changes) -> MethodStage:
    values = {"name": "s", "steps": 1, "batch": 4, "data": "images", **changes}
    pipe, method, own, recognizer = parts
    settings = MethodStageSettings(**values)
    return MethodStage(pipe, method, method_spec or own, recognizer, settings, make_data(), 0)
