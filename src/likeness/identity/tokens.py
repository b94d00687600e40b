"""A person as a method's layers see them: tokens, one row for each prompt."""

from collections.abc import Sequence
from dataclasses import dataclass, fields, replace
from typing import Any, Self

import torch
from torch import Tensor

from likeness.errors import ConfigError


@dataclass(frozen=True, kw_only=True, slots=True, eq=False)
class PersonTokens:
    """A person, or one for each prompt. A method with more tokens than these adds fields of the same layout.

    Shapes:
        face_tokens: (batch, face_tokens, width): what the adapted layers read
    """

    face_tokens: Tensor

    @property
    def num_people(self) -> int:
        """In each row; a method that shows several at once says how many."""
        return 1

    def __len__(self) -> int:
        return len(self.face_tokens)

    def rows(self, index: Tensor) -> Self:
        """Those of the given rows, (rows,) int64."""
        values = {field.name: getattr(self, field.name) for field in fields(self)}
        return replace(self, **{name: value[index] for name, value in values.items() if torch.is_tensor(value)})

    def expand(self, batch: int) -> Self:
        """Repeat one person for `batch` prompts."""
        return self if len(self) == batch else self.stack([self] * batch)

    @classmethod
    def stack(cls, identities: Sequence[Self]) -> Self:
        """Join people, one for each prompt. All need the same number of reference pictures."""
        values = {field.name: [getattr(one, field.name) for one in identities] for field in fields(cls)}
        parts = {name: cls._common(each) for name, each in values.items() if not torch.is_tensor(each[0])}
        for name, tensors in values.items():
            if name in parts:
                continue
            counts = {tensor.shape[1] for tensor in tensors}
            if len(counts) > 1:
                raise ConfigError(
                    f"Identities have {sorted(counts)} tokens, but those of one batch need equally many. "
                    "Give the same number of reference pictures for each person."
                )
            parts[name] = torch.cat(tensors)
        return cls(**parts)

    @staticmethod
    def _common(values: Sequence[Any]) -> Any:
        if any(value != values[0] for value in values):
            raise ConfigError(
                f"Identities of one batch show {sorted({len(value) or 1 for value in values})} people, or other numbers "
                "of pictures of them. Give the same for each."
            )
        return values[0]
