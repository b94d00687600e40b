"""A person as a method's layers see them: tokens, one row for each prompt."""

from collections.abc import Sequence
from dataclasses import dataclass, fields
from typing import Self

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

    def __len__(self) -> int:
        return len(self.face_tokens)

    def expand(self, batch: int) -> Self:
        """Repeat one person for `batch` prompts."""
        return self if len(self) == batch else self.stack([self] * batch)

    @classmethod
    def stack(cls, identities: Sequence[Self]) -> Self:
        """Join people, one for each prompt. All need the same number of reference pictures."""
        parts = {}
        for field in fields(cls):
            tensors = [getattr(identity, field.name) for identity in identities]
            counts = {tensor.shape[1] for tensor in tensors}
            if len(counts) > 1:
                raise ConfigError(
                    f"Identities have {sorted(counts)} tokens, but those of one batch need equally many. "
                    "Give the same number of reference pictures for each person."
                )
            parts[field.name] = torch.cat(tensors)
        return cls(**parts)
