"""Trains Magic Mirror (arXiv:2501.03931v1), as the paper does: an image stage, then a video stage."""

from pathlib import Path
from typing import Any, Literal

from torch import Tensor

from likeness.errors import ConfigError
from likeness.methods.magic_mirror import MagicMirror
from likeness.training.data.pairs import Split, TrainingData
from likeness.training.methods.settings import MethodRecipe
from likeness.training.methods.spec import MethodTrainingSpec
from likeness.training.methods.train import train_method


class MagicMirrorRecipe(MethodRecipe):
    """Magic Mirror over a trained base."""

    kind: Literal["magic_mirror"]


class MagicMirrorTrainingSpec(MethodTrainingSpec):
    """Magic Mirror reads the embedding of every reference."""

    def __init__(self) -> None:
        super().__init__("magic_mirror", MagicMirror)

    def prepare(self, method: Any, data: TrainingData, *, is_new: bool) -> None:
        if method.encoder_input != "head_crop":
            raise ConfigError(
                f"`encoder_input` is {method.encoder_input!r}, and the training data hold head crops alone. Set "
                '`encoder_input` to "head_crop".'
            )
        if is_new:
            method.standardize_embeddings(data.references["train"]["embedding"])

    def extra_conditioning(self, data: TrainingData, split: Split, rows: Tensor) -> Tensor:
        return data.references[split]["embedding"][rows]


def run(recipe: MagicMirrorRecipe, folder: Path, cache: Path) -> Path:
    """Train the method and write its adapter to `folder/model`."""
    return train_method(recipe, folder, cache, MagicMirrorTrainingSpec())
