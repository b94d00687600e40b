"""Trains Magic Mirror (arXiv:2501.03931v1), as the paper does: an image stage, then a video stage."""

from pathlib import Path
from typing import Any, Literal

from torch import Tensor

from likeness.methods.magic_mirror import MagicMirror
from likeness.training.lessons import Lesson
from likeness.training.method_settings import MethodRecipe
from likeness.training.methods import train_method


class MirrorRecipe(MethodRecipe):
    """Magic Mirror over a trained base."""

    kind: Literal["mirror"]


class MirrorLesson(Lesson):
    """Magic Mirror reads the embedding of every picture."""

    def __init__(self) -> None:
        super().__init__("mirror", MagicMirror)

    def prepare(self, method: Any, data: dict[str, Any], *, is_new: bool) -> None:
        if is_new:
            method.standardize_embeddings(data["faces"]["embedding"])

    def traits(self, data: dict[str, Any], source: str, faces: Tensor) -> Tensor:
        return data[source]["embedding"][faces]


def run(recipe: MirrorRecipe, folder: Path, cache: Path) -> Path:
    """Train the method and write its adapter to `folder/model`."""
    return train_method(recipe, folder, cache, MirrorLesson())
