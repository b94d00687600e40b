"""IdentityCache as Magic Mirror's layers see them (arXiv:2501.03931v1)."""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from likeness.errors import ConfigError
from likeness.identity.tokens import PersonTokens


@dataclass(frozen=True, kw_only=True, slots=True, eq=False)
class MagicMirrorIdentity(PersonTokens):
    """A person, or one for each prompt, as the transformer sees them; or several people in each prompt.

    Shapes:
        id_tokens: (batch, references * 2, identity_width): x_id, of one person after the other
        face_tokens: (batch, people * face_tokens, width): x_face, likewise
    """

    id_tokens: Tensor
    sizes: tuple[int, ...] = ()
    """How many of `id_tokens` are each person's; empty for one person."""

    @property
    def num_people(self) -> int:
        return len(self.sizes) or 1

    @property
    def people(self) -> tuple[Tensor, ...]:
        """`id_tokens` of each person."""
        return self.id_tokens.split(self.sizes or self.id_tokens.shape[1], dim=1)

    @classmethod
    def together(cls, people: "Sequence[MagicMirrorIdentity]") -> "MagicMirrorIdentity":
        """Show several people in one video. One alone stays as they are.

        Raises:
            ConfigError: One of them is several already, or they are for different numbers of prompts.
        """
        if len(people) == 1:
            return people[0]
        if any(person.sizes for person in people) or len({len(person) for person in people}) != 1:
            raise ConfigError(
                "IdentityCache are joined one by one, and all for the same prompts; "
                f"{[(person.num_people, len(person)) for person in people]} (people, prompts) were given."
            )
        return cls(
            id_tokens=torch.cat([person.id_tokens for person in people], dim=1),
            face_tokens=torch.cat([person.face_tokens for person in people], dim=1),
            sizes=tuple(person.id_tokens.shape[1] for person in people),
        )
