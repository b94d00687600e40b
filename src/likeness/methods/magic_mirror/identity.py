"""Tokens of a person in Magic Mirror (arXiv:2501.03931v1)."""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from likeness.errors import ConfigError
from likeness.identity.tokens import PersonTokens


@dataclass(frozen=True, kw_only=True, slots=True, eq=False)
class MagicMirrorIdentity(PersonTokens):
    """Tokens of one person, of one for each prompt, or of several people in each prompt.

    Shapes:
        id_tokens: (batch, references * 2, identity_width): x_id, people one after the other
        face_tokens: (batch, people * face_tokens, width): x_face, likewise
    """

    id_tokens: Tensor
    sizes: tuple[int, ...] = ()
    """Number of `id_tokens` of each person; empty for one person."""

    @property
    def num_people(self) -> int:
        return len(self.sizes) or 1

    @property
    def people(self) -> tuple[Tensor, ...]:
        """`id_tokens` of each person."""
        return self.id_tokens.split(self.sizes or self.id_tokens.shape[1], dim=1)

    @classmethod
    def together(cls, people: "Sequence[MagicMirrorIdentity]") -> "MagicMirrorIdentity":
        """Join several people for one video. A single one is returned unchanged.

        Raises:
            ConfigError: One of them already contains several people, or they are for different numbers of prompts.
        """
        if len(people) == 1:
            return people[0]
        if any(person.sizes for person in people) or len({len(person) for person in people}) != 1:
            raise ConfigError(
                "People are joined one by one, and all for the same prompts; "
                f"{[(person.num_people, len(person)) for person in people]} (people, prompts) were given."
            )
        return cls(
            id_tokens=torch.cat([person.id_tokens for person in people], dim=1),
            face_tokens=torch.cat([person.face_tokens for person in people], dim=1),
            sizes=tuple(person.id_tokens.shape[1] for person in people),
        )
