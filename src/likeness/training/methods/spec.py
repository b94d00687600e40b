"""What training needs to know of one method: how it is built, and what it reads beside pixels.

The loop, sampling, dropping, losses and sheets are the same for every method (`stage.py`). A method whose
`encode_tensors` reads pixels alone needs only a plain `MethodTrainingSpec`; docs/add_a_method.md shows one.
"""

from collections.abc import Mapping
from pathlib import Path
from typing import Any, Literal

from torch import Tensor

from likeness.errors import ConfigError
from likeness.methods.method import Method
from likeness.training.data.datasets import ShardedDataset
from likeness.training.data.pairs import Split, TrainingData


class MethodTrainingSpec:
    """How one method is trained.

    Args:
        name: Of the method's weights in checkpoints, and of its lines in the log.
        method_class: The class; it needs `tiny_config`, for the profile `paper` also `cogvideox_5b_config`, and
            `encode_tensors`.
    """

    needs_class_word = True
    """Whether the method writes the person into the prompt's class word."""

    def __init__(self, name: str, method_class: type[Method]) -> None:
        self.name, self.method_class = name, method_class

    def build(
        self, transformer_config: Any, overrides: Mapping[str, Any], profile: Literal["tiny", "paper"] = "tiny"
    ) -> Method:
        """Build the method for a base, with a recipe's changes of the profile's settings.

        Raises:
            ConfigError: The method has no such setting.
        """
        method_class: Any = self.method_class
        try:
            config = method_class.tiny_config if profile == "tiny" else method_class.cogvideox_5b_config
            return method_class(**config(transformer_config, **overrides))
        except TypeError as error:
            raise ConfigError(
                f"`method` has a setting that {self.method_class.__name__} does not know: {error}."
            ) from error

    def prepare(self, method: Any, data: TrainingData, *, from_scratch: bool) -> None:
        """Initialize what depends on the data, before the first step; data sets may be added to `data`.

        Args:
            method: Not attached yet.
            data: The data sets.
            from_scratch: Whether the weights are new; False where training continues from trained ones.
        """

    def choose_crops(self, method: Method, references: ShardedDataset) -> ShardedDataset:
        """References from files with the `crop` that the method's encoder reads.

        It is the 224 px crop, or for larger inputs the 512 px `detail`, as at inference (`stack_head_crops`).
        """
        if references["crop"].shape[1] >= method.config["image_size_px"]:
            return references
        return references.with_tensor("crop", references["detail"])

    def train_first(self, method: Method, data: TrainingData, folder: Path) -> None:
        """Train what is trained before the image stage, if anything; stages write to `folder`."""

    def extra_conditioning(self, data: TrainingData, split: Split, reference_indices: Tensor) -> Tensor | None:
        """What `encode_tensors` reads of a batch beside pixels.

        Shapes:
            reference_indices: (batch, references), indices into `data.references[split]`
            returns: (batch, ...)
        """
        del data, split, reference_indices
        return None

    def reference_views(self, data: TrainingData) -> dict[Any, list[int]]:
        """For each person the indices into `data.references["train"]` that references are sampled from."""
        return data.references["train"].group_rows("person")
