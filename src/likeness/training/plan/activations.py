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
from likeness.training.plan.flops import Tokens
from likeness.training.plan.sizes import MetaModels

STOCK_ELEMENTS, STOCK_FLOAT32 = 12, 4
"""Numbers per token and channel that a stock block saves, and how many of them autocast keeps in float32."""
MAGIC_MIRROR_ELEMENTS, MAGIC_MIRROR_FLOAT32 = 18, 6
"""The same for a block that Magic Mirror adapts."""
INJECTION_ELEMENTS, INJECTION_FLOAT32 = 2, 1
"""The same for FantasyID's injection, for video tokens."""
INJECTION_INNER_ELEMENTS = 5
"""Numbers per video token and inner channel that FantasyID's injection saves."""
OUTER_ELEMENTS = 3
"""Numbers per token and channel outside of blocks: the patches, the last norms."""


@dataclass(frozen=True, kw_only=True, slots=True)
class SavedElements:
    """Elements of tensors that are kept for the backward pass, by dtype."""

    compute_dtype: float
    """Elements in the dtype of matrix products: bfloat16 under autocast."""
    float32: float
    """Elements that are float32 in any case."""

    @property
    def elements(self) -> float:
        """Elements of both dtypes."""
        return self.compute_dtype + self.float32

    def bytes(self, dtype_bytes: int) -> float:
        """Bytes where products have `dtype_bytes` (bfloat16 2, float32 4)."""
        return dtype_bytes * self.compute_dtype + 4 * self.float32

    def scaled(self, factor: float) -> "SavedElements":
        """A multiple."""
        return SavedElements(compute_dtype=factor * self.compute_dtype, float32=factor * self.float32)

    def plus(self, other: "SavedElements") -> "SavedElements":
        """The sum."""
        return SavedElements(
            compute_dtype=self.compute_dtype + other.compute_dtype, float32=self.float32 + other.float32
        )


def saved_per_block(models: MetaModels, tokens: Tokens, *, is_adapted: bool) -> SavedElements:
    """What one block of a sample keeps without checkpointing."""
    width, heads = models.width, int(models.config.num_attention_heads)
    if not is_adapted:
        return _block(tokens.stock, width, heads, STOCK_ELEMENTS, STOCK_FLOAT32, statistics=5)
    if isinstance(models.method, FantasyID):
        inner = models.method.config["injection_width"]
        injection = SavedElements(
            compute_dtype=tokens.video
            * ((INJECTION_ELEMENTS - INJECTION_FLOAT32) * width + INJECTION_INNER_ELEMENTS * inner),
            float32=tokens.video * INJECTION_FLOAT32 * width,
        )
        return _block(tokens.stock, width, heads, STOCK_ELEMENTS, STOCK_FLOAT32, statistics=5).plus(injection)
    return _block(tokens.adapted, width, heads, MAGIC_MIRROR_ELEMENTS, MAGIC_MIRROR_FLOAT32, statistics=6)


def saved_per_sample(models: MetaModels, tokens: Tokens, *, is_checkpointed: bool) -> SavedElements:
    """What the forward pass of a sample keeps; with checkpointing also the one block that is computed again."""
    total, adapted = int(models.config.num_layers), len(models.method.layers)
    ends = SavedElements(compute_dtype=OUTER_ELEMENTS * tokens.stock * models.width, float32=0)
    with_method = saved_per_block(models, tokens, is_adapted=True)
    if is_checkpointed:
        inputs = SavedElements(compute_dtype=total * tokens.adapted * models.width, float32=0)
        return ends.plus(inputs).plus(with_method)
    stock = saved_per_block(models, tokens, is_adapted=False)
    if isinstance(models.method, FantasyID):  # Gradients begin behind the first block, which saves nothing.
        ends = ends.plus(stock.scaled(-1))
    return ends.plus(with_method.scaled(adapted)).plus(stock.scaled(total - adapted))


def _block(tokens: int, width: int, heads: int, elements: int, float32: int, *, statistics: int) -> SavedElements:
    return SavedElements(
        compute_dtype=tokens * width * (elements - float32), float32=tokens * (width * float32 + heads * statistics)
    )
