"""Linear layers whose product runs in 8-bit floating point, with one scale for each row of either operand."""

import torch
from torch import Tensor, nn

STORAGE = torch.float8_e4m3fn
LARGEST = torch.finfo(STORAGE).max


class Float8Linear(nn.Module):
    """A frozen linear layer in float8: weights are quantized once, activations in each call.

    Shapes:
        x: (..., input_width)
        returns: (..., output_width)
    """

    def __init__(self, linear: nn.Linear) -> None:
        super().__init__()
        weight, scale = quantize(linear.weight.detach())
        self.register_buffer("weight", weight)
        self.register_buffer("scale", scale.t().contiguous())
        self.bias = linear.bias

    def forward(self, x: Tensor) -> Tensor:
        rows, scale = quantize(x.flatten(0, -2))
        y = torch._scaled_mm(rows, self.weight.t(), scale_a=scale, scale_b=self.scale, out_dtype=x.dtype)
        return (y if self.bias is None else y + self.bias).unflatten(0, x.shape[:-1])


def quantize(x: Tensor) -> tuple[Tensor, Tensor]:
    """Scale each row of (rows, width) to the range of float8; returns it with the (rows, 1) scales."""
    scale = x.abs().amax(dim=-1, keepdim=True).float().clamp(min=1e-12) / LARGEST
    return (x.float() / scale).clamp(-LARGEST, LARGEST).to(STORAGE), scale


def quantize_blocks(transformer: nn.Module) -> int:
    """Replace the large linear layers of all blocks, attention and feed-forward, and return their number.

    The modulation layers are left: they read the time embedding, one row, and decide about every token.
    """
    wanted = (".to_q", ".to_k", ".to_v", ".to_out.0", ".net.0.proj", ".net.2")
    found = [
        (name, module)
        for name, module in transformer.named_modules()
        if isinstance(module, nn.Linear) and name.endswith(wanted)
    ]
    for name, module in found:
        parent, _, last = name.rpartition(".")
        setattr(transformer.get_submodule(parent), last, Float8Linear(module))
    return len(found)
