"""What leaves the denoising loop: everything that depends on step, block and identity alone.

While an identity is on and no gradient is asked for, the factors of every block in every step, and K and V of the face,
are computed once and kept (`BlockTables`). In a pipeline's call all steps are known at the first pass; then the weights
that made them are not needed any more and leave the device until the identity is off. Elsewhere, and under offload, each
block keeps what it computed at its first visit.

The base's own factors are made by the very products of the stock block, row for row and step for step, so that a block
in which nothing acts stays the stock block bit for bit. It is not for training: there all of it has gradients.
"""

from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING, Any

import torch
from diffusers.hooks.group_offloading import _is_group_offload_enabled
from diffusers.models.transformers.cogvideox_transformer_3d import CogVideoXTransformer3DModel
from torch import Tensor, nn

from likeness.adapters.sampling.packed_block import BlockTables

if TYPE_CHECKING:
    from likeness.adapters.blocks.magic_mirror import FaceBlock
    from likeness.adapters.conditioning.condition import FaceCondition

Acting = frozenset[int] | None
Steps = Sequence[tuple[float, Acting]]
"""Every step of a pipeline's call: its timestep, and the blocks that act in it (None for all that are adapted)."""
Key = tuple[float, int, Acting]
MAX_KEPT_STEPS = 128
"""Outside of a pipeline's call nobody says how many steps come: the oldest are dropped beyond this."""


class CachedLinear(nn.Module):
    """Stands where a norm's linear was, and gives the row that it would have made.

    It holds the parameters under their stock names, so that state dicts stay stock while they are away.
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
    """Parameters that are off their device for a while. On a CPU they stay where they are and only count as released."""

    def __init__(self, parameters: Iterable[nn.Parameter]) -> None:
        self._away: list[tuple[nn.Parameter, torch.device]] = []
        self.num_bytes = 0
        with torch.inference_mode(False):  # Parameters must not become tensors that can never train again.
            for parameter in dict.fromkeys(parameters):
                self.num_bytes += parameter.numel() * parameter.element_size()
                if parameter.device.type not in ("cpu", "meta"):
                    host = torch.empty_like(parameter, device="cpu", pin_memory=parameter.is_cuda)
                    self._away.append((parameter, parameter.device))
                    parameter.data = host.copy_(parameter.data)

    def back(self) -> None:
        with torch.inference_mode(False):
            while self._away:
                parameter, device = self._away[-1]
                parameter.data = parameter.data.to(device)
                self._away.pop()
        self.num_bytes = 0


class ModulationCache:
    """The tables of one identity on one transformer.

    Args:
        transformer: It wears the adapter.
        owner: The method, whose parameters leave with those of the norms.
    """

    def __init__(self, transformer: CogVideoXTransformer3DModel, owner: nn.Module) -> None:
        self.transformer, self.owner = transformer, owner
        self.blocks: list[FaceBlock] = list(transformer.transformer_blocks)  # pyright: ignore[reportAttributeAccessIssue]
        self._tables: dict[Key, dict[int, BlockTables | tuple[Tensor, Tensor]]] = {}
        self._complete: set[Key] = set()
        self._faces: dict[tuple[int, int], tuple[Tensor, Tensor] | tuple[None, None]] = {}
        self._released: OffloadedParameters | None = None
        self._now: Key | None = None

    @staticmethod
    def suits(transformer: CogVideoXTransformer3DModel) -> bool:
        """Whether nothing but step, block and identity decides what a norm gives.

        A LoRA on a norm can change its weight between steps, and parallel attention splits tokens over processes.
        """
        blocks: Any = transformer.transformer_blocks
        linears = [norm.linear for block in blocks for norm in (block.base.norm1, block.base.norm2)]
        layers = [block.layer for block in blocks if block.layer is not None]
        return not any(hasattr(linear, "base_layer") for linear in linears) and not any(
            layer.attention.processor._parallel_config is not None for layer in layers
        )

    @property
    def released_bytes(self) -> int:
        """Size of the parameters that are away from the device now."""
        return 0 if self._released is None else self._released.num_bytes

    @property
    def table_bytes(self) -> int:
        """Size of what is kept in their place."""
        kept: dict[int, int] = {}
        for table in self._tables.values():
            for entry in table.values():
                for tensor in entry.tensors() if isinstance(entry, BlockTables) else entry:
                    kept[id(tensor)] = tensor.numel() * tensor.element_size()
        return sum(kept.values())

    def enter(self, condition: "FaceCondition", timestep: Tensor, steps: Steps | None, dtype: torch.dtype) -> None:
        """Lay out what the blocks read in the coming pass; compute it first where that is due.

        Args:
            condition: Of this pass; it decides `batch`, and which blocks act.
            timestep: (batch,). Where rows differ in it nothing is kept.
            steps: All of the pipeline's call; None outside of one.
            dtype: Of the transformer's activations.
        """
        values = timestep.flatten().tolist()
        self._now = (values[0], condition.batch, condition.acting) if len(set(values)) == 1 else None
        is_known = self._now in self._complete
        if steps is None or self._now is None or not self._can_release():
            self.restore()
        elif not is_known:
            self.restore()
            self._tables.clear()
            self._fill(condition, steps, timestep, dtype)
            self._release()
        elif self._released is None:
            self._release()
        table = self._tables.get(self._now, {}) if self._now is not None else {}
        for block in self.blocks:
            entry = table.get(block.number)
            block.tables = entry if isinstance(entry, BlockTables) else None
            if isinstance(entry, tuple):
                for norm, rows in zip((block.base.norm1, block.base.norm2), entry, strict=True):
                    if isinstance(norm.linear, CachedLinear):
                        norm.linear.rows = rows

    @torch.no_grad()
    def visit(self, block: "FaceBlock", time: Tensor, condition: "FaceCondition") -> BlockTables:
        """Tables of one block at its first visit in a step; kept for the next, if rows do not differ in their step."""
        (tables,) = self._tables_of(block, [time], condition)
        if self._now is not None and len(time) == condition.batch:
            if self._now not in self._tables and len(self._tables) >= MAX_KEPT_STEPS:
                self._tables.pop(next(iter(self._tables)))
            self._tables.setdefault(self._now, {})[block.number] = tables
        return tables

    def restore(self) -> None:
        """Bring every weight back and every norm's linear back into its place."""
        if self._released is not None:
            self._released.back()
            self._released = None
        for block in self.blocks:
            for norm in (block.base.norm1, block.base.norm2):
                if isinstance(norm.linear, CachedLinear):
                    norm.linear = norm.linear.linear[0]

    def close(self) -> None:
        """Forget all of it; the transformer is as it was."""
        self.restore()
        for block in self.blocks:
            block.tables = None
        self._tables.clear()
        self._complete.clear()
        self._faces.clear()

    def _can_release(self) -> bool:
        """Whether the weights lie still: offload moves them itself, and quantized ones are no plain parameters."""
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
    def _fill(self, condition: "FaceCondition", steps: Steps, timestep: Tensor, dtype: torch.dtype) -> None:
        """Compute every block's part of every step."""
        transformer, batch = self.transformer, condition.batch
        like = timestep.to(transformer.device)
        projected = [transformer.time_proj(torch.full_like(like, step)).to(dtype) for step, _ in steps]
        times = [transformer.time_embedding(x, None) for x in projected]
        keys: list[Key] = [(step, batch, acting) for step, acting in steps]
        self._tables = {key: {} for key in keys}
        for block in self.blocks:
            mine = [block.acts(acting) for _, acting in steps]
            acting_times = [time for time, acts in zip(times, mine, strict=True) if acts]
            tables = iter(self._tables_of(block, acting_times, condition) if acting_times else ())
            for key, time, acts in zip(keys, times, mine, strict=True):
                self._tables[key][block.number] = next(tables) if acts else _factors(block, time)
        self._complete = set(keys)

    def _tables_of(self, block: "FaceBlock", times: list[Tensor], condition: "FaceCondition") -> list[BlockTables]:
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
            if condition.num_people > 1:  # (steps, batch, people, 6 width)
                factors1, factors2 = (
                    factors[:, :, None].repeat(1, 1, condition.num_people, 1) for factors in (factors1, factors2)
                )
            added = layer.conditioned_norm(identity, time.flatten(0, 1), shift)
            for factors, more in zip((factors1, factors2), added, strict=True):
                factors[:, stock:] += condition.scale * more.unflatten(0, (num_steps, adapted))
        for factors in (factors1, factors2):
            factors.unflatten(-1, (6, -1))[..., 1::3, :] += 1
        faces: list[Any] = [(None, None)] * num_steps
        if layer.face_norm is not None:
            face1, face2 = (part.unflatten(0, (num_steps, adapted)).contiguous()
                            for part in layer.face_norm(time.flatten(0, 1)))  # fmt: skip
            for factors in (face1, face2):
                factors.unflatten(-1, (3, -1))[:, :, 1] += 1
            faces = list(zip(face1, face2, strict=True))
        keys, values = self._face_of(block, condition.face.to(time))
        return [
            BlockTables(factors1=one, factors2=two, face1=face[0], face2=face[1], keys=keys, values=values)
            for one, two, face in zip(factors1, factors2, faces, strict=True)
        ]

    def _face_of(self, block: "FaceBlock", face: Tensor) -> tuple[Tensor, Tensor] | tuple[None, None]:
        """K and V, once per identity. The whole batch may be adapted in one pass and half of it in another."""
        assert block.layer is not None
        key = (block.number, len(face))
        if key not in self._faces:
            self._faces[key] = block.layer.attention.keys_and_values(block.base.attn1, face)
        return self._faces[key]

    def _release(self) -> None:
        away = list(self.owner.parameters())
        for block in self.blocks:
            for norm in (block.base.norm1, block.base.norm2):
                assert isinstance(norm.linear, nn.Linear)
                away += norm.linear.parameters()
                table: Any = CachedLinear(norm.linear)
                norm.linear = table
        self._released = OffloadedParameters(away)


def _factors(block: "FaceBlock", time: Tensor) -> tuple[Tensor, Tensor]:
    """phi_vid and phi_txt as the stock block computes them: each (batch, 6 width)."""
    norm1, norm2 = block.base.norm1, block.base.norm2
    return norm1.linear(norm1.silu(time)), norm2.linear(norm2.silu(time))
