"""Sampling cache of methods whose blocks attend to identity tokens (`InjectionBlock`)."""

import torch
from torch import Tensor

from likeness.adapters.blocks.fantasy_id import InjectionBlock
from likeness.adapters.conditioning.condition import FaceCondition
from likeness.adapters.conditioning.identity_settings import StepSchedule


class KVCache:
    """K and V of one identity in every layer, computed in the first sampling step (a `SamplingCache`)."""

    def __init__(self) -> None:
        self._keys_and_values: dict[int, tuple[Tensor, Tensor]] = {}

    def is_applicable(self) -> bool:
        return True

    def prepare(
        self, _condition: FaceCondition, _timestep: Tensor, _steps: StepSchedule | None, _dtype: torch.dtype
    ) -> None:
        """Nothing to set up: K and V do not depend on the step."""

    def run_block(
        self,
        block: InjectionBlock,
        hidden_states: tuple[Tensor, ...],
        _temb: Tensor,
        _rope: tuple[Tensor, Tensor] | None,
        condition: FaceCondition,
    ) -> tuple[Tensor, Tensor]:
        """Inject into the outputs of the frozen block, video and text."""
        video, text = hidden_states
        if block.block_index not in self._keys_and_values:
            assert block.block_adapter is not None
            self._keys_and_values[block.block_index] = block.block_adapter.keys_and_values(condition.face.to(video))
        keys, values = self._keys_and_values[block.block_index]
        return block.inject(video, keys, values, condition), text

    def restore(self) -> None:
        """Drop K and V, which training would make stale. No weights are offloaded here."""
        self._keys_and_values.clear()

    def close(self) -> None:
        """Drop K and V."""
        self._keys_and_values.clear()
