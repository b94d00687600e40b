"""A person as Magic Mirror's layers see them (arXiv:2501.03931v1)."""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from likeness.errors import ConfigError


@dataclass(frozen=True, kw_only=True, slots=True, eq=False)
class MagicMirrorIdentity:
    """A person, or one for each prompt, as the transformer sees them.

    Shapes:
        id_tokens: (batch, references * 2, identity_width): x_id
        face_tokens: (batch, face_tokens, width): x_face
    """

    id_tokens: Tensor
    face_tokens: Tensor

    def __len__(self) -> int:
        return len(self.id_tokens)

    def expand(self, batch: int) -> "MagicMirrorIdentity":
        """Repeat one person for `batch` prompts."""
        return self if len(self) == batch else MagicMirrorIdentity.stack([self] * batch)

    @classmethod
    def stack(cls, identities: Sequence["MagicMirrorIdentity"]) -> "MagicMirrorIdentity":
        """Join people, one for each prompt. All need the same number of reference pictures."""
        counts = {identity.id_tokens.shape[1] for identity in identities}
        if len(counts) > 1:
            raise ConfigError(
                f"Identities have {sorted(counts)} tokens, but those of one batch need equally many. "
                "Give the same number of reference pictures for each person."
            )
        return cls(
            id_tokens=torch.cat([identity.id_tokens for identity in identities]),
            face_tokens=torch.cat([identity.face_tokens for identity in identities]),
        )
