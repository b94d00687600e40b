"""An adapted block as it runs while sampling: the figures of `block.py`, with all rows and streams in one list of tokens.

`FaceBlock` is written to be read beside the paper and to be trained. Sampling repeats it a thousand times with the
same factors, keys and values, so here they come ready made (`sampling_cache.py`), rows with and without an identity share each
product, and sums are fused with their products. It is for passes without gradients alone.
"""

from dataclasses import dataclass
from typing import Any

import torch
from diffusers.models.transformers.cogvideox_transformer_3d import CogVideoXBlock
from torch import Tensor, nn

from likeness.adapters.conditioning.regions import RegionMasks


@dataclass(frozen=True, kw_only=True, slots=True, eq=False)
class BlockTables:
    """What one adapted block reads in one sampling step. One is added to every scale.

    Shapes:
        factors1, factors2: (batch, 6 width), around attention and feed-forward; the identity is in them. Where a row
            shows several people, each has their own: (batch, people, 6 width)
        face1, face2: (adapted_rows, 3 width); None without the face branch
        keys, values: (adapted_rows, face_tokens, heads, head_width) of Eq. 7; None without the face branch
    """

    factors1: Tensor
    factors2: Tensor
    face1: Tensor | None
    face2: Tensor | None
    keys: Tensor | None
    values: Tensor | None

    def tensors(self) -> list[Tensor]:
        every = (self.factors1, self.factors2, self.face1, self.face2, self.keys, self.values)
        return [tensor for tensor in every if tensor is not None]

    def last(self, batch: int) -> "BlockTables":
        """Take the factors of the last rows: a cache may run the conditional rows alone."""
        if len(self.factors1) == batch:
            return self
        names = ("factors1", "factors2", "face1", "face2", "keys", "values")
        every: dict[str, Any] = {name: getattr(self, name) for name in names}
        last: dict[str, Any] = {name: x if x is None else x[-batch:] for name, x in every.items()}
        return BlockTables(**last)


@dataclass(frozen=True, kw_only=True, slots=True)
class PackedLayout:
    """Where everything lies in (tokens, width): stock rows as [text, video], then adapted ones as [text, video, face].

    Face stands last in its row, so that with one adapted row, the last, every stream of all rows is a plain view.
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
        """Rows without an identity: (stock_rows, text + video, ...)."""
        end = self.stock_rows * self.own_tokens
        return tokens[:end].unflatten(0, (self.stock_rows, self.own_tokens))

    def adapted(self, tokens: Tensor) -> Tensor:
        """Rows with one: (adapted_rows, text + video + face, ...)."""
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


def run_packed(
    base: CogVideoXBlock,
    attention: nn.Module,
    states: tuple[Tensor, Tensor, Tensor],
    rope: tuple[Tensor, Tensor] | None,
    tables: BlockTables,
    layout: PackedLayout,
    scale: float,
    places: RegionMasks | None = None,
) -> tuple[Tensor, Tensor]:
    """One adapted block over a batch: Fig. 4 of Magic Mirror, from top to bottom.

    `places` are those of all rows, where a row shows several people.

    Shapes:
        states: video, text and face, each (batch, tokens, width)
        returns: video, and text with the face behind it
    """
    video, text, every_face = states
    face = every_face[layout.stock_rows :]

    # n = 1: attention.
    factors = split_modulation(tables.factors1, places)
    tokens = _modulated(base.norm1.norm, (text, face, video), factors, tables.face1, layout)
    attended = attention(
        base.attn1, tokens, tables.keys, rope, scale, values=tables.values, layout=layout, places=places
    )
    text, face, video = _gated((text, face, video), factors, tables.face1, layout.unpack(attended))

    # n = 2: feed-forward.
    factors = split_modulation(tables.factors2, places)
    tokens = _modulated(base.norm2.norm, (text, face, video), factors, tables.face2, layout)
    text, face, video = _gated((text, face, video), factors, tables.face2, layout.unpack(base.ff(tokens)))

    if layout.stock_rows:
        face = torch.cat([every_face[: layout.stock_rows], face])
    return video, torch.cat([text, face], dim=1)


def split_modulation(factors: Tensor, places: RegionMasks | None) -> list[Tensor]:
    """Shift, scale and gate of video and text: each (batch, 1, width), or for several people (batch, tokens, width)."""
    if factors.ndim == 2:
        return [part[:, None] for part in factors.chunk(6, dim=1)]
    assert places is not None
    return places.spread(factors)


def rotate(x: Tensor, rope: tuple[Tensor, Tensor]) -> None:
    """Turn each pair of channels by the angle of its position, in place and in float32.

    Shapes:
        x: (batch, video_tokens, heads, head_width)
        rope: cosines and sines, each (video_tokens, head_width), every angle twice
    """
    cos, sin = (part.to(x.device)[:, None] for part in rope)
    whole = x.float()
    turned = whole * cos
    first, second = whole.unflatten(-1, (-1, 2)).unbind(-1)
    pairs = turned.unflatten(-1, (-1, 2))
    pairs[..., 0].addcmul_(second, sin[..., ::2], value=-1)
    pairs[..., 1].addcmul_(first, sin[..., ::2])
    x.copy_(turned)


def _modulated(
    norm: nn.Module,
    streams: tuple[Tensor, Tensor, Tensor],
    factors: list[Tensor],
    face_factors: Tensor | None,
    layout: PackedLayout,
) -> Tensor:
    text, face, video = streams
    shift, scale, _, text_shift, text_scale, _ = factors
    text, video = torch.addcmul(text_shift, norm(text), text_scale), torch.addcmul(shift, norm(video), scale)
    if face_factors is not None:
        face_shift, face_scale, _ = (part[:, None] for part in face_factors.chunk(3, dim=1))
        face = torch.addcmul(face_shift, norm(face), face_scale)
    return layout.pack(text, face, video)


def _gated(
    streams: tuple[Tensor, Tensor, Tensor],
    factors: list[Tensor],
    face_factors: Tensor | None,
    outputs: tuple[Tensor, Tensor, Tensor],
) -> tuple[Tensor, Tensor, Tensor]:
    text, face, video = streams
    if face_factors is not None:
        face = torch.addcmul(face, face_factors.chunk(3, dim=1)[2][:, None], outputs[1])
    return torch.addcmul(text, factors[5], outputs[0]), face, torch.addcmul(video, factors[2], outputs[2])
