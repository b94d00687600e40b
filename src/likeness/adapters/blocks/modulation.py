"""Modulation by identity: factors that shift, scale and gate the streams of a frozen block.

`FaceModulation` is phi_face (Eq. 5) and `ConditionedNorm` is CAN, phi_cond (Eq. 6), of Magic Mirror
(arXiv:2501.03931v1). Both end in a layer that starts at zero. Neither depends on CogVideoX: any transformer whose
blocks take (shift, scale, gate) triples can use them.
"""

from typing import Literal

import torch
from einops import rearrange
from torch import Tensor, nn
from torch.nn.functional import silu

from likeness.adapters.conditioning.regions import RegionMasks

NormFactors = Literal["shift+gate", "shift+scale+gate"]


def zero_linear(input_width: int, output_width: int) -> nn.Linear:
    """A layer that starts at zero, as every new modulation predictor does (element M11)."""
    linear = nn.Linear(input_width, output_width)
    nn.init.zeros_(linear.weight)
    nn.init.zeros_(linear.bias)
    return linear


class FaceModulation(nn.Module):
    """m_face = phi_face(t, l), Eq. 5: six factors for the face stream from the time embedding.

    A two-layer MLP that begins with SiLU, as the base's own norm modules do. Each adapted layer l has its own.

    Shapes:
        time: (batch, time_width)
        returns: two of (batch, 3 width): shift, scale, gate around attention; the same around the feed-forward
    """

    def __init__(self, width: int, time_width: int) -> None:
        super().__init__()
        self.linear_in = nn.Linear(time_width, time_width)
        self.linear_out = zero_linear(time_width, 6 * width)

    def forward(self, time: Tensor) -> tuple[Tensor, Tensor]:
        attention, feed_forward = self.linear_out(silu(self.linear_in(silu(time)))).chunk(2, dim=-1)
        return attention, feed_forward


class ConditionedNorm(nn.Module):
    """m_hat = phi_cond(t, l, mu1_vid, x_id), Eq. 6: the identity's offsets to the base's factors in one layer.

    The global projection of x_id (to the paper's c1) is shared by all layers and computed before. mu1_vid, the base's
    shift of the video, is the paper's identifier of the distribution; no gradient goes back through it.

    Shapes:
        identity: (batch, identity_width): the projected x_id; or (batch, people, identity_width)
        time: (batch, time_width)
        shift: (batch, width): mu1_vid
        returns: two of (batch, 6 width), around attention and around the feed-forward; each in the order of the
            base's own modulation: shift, scale, gate of the video, then shift, scale, gate of the text. For several
            people (batch, people, 6 width)
    """

    def __init__(
        self,
        width: int,
        *,
        identity_width: int,
        time_width: int,
        hidden_width: int,
        factors: NormFactors = "shift+scale+gate",
        reads_time: bool = True,
    ) -> None:
        """Build one layer's predictor.

        Args:
            width: Channels of the streams.
            identity_width: Channels of the projected identity.
            time_width: Channels of the time embedding.
            hidden_width: Channels between the two layers.
            factors: Predicted factors. Without "scale", the base's scales are unchanged.
            reads_time: Read t and mu1_vid too. Without them the result is constant for a person.
        """
        super().__init__()
        self.factors = factors
        self.reads_time = reads_time
        self.linear_in = nn.Linear(identity_width + reads_time * (time_width + width), hidden_width)
        self.linear_out = zero_linear(hidden_width, 4 * (2 if factors == "shift+gate" else 3) * width)

    def forward(self, identity: Tensor, time: Tensor, shift: Tensor) -> tuple[Tensor, Tensor]:
        if identity.ndim == 3:
            time, shift = (x[:, None].expand(-1, identity.shape[1], -1) for x in (time, shift))
        x = torch.cat([identity, time, shift.detach()], dim=-1) if self.reads_time else identity
        x = rearrange(self.linear_out(silu(self.linear_in(x))), "... (part stream f w) -> part ... stream f w",
                      part=2, stream=2, f=2 if self.factors == "shift+gate" else 3)  # fmt: skip
        if self.factors == "shift+gate":
            x = torch.stack([x[..., 0, :], torch.zeros_like(x[..., 0, :]), x[..., 1, :]], dim=-2)
        attention, feed_forward = x.flatten(-3)
        return attention, feed_forward


def modulate(x: Tensor, shift: Tensor, scale: Tensor) -> Tensor:
    """Apply x (1 + scale) + shift.

    Shapes:
        x: (batch, tokens, width)
        shift, scale: (batch, width), or (batch, tokens, width) where tokens differ
    """
    if shift.ndim == 2:
        shift, scale = shift[:, None], scale[:, None]
    return x * (1 + scale) + shift


def split_modulation(modulation: Tensor, region_masks: RegionMasks | None) -> list[Tensor]:
    """Split a modulation into shift, scale and gate of the video, then of the text.

    Shapes:
        modulation: (batch, 6 width), or for several people (batch, people, 6 width)
        returns: six of (batch, 1, width), or for several people (batch, tokens, width)
    """
    if modulation.ndim == 2:
        return [part[:, None] for part in modulation.chunk(6, dim=1)]
    assert region_masks is not None
    return region_masks.modulation_per_token(modulation)
