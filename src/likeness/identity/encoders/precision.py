"""Modules that need float32."""

from collections.abc import Callable
from typing import Self

import torch
from torch import Tensor, nn


class KeepInFloat32(nn.Module):
    """Stays in float32 when its parent is cast to a narrower dtype; moving between devices works as usual."""

    def _apply(self, fn: Callable[[Tensor], Tensor], recurse: bool = True) -> Self:
        def keep_precision(tensor: Tensor) -> Tensor:
            moved = fn(tensor)
            is_narrow = moved.is_floating_point() and moved.element_size() < 4
            return tensor.to(moved.device, torch.float32) if is_narrow else moved

        return super()._apply(keep_precision, recurse)
