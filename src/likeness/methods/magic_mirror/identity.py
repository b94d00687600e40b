"""A person as Magic Mirror's layers see them (arXiv:2501.03931v1)."""

from dataclasses import dataclass

from torch import Tensor

from likeness.identity.tokens import PersonTokens


@dataclass(frozen=True, kw_only=True, slots=True, eq=False)
class MagicMirrorIdentity(PersonTokens):
    """A person, or one for each prompt, as the transformer sees them.

    Shapes:
        id_tokens: (batch, references * 2, identity_width): x_id
        face_tokens: (batch, face_tokens, width): x_face
    """

    id_tokens: Tensor
