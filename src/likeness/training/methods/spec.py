"""What training has to know of one method beside its loss: how it is made, and what it reads beside images.

The loop, the pairs, dropping, losses and sheets are the same for every method (`methods.py`). A method whose
`encode_tensors` reads images alone is taught by a plain `MethodTrainingSpec`; docs/add_a_method.md shows one.
"""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from torch import Tensor

from likeness.errors import ConfigError
from likeness.methods.method import Method


class MethodTrainingSpec:
    """How one method is taught."""

    def __init__(self, name: str, kind: type[Method]) -> None:
        """Say which method it is.

        Args:
            name: Of the method's weights in checkpoints, and of its lines in the log.
            kind: The class; it needs `tiny_config` and `encode_tensors`.
        """
        self.name, self.kind = name, kind

    def build(self, transformer_config: Any, changes: Mapping[str, Any]) -> Method:
        """Make the method for a base, with a recipe's changes of its defaults.

        Raises:
            ConfigError: A setting is not one of the method's.
        """
        make: Any = self.kind
        try:
            return make(**make.tiny_config(transformer_config, **changes))
        except TypeError as error:
            raise ConfigError(f"`method` has a setting that {self.kind.__name__} does not know: {error}.") from error

    def prepare(self, method: Any, data: dict[str, Any], *, is_new: bool) -> None:
        """Tell a method what it must know of the data before its first step; `data` may be added to.

        `is_new` is False where it goes on from trained weights.
        """

    def begin(self, method: Method, data: dict[str, Any], folder: Path) -> None:
        """Train what is trained before the image stage, if anything; stages lie in `folder`."""

    def extra_conditioning(self, data: dict[str, Any], source: str, faces: Tensor) -> Tensor | None:
        """What `encode_tensors` reads of a batch beside pixels.

        Shapes:
            faces: (batch, references), rows of the set of faces named by `source`
            returns: (batch, ...)
        """
        del data, source, faces
        return None

    def reference_views(self, data: dict[str, Any]) -> dict[Any, list[int]]:
        """Rows of the images of each person that references are drawn from."""
        return data["faces"].rows_of("person")
