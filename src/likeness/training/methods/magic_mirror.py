"""Trains Magic Mirror (arXiv:2501.03931v1), as the paper does: an image stage, then a video stage."""

from pathlib import Path
from typing import Any, Literal, Self

from pydantic import model_validator
from torch import Tensor

from likeness.errors import ConfigError
from likeness.identity.encoders.photomaker import fill_from_photomaker
from likeness.methods.magic_mirror import MagicMirror
from likeness.training.data.datasets import ShardedDataset
from likeness.training.data.pairs import Split, TrainingData
from likeness.training.methods.settings import MethodRecipe
from likeness.training.methods.spec import MethodTrainingSpec
from likeness.training.methods.train import train_method


class MagicMirrorRecipe(MethodRecipe):
    """Magic Mirror over a trained base."""

    kind: Literal["magic_mirror"]
    photomaker: Path | None = None
    """The file `photomaker-v2.bin`, for the profile `paper`: F_face and tau_id, which stay frozen."""

    @model_validator(mode="after")
    def _has_encoders(self) -> Self:
        if self.profile == "paper" and self.start is None and self.photomaker is None:
            raise ValueError(
                "the profile `paper` has F_face and tau_id of PhotoMaker-V2, which are not trained: set `photomaker` "
                "to the file photomaker-v2.bin (`likeness models pull photomaker-v2`)"
            )
        return self

    def training_spec(self) -> MethodTrainingSpec:
        return MagicMirrorTrainingSpec(self)


class MagicMirrorTrainingSpec(MethodTrainingSpec):
    """Magic Mirror reads the embedding of every reference."""

    def __init__(self, recipe: Any) -> None:
        super().__init__("magic_mirror", MagicMirror)
        self.recipe = recipe

    def choose_crops(self, method: Any, references: ShardedDataset) -> ShardedDataset:
        """The whole picture for an F_face that was trained on whole pictures, else as for every method."""
        if method.config["encoder_input"] == "whole_image":
            return references.with_tensor("crop", references["whole_image"])
        return super().choose_crops(method, references)

    def prepare(self, method: Any, data: TrainingData, *, from_scratch: bool) -> None:
        """Load PhotoMaker-V2's encoders, or standardize embeddings by their mean and spread over the training set.

        Raises:
            ConfigError: The encoder reads whole pictures, and the references are puppets' head crops.
        """
        if method.config["encoder_input"] == "whole_image" and self.recipe.data is None:
            raise ConfigError(
                "`encoder_input` is 'whole_image', and puppets are rendered as head crops alone. Set "
                '`method.encoder_input` to "head_crop".'
            )
        if not from_scratch:
            return
        if self.recipe.photomaker is not None:
            fill_from_photomaker(method, self.recipe.photomaker)
        else:  # PhotoMaker-V2's tau_id takes raw embeddings; a new one learns faster from standardized ones.
            method.standardize_embeddings(data.references["train"].statistics_sample("embedding"))

    def extra_conditioning(self, data: TrainingData, split: Split, reference_indices: Tensor) -> Tensor:
        """The recognizer's embedding of every reference.

        Shapes:
            reference_indices: (batch, references)
            returns: (batch, references, embedding_width)
        """
        return data.references[split]["embedding"][reference_indices]


def run(recipe: MagicMirrorRecipe, folder: Path, cache: Path) -> Path:
    """Train the method and write its adapter to `folder/model`."""
    return train_method(recipe, folder, cache, MagicMirrorTrainingSpec(recipe))
