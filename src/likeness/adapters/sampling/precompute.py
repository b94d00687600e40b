"""Sampling cache of Magic Mirror: everything that depends on step, block and identity alone is computed once.

While an identity is set and gradients are off, the factors of every block in every step, and K and V of the face, are
computed once (`BlockTables`). In a pipeline call all steps are known at the first pass. Then the weights that made the
tables are not needed until the identity is closed, and move to host memory. Outside of a call, and under offload, each
block caches what it computed in its first pass of a step.

The base's own factors are made by the same products as in the stock block, row for row and step for step, so that an
inactive block is the stock block bit for bit. Training does not use this module: it needs gradients everywhere.
"""

from collections.abc import Iterable
from typing import Any

import torch
from diffusers.hooks.group_offloading import _is_group_offload_enabled
from diffusers.models.transformers.cogvideox_transformer_3d import CogVideoXTransformer3DModel
from torch import Tensor, nn

from likeness.adapters.blocks.magic_mirror import FaceBlock
from likeness.adapters.blocks.packed_layout import BlockTables
from likeness.adapters.conditioning.condition import FaceCondition
from likeness.adapters.conditioning.controls import ActiveBlocks, Steps
from likeness.adapters.sampling.packed_block import run_packed

Key = tuple[float, int, ActiveBlocks]
"""Timestep, batch size and active blocks of a pass."""
MAX_STEPS = 128
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
        self.rows: Tensor | None = None
        self.train(linear.training)

    def forward(self, time: Tensor) -> Tensor:
        assert self.rows is not None, "the table has no row for this block and step"
        return self.rows[-len(time) :]


class OffloadedParameters:
    """Parameters in host memory for a while. On a CPU they stay in place and are only counted as released."""

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
    """Tables of one identity on one transformer (a `SamplingCache`).

    Args:
        transformer: The transformer that the method is attached to.
        owner: The method. Its parameters are offloaded together with those of the norms.
    """

    def __init__(self, transformer: CogVideoXTransformer3DModel, owner: nn.Module) -> None:
        self.transformer, self.owner = transformer, owner
        self.blocks: list[FaceBlock] = list(transformer.transformer_blocks)  # pyright: ignore[reportAttributeAccessIssue]
        self._tables: dict[Key, dict[int, BlockTables | tuple[Tensor, Tensor]]] = {}
        self._complete: set[Key] = set()
        self._keys_values: dict[tuple[int, int], tuple[Tensor, Tensor] | tuple[None, None]] = {}
        self._released: OffloadedParameters | None = None
        self._key: Key | None = None
        """Of the current pass; None where rows have different timesteps."""

    def is_applicable(self) -> bool:
        """Whether the output of a norm depends on step, block and identity alone.

        A LoRA on a norm can change its weight between steps, and parallel attention splits tokens over processes.
        """
        blocks: Any = self.transformer.transformer_blocks
        linears = [norm.linear for block in blocks for norm in (block.base.norm1, block.base.norm2)]
        layers = [block.layer for block in blocks if block.layer is not None]
        return not any(hasattr(linear, "base_layer") for linear in linears) and not any(
            layer.attention.processor._parallel_config is not None for layer in layers
        )

    @property
    def released_bytes(self) -> int:
        """Size of the parameters that are offloaded now."""
        return 0 if self._released is None else self._released.num_bytes

    @property
    def table_bytes(self) -> int:
        """Size of the tables that replace them."""
        sizes: dict[int, int] = {}
        for table in self._tables.values():
            for entry in table.values():
                for tensor in entry.tensors() if isinstance(entry, BlockTables) else entry:
                    sizes[id(tensor)] = tensor.numel() * tensor.element_size()
        return sum(sizes.values())

    def prepare(self, condition: FaceCondition, timestep: Tensor, steps: Steps | None, dtype: torch.dtype) -> None:
        """Give the blocks their tables of the coming pass; compute all steps first where they are not known.

        Args:
            condition: Of this pass.
            timestep: (batch,). Where rows have different timesteps nothing is cached.
            steps: All steps of the pipeline call; None outside of one.
            dtype: Of the transformer's activations.
        """
        values = timestep.flatten().tolist()
        key = (values[0], condition.layout.num_rows, condition.active_blocks)
        self._key = key if len(set(values)) == 1 else None
        is_known = self._key in self._complete
        if steps is None or self._key is None or not self._can_release():
            self.restore()
        elif not is_known:
            self.restore()
            self._tables.clear()
            self._fill(condition, steps, timestep, dtype)
            self._release()
        elif self._released is None:
            self._release()
        table = self._tables.get(self._key, {}) if self._key is not None else {}
        for block in self.blocks:
            entry = table.get(block.number)
            block.tables = entry if isinstance(entry, BlockTables) else None
            if isinstance(entry, tuple):
                for norm, rows in zip((block.base.norm1, block.base.norm2), entry, strict=True):
                    if isinstance(norm.linear, CachedLinear):
                        norm.linear.rows = rows

    def run_block(
        self,
        block: FaceBlock,
        states: tuple[Tensor, ...],
        time: Tensor,
        rope: tuple[Tensor, Tensor] | None,
        condition: FaceCondition,
    ) -> tuple[Tensor, Tensor]:
        """Run one block over video, text and face with its tables (`run_packed`)."""
        tables = block.tables or self._compute_once(block, time, condition)
        return run_packed(block, states, rope, tables.last(len(time)), condition)

    @torch.no_grad()
    def _compute_once(self, block: FaceBlock, time: Tensor, condition: FaceCondition) -> BlockTables:
        """Compute the tables of one block in one step, and cache them where all rows have the same timestep."""
        (tables,) = self._tables_of(block, [time], condition)
        if self._key is not None and len(time) == condition.layout.num_rows:
            if self._key not in self._tables and len(self._tables) >= MAX_STEPS:
                self._tables.pop(next(iter(self._tables)))
            self._tables.setdefault(self._key, {})[block.number] = tables
        return tables

    def restore(self) -> None:
        """Move offloaded weights back, and put the norms' own linears back."""
        if self._released is not None:
            self._released.restore()
            self._released = None
        for block in self.blocks:
            for norm in (block.base.norm1, block.base.norm2):
                if isinstance(norm.linear, CachedLinear):
                    norm.linear = norm.linear.linear[0]

    def close(self) -> None:
        """Restore the transformer and drop all tables."""
        self.restore()
        for block in self.blocks:
            block.tables = None
        self._tables.clear()
        self._complete.clear()
        self._keys_values.clear()

    def _can_release(self) -> bool:
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
        ) and all(type(parameter) is nn.Parameter for parameter in self.owner.parameters())

    @torch.no_grad()
    def _fill(self, condition: FaceCondition, steps: Steps, timestep: Tensor, dtype: torch.dtype) -> None:
        """Compute the tables of every block in every step."""
        transformer, batch = self.transformer, condition.layout.num_rows
        like = timestep.to(transformer.device)
        projected = [transformer.time_proj(torch.full_like(like, step)).to(dtype) for step, _ in steps]
        times = [transformer.time_embedding(x, None) for x in projected]
        keys: list[Key] = [(step, batch, active_blocks) for step, active_blocks in steps]
        self._tables = {key: {} for key in keys}
        for block in self.blocks:
            is_active = [block.is_active(active_blocks) for _, active_blocks in steps]
            active_times = [time for time, active in zip(times, is_active, strict=True) if active]
            tables = iter(self._tables_of(block, active_times, condition) if active_times else ())
            for key, time, active in zip(keys, times, is_active, strict=True):
                self._tables[key][block.number] = next(tables) if active else _factors(block, time)
        self._complete = set(keys)

    def _tables_of(self, block: FaceBlock, times: list[Tensor], condition: FaceCondition) -> list[BlockTables]:
        """Eqs. 5 and 6 for several steps at once, on top of the base's own factors.

        Shapes:
            times: each (batch, time_width)
        """
        layer = block.layer
        assert layer is not None
        stock = len(condition.split(len(times[0]))[1])
        condition = condition.take(condition.split(len(times[0]))[0])
        factors1, factors2 = (
            torch.stack(part) for part in zip(*(_factors(block, time) for time in times), strict=True)
        )  # (steps, batch, 6 width)
        time = torch.stack(times)[:, stock:]  # (steps, adapted_rows, time_width)
        num_steps, adapted = time.shape[:2]
        if layer.conditioned_norm is not None and condition.identity is not None:
            identity = condition.identity.to(time)
            identity = identity.expand(num_steps, *identity.shape).flatten(0, 1)
            shift = factors1[:, stock:].chunk(6, dim=-1)[0].flatten(0, 1)
            if (people := condition.layout.num_people) > 1:  # (steps, batch, people, 6 width)
                factors1, factors2 = (factors[:, :, None].repeat(1, 1, people, 1) for factors in (factors1, factors2))
            added = layer.conditioned_norm(identity, time.flatten(0, 1), shift)
            for factors, more in zip((factors1, factors2), added, strict=True):
                factors[:, stock:] += condition.scale * more.unflatten(0, (num_steps, adapted))
        for factors in (factors1, factors2):
            factors.unflatten(-1, (6, -1))[..., 1::3, :] += 1  # scales: 1 + sigma
        faces: list[Any] = [(None, None)] * num_steps
        if layer.face_norm is not None:
            face1, face2 = (part.unflatten(0, (num_steps, adapted)).contiguous()
                            for part in layer.face_norm(time.flatten(0, 1)))  # fmt: skip
            for factors in (face1, face2):
                factors.unflatten(-1, (3, -1))[:, :, 1] += 1
            faces = list(zip(face1, face2, strict=True))
        keys, values = self._keys_and_values(block, condition.face.to(time))
        return [
            BlockTables(factors1=one, factors2=two, face1=face[0], face2=face[1], keys=keys, values=values)
            for one, two, face in zip(factors1, factors2, faces, strict=True)
        ]

    def _keys_and_values(self, block: FaceBlock, face: Tensor) -> tuple[Tensor, Tensor] | tuple[None, None]:
        """Return K and V of a block. A pass may adapt all rows or half of them, so both are cached."""
        assert block.layer is not None
        key = (block.number, len(face))
        if key not in self._keys_values:
            self._keys_values[key] = block.layer.attention.keys_and_values(block.base.attn1, face)
        return self._keys_values[key]

    def _release(self) -> None:
        """Offload the weights that the tables replace."""
        replaced = list(self.owner.parameters())
        for block in self.blocks:
            for norm in (block.base.norm1, block.base.norm2):
                assert isinstance(norm.linear, nn.Linear)
                replaced += norm.linear.parameters()
                table: Any = CachedLinear(norm.linear)
                norm.linear = table
        self._released = OffloadedParameters(replaced)


def _factors(block: FaceBlock, time: Tensor) -> tuple[Tensor, Tensor]:
    """phi_vid and phi_txt as the stock block computes them: each (batch, 6 width)."""
    norm1, norm2 = block.base.norm1, block.base.norm2
    return norm1.linear(norm1.silu(time)), norm2.linear(norm2.silu(time))
