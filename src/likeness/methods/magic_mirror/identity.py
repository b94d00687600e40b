"""A person as Magic Mirror's layers see them (arXiv:2501.03931v1), and what is on while they are generated."""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from likeness.adapters.controls import IdentityControls
from likeness.adapters.hoist import Acting, Hoist, Steps
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


@dataclass(kw_only=True, slots=True)
class Session:
    """What is on while a `conditioned` or `identity` context is open."""

    identity: MagicMirrorIdentity
    active: Tensor | None
    controls: IdentityControls
    acting: Acting
    """Numbers of the adapted blocks that act; None for all."""
    num_prompts: int
    hoist: Hoist | None = None
    """What sampling keeps of this identity; None where every row has a switch of its own, as in training."""
    told: tuple[Tensor | None, Tensor] | None = None
    """The projected x_id and x_face of every prompt, kept while sampling."""
    prompts: tuple[Tensor, Tensor] | None = None
    """The last prompts' embeddings with the person in them, and without, for the steps outside the window."""

    def without_person(self, text: Tensor) -> Tensor:
        """Give the text of a forward pass as it is without the person, where `prompt` made it.

        Prompts that the caller encoded come back as they are: nobody knows where the person is in them.
        """
        if self.prompts is None:
            return text
        fused, plain = (embeds.to(text) for embeds in self.prompts)
        rows = len(text) - len(fused)  # under guidance the conditional rows are the last
        if rows < 0 or not torch.equal(text[rows:], fused):
            return text
        return torch.cat([text[:rows], plain])

    def acting_in(self, step: int, num_steps: int) -> Acting:
        """Blocks that act in one step of a pipeline's call."""
        return self.acting if self.controls.is_open(step, num_steps) else frozenset()

    def steps(self, timesteps: Sequence[float]) -> Steps:
        """Every step of a pipeline's call, with the blocks that act in it."""
        return [(float(time), self.acting_in(step, len(timesteps))) for step, time in enumerate(timesteps)]

    def renew(self, num_prompts: int) -> None:
        """Bring the weights back, and forget what was kept for another number of prompts."""
        if self.hoist is not None:
            self.hoist.restore()
        if num_prompts != self.num_prompts:
            self.close()
            self.num_prompts = num_prompts

    def close(self) -> None:
        if self.hoist is not None:
            self.hoist.close()
        self.told = None
