"""Bytes that one sample's forward pass keeps for the backward pass.

Counted are tensors that autograd saves, each storage once, without parameters. A frozen matrix saves nothing: only its
input's gradient is computed. With N tokens of width w (video, text and the method's), H heads and V video tokens, a
block saves

    12 N w + 5 N H       stock: the inputs of two norms (2), q and k before and after their norms, v and the output of
                         attention (6), the input of GELU (4); statistics of norms and attention
    18 N w + 6 N H       adapted by Magic Mirror, whose factors are trained: in addition the normalized streams (2), the
                         outputs behind the gates (2), q for the face tokens and what it attends to (2)
    + V (2 w + 5 i)      behind it FantasyID's injection of inner width i: norm, q, attention, and F_l

numbers. Under autocast most of them are in bfloat16; inputs and outputs of norms are in float32. Gradient checkpointing
keeps N w numbers a block, and those of the one block that is computed again.
"""

from dataclasses import dataclass

from likeness.methods.fantasy_id import FantasyID
from likeness.training.plan.sizes import Models
from likeness.training.plan.work import Tokens

STOCK, STOCK_WIDE = 12, 4
"""Numbers per token and channel that a stock block saves, and how many of them autocast keeps in float32."""
MAGIC_MIRROR, MAGIC_MIRROR_WIDE = 18, 6
"""The same for a block that Magic Mirror adapts."""
INJECTION, INJECTION_WIDE = 2, 1
"""The same for FantasyID's injection, for video tokens."""
INNER = 5
"""Numbers per video token and inner channel that FantasyID's injection saves."""
ENDS = 3
"""Numbers per token and channel outside of blocks: the patches, the last norms."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Saved:
    """Numbers that are kept, by width."""

    narrow: float
    """In the dtype of products."""
    wide: float
    """Always in float32."""

    @property
    def numbers(self) -> float:
        """All of them."""
        return self.narrow + self.wide

    def bytes(self, dtype_bytes: int) -> float:
        """Bytes where products have `dtype_bytes` (bfloat16 2, float32 4)."""
        return dtype_bytes * self.narrow + 4 * self.wide

    def times(self, factor: float) -> "Saved":
        """A multiple."""
        return Saved(narrow=factor * self.narrow, wide=factor * self.wide)

    def plus(self, other: "Saved") -> "Saved":
        """The sum."""
        return Saved(narrow=self.narrow + other.narrow, wide=self.wide + other.wide)


def saved_by_block(models: Models, tokens: Tokens, *, is_adapted: bool) -> Saved:
    """What one block of a sample keeps without checkpointing."""
    width, heads = models.width, int(models.config.num_attention_heads)
    if not is_adapted:
        return _block(tokens.stock, width, heads, STOCK, STOCK_WIDE, statistics=5)
    if isinstance(models.method, FantasyID):
        inner = models.method.config["injection_width"]
        injection = Saved(
            narrow=tokens.video * ((INJECTION - INJECTION_WIDE) * width + INNER * inner),
            wide=tokens.video * INJECTION_WIDE * width,
        )
        return _block(tokens.stock, width, heads, STOCK, STOCK_WIDE, statistics=5).plus(injection)
    return _block(tokens.adapted, width, heads, MAGIC_MIRROR, MAGIC_MIRROR_WIDE, statistics=6)


def saved_by_sample(models: Models, tokens: Tokens, *, is_checkpointed: bool) -> Saved:
    """What the forward pass of a sample keeps; with checkpointing also the one block that is computed again."""
    total, adapted = int(models.config.num_layers), len(models.method.layers)
    ends = Saved(narrow=ENDS * tokens.stock * models.width, wide=0)
    with_method = saved_by_block(models, tokens, is_adapted=True)
    if is_checkpointed:
        inputs = Saved(narrow=total * tokens.adapted * models.width, wide=0)
        return ends.plus(inputs).plus(with_method)
    stock = saved_by_block(models, tokens, is_adapted=False)
    if isinstance(models.method, FantasyID):  # Gradients begin behind the first block, which saves nothing.
        ends = ends.plus(stock.times(-1))
    return ends.plus(with_method.times(adapted)).plus(stock.times(total - adapted))


def _block(tokens: int, width: int, heads: int, numbers: int, wide: int, *, statistics: int) -> Saved:
    return Saved(narrow=tokens * width * (numbers - wide), wide=tokens * (width * wide + heads * statistics))
