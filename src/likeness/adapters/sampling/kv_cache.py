"""Sampling cache of methods whose blocks attend to identity tokens (`InjectionBlock`)."""

import torch
from torch import Tensor

from likeness.adapters.blocks.fantasy_id import InjectionBlock
from likeness.adapters.conditioning.condition import FaceCondition
from likeness.adapters.conditioning.controls import Steps


class KVCache:
    """K and V of one identity in every layer, computed in the first sampling step (a `SamplingCache`)."""

    def __init__(self) -> None:
        self._keys_and_values: dict[int, tuple[Tensor, Tensor]] = {}

    def is_applicable(self) -> bool:
        return True

    def prepare(self, _condition: FaceCondition, _timestep: Tensor, _steps: Steps | None, _dtype: torch.dtype) -> None:
        """Nothing to set up: K and V do not depend on the step."""

    def run_block(
        self,
        block: InjectionBlock,
        states: tuple[Tensor, ...],
        _time: Tensor,
        _rope: tuple[Tensor, Tensor] | None,
        condition: FaceCondition,
    ) -> tuple[Tensor, Tensor]:
        """Inject into the outputs of the frozen block, video and text."""
        video, text = states
        if block.number not in self._keys_and_values:
            assert block.layer is not None
            self._keys_and_values[block.number] = block.layer.keys_and_values(condition.face.to(video))
        keys, values = self._keys_and_values[block.number]
        return block.inject(video, keys, values, condition), text

    def restore(self) -> None:
        """Drop K and V: the next pass may have gradients or another prompt."""
        self._keys_and_values.clear()

    def close(self) -> None:
        self._keys_and_values.clear()
