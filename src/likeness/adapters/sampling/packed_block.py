"""An adapted block while sampling: Fig. 4 of Magic Mirror with all rows and streams in one list of tokens.

`FaceBlock` is written like the paper's figure and can be trained. Sampling repeats the block a thousand times with the
same factors, keys and values. Here these are cached (`precompute.py`), rows with and without an identity share each
product, and sums are fused with products. It runs without gradients only.
"""

import torch
from torch import Tensor, nn

from likeness.adapters.blocks.magic_mirror import FaceBlock
from likeness.adapters.blocks.modulation import split_modulation
from likeness.adapters.blocks.packed_layout import CachedBlockInputs, PackedLayout
from likeness.adapters.conditioning.condition import FaceCondition


def run_packed(
    block: FaceBlock,
    hidden_states: tuple[Tensor, ...],
    rope: tuple[Tensor, Tensor] | None,
    cached: CachedBlockInputs,
    condition: FaceCondition,
) -> tuple[Tensor, Tensor]:
    """Run one adapted block over a batch: Fig. 4 of Magic Mirror, from top to bottom.

    Shapes:
        hidden_states: video, text and face, each (batch, tokens, width)
        returns: video, and text with the face behind it
    """
    assert block.block_adapter is not None
    base = block.base
    video, text, every_face = hidden_states
    layout = _layout(hidden_states, condition)
    face = every_face[layout.stock_rows :]
    masks = None if condition.region_masks is None else condition.region_masks.select(range(layout.batch))

    # n = 1: attention.
    modulation = split_modulation(cached.modulation1, masks)
    tokens = _modulated(base.norm1.norm, (text, face, video), modulation, cached.face1, layout)
    attended = block.block_adapter.packed_attention(
        base.attn1, tokens, cached.keys, cached.values, rope, condition.scale, layout=layout, region_masks=masks
    )
    text, face, video = _gated((text, face, video), modulation, cached.face1, layout.unpack(attended))

    # n = 2: feed-forward.
    modulation = split_modulation(cached.modulation2, masks)
    tokens = _modulated(base.norm2.norm, (text, face, video), modulation, cached.face2, layout)
    text, face, video = _gated((text, face, video), modulation, cached.face2, layout.unpack(base.ff(tokens)))

    if layout.stock_rows:
        face = torch.cat([every_face[: layout.stock_rows], face])
    return video, torch.cat([text, face], dim=1)


def _layout(hidden_states: tuple[Tensor, ...], condition: FaceCondition) -> PackedLayout:
    video, text, face = hidden_states
    adapted_rows, stock_rows = condition.split(len(video))
    return PackedLayout(
        stock_rows=len(stock_rows),
        adapted_rows=len(adapted_rows),
        text_tokens=text.shape[1],
        video_tokens=video.shape[1],
        face_tokens=face.shape[1],
    )


def _modulated(
    norm: nn.Module,
    streams: tuple[Tensor, Tensor, Tensor],
    modulation: list[Tensor],
    face_modulation: Tensor | None,
    layout: PackedLayout,
) -> Tensor:
    """LN(x) (1 + sigma) + mu for each stream, packed. One is already added to sigma in the tables."""
    text, face, video = streams
    shift, scale, _, text_shift, text_scale, _ = modulation
    text, video = torch.addcmul(text_shift, norm(text), text_scale), torch.addcmul(shift, norm(video), scale)
    if face_modulation is not None:
        face_shift, face_scale, _ = (part[:, None] for part in face_modulation.chunk(3, dim=1))
        face = torch.addcmul(face_shift, norm(face), face_scale)
    return layout.pack(text, face, video)


def _gated(
    streams: tuple[Tensor, Tensor, Tensor],
    modulation: list[Tensor],
    face_modulation: Tensor | None,
    outputs: tuple[Tensor, Tensor, Tensor],
) -> tuple[Tensor, Tensor, Tensor]:
    """Add each output, times its gate, to its stream."""
    text, face, video = streams
    if face_modulation is not None:
        face = torch.addcmul(face, face_modulation.chunk(3, dim=1)[2][:, None], outputs[1])
    return torch.addcmul(text, modulation[5], outputs[0]), face, torch.addcmul(video, modulation[2], outputs[2])
