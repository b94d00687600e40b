"""One frozen CogVideoX block with Magic Mirror's adapter around it: Fig. 4 of arXiv:2501.03931v1.

The face stream is concatenated to the text in `encoder_hidden_states` and passed from block to block. So blocks keep no
state between calls and return two tensors, as diffusers' caches and gradient checkpointing expect. The condition comes
in `attention_kwargs` for the same reason: a recomputed block gets the same condition as in its first run.
"""

from typing import Any

import torch
from diffusers.models.transformers.cogvideox_transformer_3d import CogVideoXBlock
from torch import Tensor, nn

from likeness.adapters.blocks.attention import FaceAddedAttention
from likeness.adapters.blocks.base import AdaptedBlock
from likeness.adapters.blocks.modulation import (
    ConditionedNorm,
    FaceModulation,
    NormFactors,
    modulate,
    split_modulation,
)
from likeness.adapters.blocks.packed_attention import PackedFaceAttention
from likeness.adapters.blocks.packed_layout import CachedBlockInputs
from likeness.adapters.conditioning.condition import FaceCondition
from likeness.backbones.attention import Rope


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
            factors: Factors that CAN predicts.
            reads_time: Whether CAN reads t and mu1_vid.
            has_face: With the face stream and cross-attention.
            has_norm: With CAN.
        """
        super().__init__()
        self.face_norm = FaceModulation(width, time_width) if has_face else None
        self.attention = FaceAddedAttention(width, has_face=has_face)
        self.packed_attention = PackedFaceAttention()
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


class FaceBlock(AdaptedBlock[FaceLayer]):
    """A frozen block in a conditioned transformer.

    A block without an adapter (the odd ones) passes the face stream on unchanged. Rows without an identity go through
    the frozen block alone, and so do all rows where there is no condition.

    Shapes:
        hidden_states: (batch, video_tokens, width)
        encoder_hidden_states: (batch, text_tokens [+ face_tokens], width)
        temb: (batch, time_width)
        returns: both states; with a condition the face is concatenated behind the text
    """

    def __init__(
        self,
        base: CogVideoXBlock,
        block_adapter: FaceLayer | None,
        *,
        block_index: int = 0,
        reinjects_face: bool = False,
    ) -> None:
        super().__init__(base, block_adapter, block_index=block_index)
        self.cached_inputs: CachedBlockInputs | None = None
        """Values of the coming pass, set by `ModulationCache`."""
        self.reinjects_face = reinjects_face

    def forward(
        self,
        hidden_states: Tensor,
        encoder_hidden_states: Tensor,
        temb: Tensor,
        image_rotary_emb: Rope | None = None,
        attention_kwargs: dict[str, Any] | None = None,
    ) -> tuple[Tensor, Tensor]:
        condition, rest = self.split_kwargs(attention_kwargs)
        if condition is None:
            return self.base(hidden_states, encoder_hidden_states, temb, image_rotary_emb, rest)
        adapted_rows, stock_rows = condition.split(len(hidden_states))
        every_row = list(range(len(hidden_states)))
        if not adapted_rows:
            kwargs = condition.stock_kwargs(rest, every_row, hidden_states)
            return self.base(hidden_states, encoder_hidden_states, temb, image_rotary_emb, kwargs)

        text, face = self._split_face(encoder_hidden_states, condition)
        if not self.is_active(condition.active_blocks):
            kwargs = condition.stock_kwargs(rest, every_row, hidden_states)
            video, text = self.base(hidden_states, text, temb, image_rotary_emb, kwargs)
            return video, torch.cat([text, face], dim=1)
        if condition.sampling_cache is not None:
            streams = (hidden_states, text, face)
            return condition.sampling_cache.run_block(self, streams, temb, image_rotary_emb, condition)
        if not stock_rows:
            condition = condition.select(adapted_rows)
            video, text, face = self._adapted(hidden_states, text, face, temb, image_rotary_emb, condition)
            return video, torch.cat([text, face], dim=1)

        kwargs = condition.stock_kwargs(rest, stock_rows, hidden_states)
        stock = self.base(hidden_states[stock_rows], text[stock_rows], temb[stock_rows], image_rotary_emb, kwargs)
        adapted = self._adapted(
            hidden_states[adapted_rows],
            text[adapted_rows],
            face[adapted_rows],
            temb[adapted_rows],
            image_rotary_emb,
            condition.select(adapted_rows),
        )
        order = torch.tensor(stock_rows + adapted_rows, device=face.device).argsort()
        parts = zip((*stock, face[stock_rows]), adapted, strict=True)
        video, text, face = (torch.cat(part, dim=0)[order] for part in parts)
        return video, torch.cat([text, face], dim=1)

    def _split_face(self, encoder_hidden_states: Tensor, condition: FaceCondition) -> tuple[Tensor, Tensor]:
        """Split text from face. The first block has no face behind its text yet and takes it from the condition."""
        text = encoder_hidden_states[:, : condition.layout.text_tokens]
        face = encoder_hidden_states[:, condition.layout.text_tokens :]
        if not face.shape[1] or (self.reinjects_face and self.is_active(condition.active_blocks)):
            repeats = len(text) // len(condition.face)
            face = condition.face.to(text).repeat(repeats, 1, 1)
        return text, face

    def _adapted(
        self,
        video: Tensor,
        text: Tensor,
        face: Tensor,
        temb: Tensor,
        rope: Rope | None,
        condition: FaceCondition,
    ) -> tuple[Tensor, Tensor, Tensor]:
        """Fig. 4, from top to bottom."""
        base, block_adapter = self.base, self.block_adapter
        assert block_adapter is not None

        # m_vid and m_txt: phi_vid and phi_txt are the two halves of the base's norm layers.
        modulation1 = base.norm1.linear(base.norm1.silu(temb))
        modulation2 = base.norm2.linear(base.norm2.silu(temb))
        if block_adapter.conditioned_norm is not None and condition.identity is not None:
            shift = modulation1.chunk(6, dim=1)[0]  # mu1_vid
            added1, added2 = block_adapter.conditioned_norm(condition.identity.to(temb), temb, shift)  # Eq. 6
            if condition.layout.num_people > 1:  # (batch, people, 6 width)
                modulation1, modulation2 = modulation1[:, None], modulation2[:, None]
            modulation1 = modulation1 + condition.scale * added1
            modulation2 = modulation2 + condition.scale * added2
        face1, face2 = block_adapter.face_norm(temb) if block_adapter.face_norm is not None else (None, None)  # Eq. 5

        # n = 1: attention. The residual is on the stream itself, as in CogVideoX, not on the modulated input as the
        # paper writes it (docs/papers/magic_mirror.md, row 10).
        masks = condition.region_masks
        streams, gates = _modulated(base.norm1.norm, (text, face, video), split_modulation(modulation1, masks), face1)
        attended = block_adapter.attention(
            base.attn1, streams, condition.face.to(video), rope, condition.scale, region_masks=masks
        )  # Eq. 7
        text, face, video = _gated((text, face, video), gates, attended)

        # n = 2: feed-forward, the base's, for all three streams.
        streams, gates = _modulated(base.norm2.norm, (text, face, video), split_modulation(modulation2, masks), face2)
        fed = base.ff(torch.cat(streams, dim=1)).split([x.shape[1] for x in streams], dim=1)
        text, face, video = _gated((text, face, video), gates, fed)
        return video, text, face


def _modulated(
    norm: nn.Module,
    streams: tuple[Tensor, Tensor, Tensor],
    modulation: list[Tensor],
    face_modulation: Tensor | None,
) -> tuple[tuple[Tensor, Tensor, Tensor], tuple[Tensor, Tensor | None, Tensor]]:
    """LN(x) (1 + sigma) + mu for each stream, and the gates of the outputs."""
    text, face, video = streams
    shift, scale, gate, text_shift, text_scale, text_gate = modulation
    face_gate = None
    normed_face = face
    if face_modulation is not None:
        face_shift, face_scale, face_gate = (part[:, None] for part in face_modulation.chunk(3, dim=1))
        normed_face = modulate(norm(face), face_shift, face_scale)
    normed_text = modulate(norm(text), text_shift, text_scale)
    return (normed_text, normed_face, modulate(norm(video), shift, scale)), (text_gate, face_gate, gate)


def _gated(
    streams: tuple[Tensor, Tensor, Tensor],
    gates: tuple[Tensor, Tensor | None, Tensor],
    outputs: tuple[Tensor, Tensor, Tensor],
) -> tuple[Tensor, Tensor, Tensor]:
    text, face, video = (
        stream if gate is None else stream + gate * output
        for stream, gate, output in zip(streams, gates, outputs, strict=True)
    )
    return text, face, video
