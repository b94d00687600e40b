"""Sampling cache of Magic Mirror: everything that depends on step, block and identity alone is computed once.

While an identity is set and gradients are off, the modulation (shifts, scales and gates) of every block in every step,
and K and V of the face, are computed once (`CachedBlockInputs`). In a pipeline call all steps are known at the first
pass. Then the weights that made them are not needed until the identity is closed, and move to host memory. Outside of a
call, and under offload, each block caches what it computed in its first pass of a step.

The base's own modulation is made by the same products as in the stock block, row for row and step for step, so that an
inactive block is the stock block bit for bit. Training does not use this module: it needs gradients everywhere.
"""

from collections.abc import Iterable
from typing import Any

import torch
from diffusers.hooks.group_offloading import _is_group_offload_enabled
from diffusers.models.transformers.cogvideox_transformer_3d import CogVideoXTransformer3DModel
from torch import Tensor, nn

from likeness.adapters.blocks.magic_mirror import FaceBlock
from likeness.adapters.blocks.packed_layout import CachedBlockInputs
from likeness.adapters.conditioning.condition import FaceCondition
from likeness.adapters.conditioning.identity_settings import ActiveBlocks, StepSchedule
from likeness.adapters.sampling.packed_block import run_packed

Key = tuple[float, int, ActiveBlocks]
"""Timestep, batch size and active blocks of a pass."""
MAX_CACHED_STEPS = 128
"""Outside of a pipeline call the number of steps is not known: beyond this many the oldest is dropped."""


class CachedLinear(nn.Module):
    """Replaces a norm's linear and returns the rows that it would have computed.

    It holds the parameters under their stock names, so that state dicts are the stock ones while the weights are
    offloaded.
    """

    def __init__(self, linear: nn.Linear) -> None:
        super().__init__()
        self.weight, self.bias = linear.weight, linear.bias
        self.linear = (linear,)  # In a tuple, so that its parameters are not registered twice.
        self.output: Tensor | None = None
        self.train(linear.training)

    def forward(self, temb: Tensor) -> Tensor:
        assert self.output is not None, "nothing is cached for this block and step"
        return self.output[-len(temb) :]


class OffloadedParameters:
    """Parameters in host memory for a while. On a CPU they stay in place and are only counted as offloaded."""

    def __init__(self, parameters: Iterable[nn.Parameter]) -> None:
        self._offloaded: list[tuple[nn.Parameter, torch.device]] = []
        self.num_bytes = 0
        with torch.inference_mode(False):  # Parameters must not become tensors that can never train again.
            for parameter in dict.fromkeys(parameters):
                self.num_bytes += parameter.numel() * parameter.element_size()
                if parameter.device.type not in ("cpu", "meta"):
                    host = torch.empty_like(parameter, device="cpu", pin_memory=parameter.is_cuda)
                    self._offloaded.append((parameter, parameter.device))
                    parameter.data = host.copy_(parameter.data)

    def restore(self) -> None:
        """Move the parameters back to their device."""
        with torch.inference_mode(False):
            while self._offloaded:
                parameter, device = self._offloaded[-1]
                parameter.data = parameter.data.to(device)
                self._offloaded.pop()
        self.num_bytes = 0


class ModulationCache:
    """Cached modulation, K and V of one identity on one transformer (a `SamplingCache`).

    Args:
        transformer: The transformer that the method is attached to.
        method: The method. Its parameters are offloaded together with those of the norms.
    """

    def __init__(self, transformer: CogVideoXTransformer3DModel, method: nn.Module) -> None:
        self.transformer, self.method = transformer, method
        self.blocks: list[FaceBlock] = list(transformer.transformer_blocks)  # pyright: ignore[reportAttributeAccessIssue]
        self._cached_inputs: dict[Key, dict[int, CachedBlockInputs | tuple[Tensor, Tensor]]] = {}
        self._precomputed_keys: set[Key] = set()
        self._keys_values: dict[tuple[int, int], tuple[Tensor, Tensor] | tuple[None, None]] = {}
        self._offloaded: OffloadedParameters | None = None
        self._key: Key | None = None
        """Of the current pass; None where rows have different timesteps."""

    def is_applicable(self) -> bool:
        """Whether the output of a norm depends on step, block and identity alone.

        A LoRA on a norm can change its weight between steps, and parallel attention splits tokens over processes.
        """
        blocks: Any = self.transformer.transformer_blocks
        linears = [norm.linear for block in blocks for norm in (block.base.norm1, block.base.norm2)]
        block_adapters = [block.block_adapter for block in blocks if block.block_adapter is not None]
        return not any(hasattr(linear, "base_layer") for linear in linears) and not any(
            block_adapter.attention.processor._parallel_config is not None for block_adapter in block_adapters
        )

    @property
    def offloaded_bytes(self) -> int:
        """Size of the parameters that are offloaded now."""
        return 0 if self._offloaded is None else self._offloaded.num_bytes

    @property
    def cached_bytes(self) -> int:
        """Size of the cached tensors that replace them."""
        sizes: dict[int, int] = {}
        for by_block in self._cached_inputs.values():
            for entry in by_block.values():
                for tensor in entry.tensors() if isinstance(entry, CachedBlockInputs) else entry:
                    sizes[id(tensor)] = tensor.numel() * tensor.element_size()
        return sum(sizes.values())

    def prepare(
        self, condition: FaceCondition, timestep: Tensor, steps: StepSchedule | None, dtype: torch.dtype
    ) -> None:
        """Give the blocks their cached inputs of the coming pass; compute all steps first where they are not cached.

        Args:
            condition: Of this pass.
            timestep: (batch,). Where rows have different timesteps nothing is cached.
            steps: All steps of the pipeline call; None outside of one.
            dtype: Of the transformer's activations.
        """
        values = timestep.flatten().tolist()
        key = (values[0], condition.layout.num_rows, condition.active_blocks)
        self._key = key if len(set(values)) == 1 else None
        is_cached = self._key in self._precomputed_keys
        if steps is None or self._key is None or not self._can_offload():
            self.restore()
        elif not is_cached:
            self.restore()
            self._cached_inputs.clear()
            self._precompute(condition, steps, timestep, dtype)
            self._offload()
        elif self._offloaded is None:
            self._offload()
        by_block = self._cached_inputs.get(self._key, {}) if self._key is not None else {}
        for block in self.blocks:
            entry = by_block.get(block.block_index)
            block.cached_inputs = entry if isinstance(entry, CachedBlockInputs) else None
            if isinstance(entry, tuple):
                for norm, output in zip((block.base.norm1, block.base.norm2), entry, strict=True):
                    if isinstance(norm.linear, CachedLinear):
                        norm.linear.output = output

    def run_block(
        self,
        block: FaceBlock,
        hidden_states: tuple[Tensor, ...],
        temb: Tensor,
        rope: tuple[Tensor, Tensor] | None,
        condition: FaceCondition,
    ) -> tuple[Tensor, Tensor]:
        """Run one block over video, text and face with its cached inputs (`run_packed`)."""
        cached_inputs = block.cached_inputs or self._compute_inputs(block, temb, condition)
        return run_packed(block, hidden_states, rope, cached_inputs.last(len(temb)), condition)

    @torch.no_grad()
    def _compute_inputs(self, block: FaceBlock, temb: Tensor, condition: FaceCondition) -> CachedBlockInputs:
        """Compute the inputs of one block in one step, and cache them where all rows have the same timestep."""
        (cached_inputs,) = self._inputs_of(block, [temb], condition)
        if self._key is not None and len(temb) == condition.layout.num_rows:
            if self._key not in self._cached_inputs and len(self._cached_inputs) >= MAX_CACHED_STEPS:
                self._cached_inputs.pop(next(iter(self._cached_inputs)))
            self._cached_inputs.setdefault(self._key, {})[block.block_index] = cached_inputs
        return cached_inputs

    def restore(self) -> None:
        """Move offloaded weights back, and put the norms' own linears back. What is cached stays valid."""
        if self._offloaded is not None:
            self._offloaded.restore()
            self._offloaded = None
        for block in self.blocks:
            for norm in (block.base.norm1, block.base.norm2):
                if isinstance(norm.linear, CachedLinear):
                    norm.linear = norm.linear.linear[0]

    def close(self) -> None:
        """Restore the transformer and drop all that is cached."""
        self.restore()
        for block in self.blocks:
            block.cached_inputs = None
        self._cached_inputs.clear()
        self._precomputed_keys.clear()
        self._keys_values.clear()

    def _can_offload(self) -> bool:
        """Whether weights may be offloaded: not under diffusers' own offload, and not where they are quantized."""
        if _is_group_offload_enabled(self.transformer):
            return False
        if any(hasattr(module, "_hf_hook") for module in self.transformer.modules()):
            return False
        norms = [norm for block in self.blocks for norm in (block.base.norm1, block.base.norm2)]
        return all(
            isinstance(norm.linear, CachedLinear)
            or (type(norm.linear) is nn.Linear and type(norm.linear.weight) is nn.Parameter)
            for norm in norms
        ) and all(type(parameter) is nn.Parameter for parameter in self.method.parameters())

    @torch.no_grad()
    def _precompute(self, condition: FaceCondition, steps: StepSchedule, timestep: Tensor, dtype: torch.dtype) -> None:
        """Compute the inputs of every block in every step, and cache them."""
        transformer, batch = self.transformer, condition.layout.num_rows
        like = timestep.to(transformer.device)
        projected = [transformer.time_proj(torch.full_like(like, step)).to(dtype) for step, _ in steps]
        tembs = [transformer.time_embedding(x, None) for x in projected]
        keys: list[Key] = [(step, batch, active_blocks) for step, active_blocks in steps]
        self._cached_inputs = {key: {} for key in keys}
        for block in self.blocks:
            is_active = [block.is_active(active_blocks) for _, active_blocks in steps]
            active_tembs = [temb for temb, active in zip(tembs, is_active, strict=True) if active]
            cached_inputs = iter(self._inputs_of(block, active_tembs, condition) if active_tembs else ())
            for key, temb, active in zip(keys, tembs, is_active, strict=True):
                self._cached_inputs[key][block.block_index] = (
                    next(cached_inputs) if active else _base_modulation(block, temb)
                )
        self._precomputed_keys = set(keys)

    def _inputs_of(self, block: FaceBlock, tembs: list[Tensor], condition: FaceCondition) -> list[CachedBlockInputs]:
        """Eqs. 5 and 6 for several steps at once, on top of the base's own modulation.

        Shapes:
            tembs: one for each step, each (batch, time_width)
        """
        block_adapter = block.block_adapter
        assert block_adapter is not None
        adapted_rows, stock_rows = condition.split(len(tembs[0]))
        num_stock_rows = len(stock_rows)
        condition = condition.select(adapted_rows)
        modulation1, modulation2 = (
            torch.stack(part) for part in zip(*(_base_modulation(block, temb) for temb in tembs), strict=True)
        )  # (steps, batch, 6 width)
        temb = torch.stack(tembs)[:, num_stock_rows:]  # (steps, adapted_rows, time_width)
        num_steps, adapted = temb.shape[:2]
        if block_adapter.conditioned_norm is not None and condition.identity is not None:
            identity = condition.identity.to(temb)
            identity = identity.expand(num_steps, *identity.shape).flatten(0, 1)
            shift = modulation1[:, num_stock_rows:].chunk(6, dim=-1)[0].flatten(0, 1)
            if (people := condition.layout.num_people) > 1:  # (steps, batch, people, 6 width)
                modulation1, modulation2 = (
                    modulation[:, :, None].repeat(1, 1, people, 1) for modulation in (modulation1, modulation2)
                )
            offsets = block_adapter.conditioned_norm(identity, temb.flatten(0, 1), shift)
            for modulation, offset in zip((modulation1, modulation2), offsets, strict=True):
                modulation[:, num_stock_rows:] += condition.scale * offset.unflatten(0, (num_steps, adapted))
        for modulation in (modulation1, modulation2):
            modulation.unflatten(-1, (6, -1))[..., 1::3, :] += 1  # scales: 1 + sigma
        faces: list[Any] = [(None, None)] * num_steps
        if block_adapter.face_norm is not None:
            face1, face2 = (part.unflatten(0, (num_steps, adapted)).contiguous()
                            for part in block_adapter.face_norm(temb.flatten(0, 1)))  # fmt: skip
            for modulation in (face1, face2):
                modulation.unflatten(-1, (3, -1))[:, :, 1] += 1
            faces = list(zip(face1, face2, strict=True))
        keys, values = self._keys_and_values(block, condition.face.to(temb))
        return [
            CachedBlockInputs(modulation1=one, modulation2=two, face1=face[0], face2=face[1], keys=keys, values=values)
            for one, two, face in zip(modulation1, modulation2, faces, strict=True)
        ]

    def _keys_and_values(self, block: FaceBlock, face: Tensor) -> tuple[Tensor, Tensor] | tuple[None, None]:
        """Return K and V of a block. A pass may adapt all rows or half of them, so both are cached."""
        assert block.block_adapter is not None
        key = (block.block_index, len(face))
        if key not in self._keys_values:
            self._keys_values[key] = block.block_adapter.attention.keys_and_values(block.base.attn1, face)
        return self._keys_values[key]

    def _offload(self) -> None:
        """Offload the weights that the cached inputs replace."""
        replaced = list(self.method.parameters())
        for block in self.blocks:
            for norm in (block.base.norm1, block.base.norm2):
                assert isinstance(norm.linear, nn.Linear)
                replaced += norm.linear.parameters()
                cached: Any = CachedLinear(norm.linear)
                norm.linear = cached
        self._offloaded = OffloadedParameters(replaced)


def _base_modulation(block: FaceBlock, temb: Tensor) -> tuple[Tensor, Tensor]:
    """phi_vid and phi_txt as the stock block computes them: each (batch, 6 width)."""
    norm1, norm2 = block.base.norm1, block.base.norm2
    return norm1.linear(norm1.silu(temb)), norm2.linear(norm2.silu(temb))
