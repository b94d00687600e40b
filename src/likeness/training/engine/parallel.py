"""Runs the loss of a stage under torch's DistributedDataParallel or FSDP2.

With DDP every process holds all weights, and gradients are averaged in buckets during the backward pass. With FSDP2
trained weights, gradients, moments and the frozen transformer are sharded by block. In one process the stage runs as it
is.
"""

import contextlib
from collections.abc import Iterable, Iterator
from contextlib import AbstractContextManager
from typing import Any, Literal

import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.distributed.fsdp import FSDPModule, fully_shard
from torch.distributed.tensor import DTensor, distribute_tensor
from torch.nn.parallel import DistributedDataParallel

from likeness.errors import ConfigError
from likeness.training.engine import distributed

Parallel = Literal["ddp", "fsdp2"]
BUCKET_MB = 100
"""Size of DDP's buckets: communication overlaps with the backward pass, and buffers stay small at any model size."""


class StageModule(nn.Module):
    """The loss of a stage as the forward pass of a module, so that DDP and FSDP2 can wrap it.

    Attributes:
        metrics: Those of the last forward pass.
    """

    def __init__(self, stage: Any) -> None:
        super().__init__()
        self.stage_modules = nn.ModuleDict(stage.modules)
        self._stage = (stage,)  # In a tuple: a stage may be a module, and is not registered.
        self.metrics: dict[str, float] = {}

    def forward(self, micro_step: int) -> Tensor:
        loss, self.metrics = self._stage[0].loss(micro_step)
        return loss


class ParallelLoss:
    """Computes the loss of a stage and its gradients, averaged over all processes.

    Args:
        stage: With `modules`, `loss(micro_step)` and, for FSDP2, `shardable()`: the modules that are sharded as units.
        parallel: How several processes share the work.
    """

    def __init__(self, stage: Any, parallel: Parallel) -> None:
        self.module: Any = StageModule(stage)
        self.is_sharded = parallel == "fsdp2" and dist.is_initialized()
        if self.is_sharded:
            self.module.base = stage.pipe.transformer  # All units need one root.
            shard(self.module, _shardable(stage))
        elif distributed.world_size() > 1:
            self.module = DistributedDataParallel(self.module, find_unused_parameters=True, bucket_cap_mb=BUCKET_MB)

    def backward(self, micro_step: int, *, loss_factor: float, is_last: bool) -> tuple[float, dict[str, float]]:
        """Add the gradients of one micro-batch; they are averaged over processes with the last one of a step.

        Args:
            micro_step: Number of the micro-batch since the start of the stage.
            loss_factor: Factor of the loss.
            is_last: Whether the optimizer steps after it.

        Returns:
            The loss of this process, not multiplied by `loss_factor`, and its metrics.
        """
        if self.is_sharded:
            self.module.set_requires_gradient_sync(is_last)
        with self._no_sync() if not is_last else contextlib.nullcontext():
            loss = self.module(micro_step)
            value = float(loss.detach())
            (loss * loss_factor).backward()
        return value, self._stage_module.metrics

    @property
    def _stage_module(self) -> StageModule:
        return self.module.module if isinstance(self.module, DistributedDataParallel) else self.module

    def _no_sync(self) -> AbstractContextManager[Any]:
        return self.module.no_sync() if isinstance(self.module, DistributedDataParallel) else contextlib.nullcontext()


def shard(root: nn.Module, units: Iterable[nn.Module]) -> None:
    """Shard modules in place by FSDP2: each of `units` is gathered when it runs; the rest belongs to `root`."""
    sharded: set[nn.Parameter] = set()
    for unit in units:
        if any(parameter not in sharded for parameter in unit.parameters()):
            # A method holds the layers of the blocks a second time.
            fully_shard(unit, ignored_params=sharded & set(unit.parameters()))
            sharded |= set(unit.parameters())
    fully_shard(root, ignored_params=sharded)


def _shardable(stage: Any) -> list[nn.Module]:
    units = getattr(stage, "shardable", None)
    if units is None:
        raise ConfigError(
            f'`parallel = "fsdp2"` is for stages of methods; {type(stage).__name__} is small. Use `parallel = "ddp"`.'
        )
    return units()


def is_sharded(module: nn.Module) -> bool:
    """Whether any part of a module was sharded by FSDP2."""
    return any(isinstance(part, FSDPModule) for part in module.modules())


def full_tensor(value: Tensor) -> Tensor:
    """The whole of a tensor that may be sharded. All processes have to call it."""
    return value.full_tensor() if isinstance(value, DTensor) else value


@torch.no_grad()
def copy_full_tensor(target: Tensor, value: Tensor) -> None:
    """Copy a whole tensor into one that may be sharded. All processes have to call it."""
    if isinstance(target, DTensor):
        target.copy_(distribute_tensor(value.to(target.device), target.device_mesh, target.placements))
    else:
        target.copy_(value)


def full_state_dict(module: nn.Module) -> Iterator[tuple[str, Tensor]]:
    """The state dict of a module with whole tensors, one at a time."""
    for name, value in module.state_dict().items():
        yield name, full_tensor(value)
