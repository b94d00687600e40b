"""One frozen CogVideoX block with Magic Mirror's adapter around it: Fig. 4 of arXiv:2501.03931v1.

The face stream travels inside `encoder_hidden_states`, behind the text, from block to block. So nothing is kept
between calls, a block still returns two tensors, and caches and gradient checkpointing see all there is. The condition
arrives in `attention_kwargs`, for the same reason: a recomputed block gets the very condition of its first run.
"""

from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any

import torch
from diffusers.hooks._helpers import TransformerBlockMetadata, TransformerBlockRegistry
from diffusers.models.transformers.cogvideox_transformer_3d import CogVideoXBlock
from torch import Tensor, nn

from likeness.adapters.attention import FaceAddedAttention, Rope
from likeness.adapters.controls import Branch
from likeness.adapters.modulation import ConditionedNorm, FaceModulation, NormFactors, modulate
from likeness.adapters.packed import BlockTables, Layout, run_packed
from likeness.errors import ConfigError

if TYPE_CHECKING:
    from likeness.adapters.hoist import Hoist

CONDITION_KEY = "face_condition"


@dataclass(frozen=True, kw_only=True, slots=True, eq=False)
class FaceCondition:
    """What the adapted blocks are told during one forward pass.

    Shapes:
        identity: (batch, identity_width): x_id after CAN's global projection; None without CAN
        face: (batch, face_tokens, width): x_face; face_tokens may be 0
        active: (batch,), bool: rows that have an identity; None for all
    """

    identity: Tensor | None
    face: Tensor
    active: Tensor | None = None
    scale: float = 1.0
    branch: Branch = "conditional"
    acting: frozenset[int] | None = None
    """Numbers of the blocks in which the identity acts; None for all that are adapted."""
    is_guided: bool | None = None
    """Whether the batch holds both branches of guidance; None where its size alone can tell."""
    batch: int = 0
    """Rows of the transformer's own call. FasterCache may halve them on the way to the blocks."""
    hoist: "Hoist | None" = None
    """What was computed before, while sampling; None computes all of it in the blocks, with gradients."""
    text_tokens: int = 0
    """Length of the text, by which a block sees whether the face already stands behind it."""
    rows: dict[int, tuple[list[int], list[int]]] = field(default_factory=dict)
    """Which rows are adapted and which are not, by batch size: the same in every block."""

    def split(self, batch: int) -> tuple[list[int], list[int]]:
        """Rows of a batch that are adapted, and rows that are not.

        A batch of twice the identities is guidance in one pass: the unconditional rows, then the conditional ones.

        Raises:
            ConfigError: The batch is neither as large as the identities nor twice that, or not the one of both that
                `is_guided` asks for. Two prompts without guidance would pass for one with it.
        """
        if batch not in self.rows:
            known = len(self.face)
            sizes = {None: (known, 2 * known), False: (known,), True: (2 * known,)}[self.is_guided]
            if batch not in sizes:
                expected = {
                    None: f"{known} or, with guidance in one pass, {2 * known} were",
                    False: f"without guidance {known} was",
                    True: f"with guidance in one pass {2 * known} was",
                }[self.is_guided]
                raise ConfigError(
                    f"The transformer got a batch of {batch}, but the identity is for {known}: {expected} expected. "
                    "Make the prompts with `mirror.prompt`, or give one identity for each prompt."
                )
            active = [True] * known if self.active is None else self.active.tolist()
            if batch == 2 * known:
                active = (active if self.branch == "both" else [False] * known) + active
            adapted = [row for row, is_active in enumerate(active) if is_active]
            stock = [row for row, is_active in enumerate(active) if not is_active]
            self.rows[batch] = (adapted, stock)
        return self.rows[batch]

    def take(self, rows: list[int]) -> "FaceCondition":
        """Select the identities of these rows of the transformer's batch."""
        index = torch.tensor(rows, device=self.face.device) % len(self.face)
        identity = None if self.identity is None else self.identity[index]
        return replace(self, identity=identity, face=self.face[index], active=None)


class FaceLayer(nn.Module):
    """The trained part of one adapted block: phi_face (Eq. 5), CAN (Eq. 6), and K and V of Eq. 7."""

    def __init__(self, width: int, *, time_width: int, identity_width: int, hidden_width: int, factors: NormFactors,
                 reads_time: bool = True, has_face: bool = True, has_norm: bool = True) -> None:  # fmt: skip
        """Build the layer.

        Args:
            width: Channels of the backbone's tokens.
            time_width: Channels of its time embedding.
            identity_width: Channels of the projected x_id, the paper's c1.
            hidden_width: Channels inside CAN.
            factors: What CAN predicts.
            reads_time: Whether CAN reads t and mu1_vid.
            has_face: With the face stream and cross-attention.
            has_norm: With CAN.
        """
        super().__init__()
        self.face_norm = FaceModulation(width, time_width) if has_face else None
        self.attention = FaceAddedAttention(width, has_face=has_face)
        self.conditioned_norm = (
            ConditionedNorm(
                width,
                identity_width=identity_width,
                time_width=time_width,
                hidden_width=hidden_width,
                factors=factors,
                reads_time=reads_time,
            )
            if has_norm
            else None
        )


class FaceBlock(nn.Module):
    """A frozen block in a conditioned transformer. Where nothing acts, it lets the face stream pass by (odd blocks).

    Rows without an identity go through the frozen block alone; so do all, when there is no condition.

    Shapes:
        hidden_states: (batch, video_tokens, width)
        encoder_hidden_states: (batch, text_tokens [+ face_tokens], width)
        temb: (batch, time_width)
        returns: both states; the face stands behind the text where there is a condition
    """

    def __init__(
        self,
        base: CogVideoXBlock,
        layer: FaceLayer | None,
        *,
        number: int = 0,
        reinjects_face: bool = False,
    ) -> None:
        super().__init__()
        self.base = base
        self.layer = layer
        self.number = number
        self.tables: BlockTables | None = None
        """What this block reads in the coming pass, where `Hoist` has it ready."""
        self.reinjects_face = reinjects_face
        self.train(base.training)
        self._register_state_dict_hook(_as_stock_state_dict)
        self.register_load_state_dict_pre_hook(_from_stock_state_dict)

    def forward(
        self,
        hidden_states: Tensor,
        encoder_hidden_states: Tensor,
        temb: Tensor,
        image_rotary_emb: Rope | None = None,
        attention_kwargs: dict[str, Any] | None = None,
    ) -> tuple[Tensor, Tensor]:
        condition: FaceCondition | None = (attention_kwargs or {}).get(CONDITION_KEY)
        rest = {name: value for name, value in (attention_kwargs or {}).items() if name != CONDITION_KEY}
        if condition is None:
            return self.base(hidden_states, encoder_hidden_states, temb, image_rotary_emb, rest)
        adapted_rows, stock_rows = condition.split(len(hidden_states))
        if not adapted_rows:
            return self.base(hidden_states, encoder_hidden_states, temb, image_rotary_emb, rest)

        text, face = self._part(encoder_hidden_states, condition)
        if not self.acts(condition.acting):
            video, text = self.base(hidden_states, text, temb, image_rotary_emb, rest)
            return video, torch.cat([text, face], dim=1)
        if condition.hoist is not None:
            return self._sample(hidden_states, (text, face), temb, image_rotary_emb, condition)
        if not stock_rows:
            condition = condition.take(adapted_rows)
            video, text, face = self._adapted(hidden_states, text, face, temb, image_rotary_emb, condition)
            return video, torch.cat([text, face], dim=1)

        stock = self.base(
            hidden_states[stock_rows], text[stock_rows], temb[stock_rows], image_rotary_emb, rest
        )
        adapted = self._adapted(
            hidden_states[adapted_rows],
            text[adapted_rows],
            face[adapted_rows],
            temb[adapted_rows],
            image_rotary_emb,
            condition.take(adapted_rows),
        )
        order = torch.tensor(stock_rows + adapted_rows, device=face.device).argsort()
        parts = zip((*stock, face[stock_rows]), adapted, strict=True)
        video, text, face = (torch.cat(part, dim=0)[order] for part in parts)
        return video, torch.cat([text, face], dim=1)

    def acts(self, acting: frozenset[int] | None) -> bool:
        """Whether the identity acts here, given the blocks in which it does."""
        return self.layer is not None and (acting is None or self.number in acting)

    def _sample(
        self,
        video: Tensor,
        text_and_face: tuple[Tensor, Tensor],
        time: Tensor,
        rope: Rope | None,
        condition: FaceCondition,
    ) -> tuple[Tensor, Tensor]:
        """The same without gradients, from tables."""
        assert condition.hoist is not None
        assert self.layer is not None
        adapted_rows, stock_rows = condition.split(len(video))
        tables = self.tables or condition.hoist.visit(self, time, condition)
        text, face = text_and_face
        layout = Layout(
            stock_rows=len(stock_rows),
            adapted_rows=len(adapted_rows),
            text_tokens=text.shape[1],
            video_tokens=video.shape[1],
            face_tokens=face.shape[1],
        )
        return run_packed(
            self.base,
            self.layer.attention,
            (video, text, face),
            rope,
            tables.last(len(video)),
            layout,
            condition.scale,
        )

    def _part(self, encoder_hidden_states: Tensor, condition: FaceCondition) -> tuple[Tensor, Tensor]:
        """Part text from face. The first block that runs finds no face yet and takes it from the condition."""
        text = encoder_hidden_states[:, : condition.text_tokens]
        face = encoder_hidden_states[:, condition.text_tokens :]
        if not face.shape[1] or (self.reinjects_face and self.acts(condition.acting)):
            repeats = len(text) // len(condition.face)
            face = condition.face.to(text).repeat(repeats, 1, 1)
        return text, face

    def _adapted(
        self,
        video: Tensor,
        text: Tensor,
        face: Tensor,
        time: Tensor,
        rope: Rope | None,
        condition: FaceCondition,
    ) -> tuple[Tensor, Tensor, Tensor]:
        """Fig. 4, from top to bottom."""
        base, layer = self.base, self.layer
        assert layer is not None

        # m_vid and m_txt: phi_vid and phi_txt are the two halves of the base's norm layers.
        factors1 = base.norm1.linear(base.norm1.silu(time))
        factors2 = base.norm2.linear(base.norm2.silu(time))
        if layer.conditioned_norm is not None and condition.identity is not None:
            shift = factors1.chunk(6, dim=1)[0]  # mu1_vid
            added1, added2 = layer.conditioned_norm(condition.identity.to(time), time, shift)  # Eq. 6
            factors1 = factors1 + condition.scale * added1
            factors2 = factors2 + condition.scale * added2
        face1, face2 = layer.face_norm(time) if layer.face_norm is not None else (None, None)  # Eq. 5

        # n = 1: attention. The residual is on the stream itself, as in CogVideoX, not on the modulated input as the
        # paper writes it (docs/papers/magic_mirror.md, row 10).
        streams, gates = _modulated(base.norm1.norm, (text, face, video), factors1, face1)
        attended = layer.attention(
            base.attn1, streams, condition.face.to(video), rope, condition.scale
        )  # Eq. 7
        text, face, video = _gated((text, face, video), gates, attended)

        # n = 2: feed-forward, the base's, for all three streams.
        streams, gates = _modulated(base.norm2.norm, (text, face, video), factors2, face2)
        fed = base.ff(torch.cat(streams, dim=1)).split([x.shape[1] for x in streams], dim=1)
        text, face, video = _gated((text, face, video), gates, fed)
        return video, text, face


def _modulated(
    norm: nn.Module, streams: tuple[Tensor, Tensor, Tensor], factors: Tensor, face_factors: Tensor | None
) -> tuple[tuple[Tensor, Tensor, Tensor], tuple[Tensor, Tensor | None, Tensor]]:
    """LN(x) (1 + sigma) + mu for each stream, and the gates for what comes back."""
    text, face, video = streams
    shift, scale, gate, text_shift, text_scale, text_gate = factors.chunk(6, dim=1)
    face_gate = None
    normed_face = face
    if face_factors is not None:
        face_shift, face_scale, face_gate = face_factors.chunk(3, dim=1)
        normed_face = modulate(norm(face), face_shift, face_scale)
    normed_text = modulate(norm(text), text_shift, text_scale)
    return (normed_text, normed_face, modulate(norm(video), shift, scale)), (text_gate, face_gate, gate)


def _gated(
    streams: tuple[Tensor, Tensor, Tensor],
    gates: tuple[Tensor, Tensor | None, Tensor],
    outputs: tuple[Tensor, Tensor, Tensor],
) -> tuple[Tensor, Tensor, Tensor]:
    text, face, video = (
        stream if gate is None else stream + gate[:, None, :] * output
        for stream, gate, output in zip(streams, gates, outputs, strict=True)
    )
    return text, face, video


def _as_stock_state_dict(_module: nn.Module, state: dict[str, Tensor], prefix: str, _metadata: Any) -> None:
    """Show the base's weights under their stock names and none of the adapter's, so that saving stays stock."""
    for name in [name for name in state if name.startswith(prefix)]:
        value = state.pop(name)
        if name.startswith(f"{prefix}base."):
            state[prefix + name.removeprefix(f"{prefix}base.")] = value


def _from_stock_state_dict(module: nn.Module, state: dict[str, Tensor], prefix: str, *_args: Any) -> None:
    for name in [name for name in state if name.startswith(prefix)]:
        state[f"{prefix}base.{name.removeprefix(prefix)}"] = state.pop(name)
    layer = module.layer if isinstance(module, FaceBlock) else None
    if layer is not None:
        state.update(layer.state_dict(prefix=f"{prefix}layer."))


# Caches and layer skipping look blocks up by their exact class.
TransformerBlockRegistry.register(
    FaceBlock, TransformerBlockMetadata(return_hidden_states_index=0, return_encoder_hidden_states_index=1)
)
