"""Records of the packed sampling path: the layout of all rows in one list of tokens, and one block's cached values."""

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor


@dataclass(frozen=True, kw_only=True, slots=True, eq=False)
class CachedBlockInputs:
    """Cached values of one adapted block in one sampling step. One is already added to every scale.

    Shapes:
        modulation1, modulation2: (batch, 6 width), around attention and feed-forward, the identity's part included.
            With several people in each row (batch, people, 6 width)
        face1, face2: (adapted_rows, 3 width); None without the face branch
        keys, values: (adapted_rows, face_tokens, heads, head_width) of Eq. 7; None without the face branch
    """

    modulation1: Tensor
    modulation2: Tensor
    face1: Tensor | None
    face2: Tensor | None
    keys: Tensor | None
    values: Tensor | None

    def tensors(self) -> list[Tensor]:
        every = (self.modulation1, self.modulation2, self.face1, self.face2, self.keys, self.values)
        return [tensor for tensor in every if tensor is not None]

    def last(self, batch: int) -> "CachedBlockInputs":
        """Take the values of the last rows: a cache may run the conditional rows alone."""
        if len(self.modulation1) == batch:
            return self
        names = ("modulation1", "modulation2", "face1", "face2", "keys", "values")
        every: dict[str, Any] = {name: getattr(self, name) for name in names}
        last: dict[str, Any] = {name: x if x is None else x[-batch:] for name, x in every.items()}
        return CachedBlockInputs(**last)


@dataclass(frozen=True, kw_only=True, slots=True)
class PackedLayout:
    """Layout of (tokens, width): stock rows as [text, video], then adapted rows as [text, video, face].

    The face is last in its row, so that with one adapted row, the last, every stream of all rows is a plain view.
    """

    stock_rows: int
    adapted_rows: int
    text_tokens: int
    video_tokens: int
    face_tokens: int

    @property
    def batch(self) -> int:
        return self.stock_rows + self.adapted_rows

    @property
    def own_tokens(self) -> int:
        """Tokens of a row without its face."""
        return self.text_tokens + self.video_tokens

    def pack(self, text: Tensor, face: Tensor, video: Tensor) -> Tensor:
        """Join (batch, ...) text and video and (adapted_rows, ...) face to (tokens, width)."""
        pieces = []
        for row in range(self.batch):
            pieces += [text[row], video[row]]
            if self.face_tokens and row >= self.stock_rows:
                pieces.append(face[row - self.stock_rows])
        return torch.cat(pieces)

    def stock(self, tokens: Tensor) -> Tensor:
        """View the rows without an identity: (stock_rows, text + video, ...)."""
        end = self.stock_rows * self.own_tokens
        return tokens[:end].unflatten(0, (self.stock_rows, self.own_tokens))

    def adapted(self, tokens: Tensor) -> Tensor:
        """View the rows with an identity: (adapted_rows, text + video + face, ...)."""
        start = self.stock_rows * self.own_tokens
        return tokens[start:].unflatten(0, (self.adapted_rows, self.own_tokens + self.face_tokens))

    def rows(self, tokens: Tensor) -> list[Tensor]:
        """View all rows without their faces: one (batch, text + video, ...), or two where no stride fits both kinds."""
        if self.adapted_rows == 1 or not self.face_tokens:
            return [tokens[: self.batch * self.own_tokens].unflatten(0, (self.batch, self.own_tokens))]
        adapted = self.adapted(tokens)[:, : self.own_tokens]
        return [self.stock(tokens), adapted] if self.stock_rows else [adapted]

    def unpack(self, tokens: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Split (tokens, width) into text, face and video, the inverse of `pack`."""
        rows = self.rows(tokens)
        whole = rows[0] if len(rows) == 1 else torch.cat(rows)
        face = self.adapted(tokens)[:, self.own_tokens :]
        return whole[:, : self.text_tokens], face, whole[:, self.text_tokens :]
