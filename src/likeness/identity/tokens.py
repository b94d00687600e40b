"""Identity tokens: the output of a method's encoders and the input of its adapter layers, one row per prompt."""

from collections.abc import Sequence
from dataclasses import dataclass, fields, replace
from typing import Any, Self

import torch
from torch import Tensor

from likeness.errors import ConfigError


@dataclass(frozen=True, kw_only=True, slots=True, eq=False)
class PersonTokens:
    """Tokens of one person, or of one person per prompt. Methods with more kinds of tokens add fields of this layout.

    Shapes:
        face_tokens: (batch, face_tokens, width), read by the adapter layers
    """

    face_tokens: Tensor

    @property
    def num_people(self) -> int:
        """People in each row; methods with several people per prompt override it."""
        return 1

    def __len__(self) -> int:
        return len(self.face_tokens)

    def rows(self, index: Tensor) -> Self:
        """Select rows by index, (rows,) int64."""
        values = {field.name: getattr(self, field.name) for field in fields(self)}
        return replace(self, **{name: value[index] for name, value in values.items() if torch.is_tensor(value)})

    def expand(self, batch: int) -> Self:
        """Repeat the tokens of one person for `batch` prompts."""
        return self if len(self) == batch else self.stack([self] * batch)

    @classmethod
    def stack(cls, identities: Sequence[Self]) -> Self:
        """Concatenate the tokens of several people, one per prompt; all need the same number of references."""
        values = {field.name: [getattr(identity, field.name) for identity in identities] for field in fields(cls)}
        merged = {
            name: cls._require_equal(field_values)
            for name, field_values in values.items()
            if not torch.is_tensor(field_values[0])
        }
        for name, tensors in values.items():
            if name in merged:
                continue
            counts = {tensor.shape[1] for tensor in tensors}
            if len(counts) > 1:
                raise ConfigError(
                    f"Identities have {sorted(counts)} tokens, but those of one batch need equally many. "
                    "Give the same number of reference pictures for each person."
                )
            merged[name] = torch.cat(tensors)
        return cls(**merged)

    @staticmethod
    def _require_equal(values: Sequence[Any]) -> Any:
        if any(value != values[0] for value in values):
            raise ConfigError(
                f"Identities of one batch have {sorted({len(value) or 1 for value in values})} people, or different "
                "numbers of pictures. Give the same number for each prompt."
            )
        return values[0]
