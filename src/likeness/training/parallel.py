"""One training process a core, gradients averaged between them. With one process every function here does nothing.

Two processes of one thread each train more than ten times as fast as one process of two threads when something else
runs on the machine: threads wait for each other in every operation, processes once a step.
"""

import os
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import timedelta
from pathlib import Path

import torch
import torch.distributed as dist
from torch import Tensor

_RANK, _WORLD, _STORE = "LIKENESS_RANK", "LIKENESS_WORLD", "LIKENESS_STORE"
_PATIENCE = timedelta(hours=3)


def rank() -> int:
    """This process's number; 0 writes and talks."""
    return dist.get_rank() if dist.is_initialized() else 0


def world() -> int:
    """Processes in all."""
    return dist.get_world_size() if dist.is_initialized() else 1


def is_peer() -> bool:
    """Was this process started by another one's `together`?"""
    return _RANK in os.environ


@contextmanager
def together(processes: int) -> Iterator[None]:
    """Run the body in `processes` processes: this one, and others started with this one's command line."""
    if processes == 1 and not is_peer():
        yield
        return
    torch.set_num_threads(1)
    if is_peer():
        _join(os.environ[_STORE], int(os.environ[_RANK]), int(os.environ[_WORLD]))
        yield
        dist.barrier()
        return
    with tempfile.TemporaryDirectory() as folder:
        store = str(Path(folder) / "store")
        settings = {**os.environ, _WORLD: str(processes), _STORE: store, "OMP_NUM_THREADS": "1"}
        command = [sys.executable, "-m", "likeness", *sys.argv[1:]]
        peers = [
            subprocess.Popen(command, env={**settings, _RANK: str(number)}, stdout=subprocess.DEVNULL)
            for number in range(1, processes)
        ]
        try:
            _join(store, 0, processes)
            yield
            dist.barrier()
        finally:
            dist.destroy_process_group()
            for peer in peers:
                _end(peer)


def wait() -> None:
    """Go on when every process is here."""
    if dist.is_initialized():
        dist.barrier()


def average(gradients: list[Tensor], told: list[float]) -> list[float]:
    """Average gradients in place between processes; every process gets the numbers that process 0 told."""
    if not dist.is_initialized():
        return told
    number, count = len(told), world()
    head = (
        torch.tensor(told, dtype=torch.float64) if rank() == 0 else torch.zeros(number, dtype=torch.float64)
    )
    flat = torch.cat([gradient.flatten() for gradient in gradients])
    dist.broadcast(head, 0)
    dist.all_reduce(flat)
    flat /= count
    for gradient, part in zip(gradients, flat.split([g.numel() for g in gradients]), strict=True):
        gradient.copy_(part.view_as(gradient))
    return head.tolist()


def _join(store: str, number: int, count: int) -> None:
    dist.init_process_group(
        "gloo", init_method=f"file://{store}", rank=number, world_size=count, timeout=_PATIENCE
    )


def _end(peer: subprocess.Popen[bytes]) -> None:
    try:
        peer.wait(timeout=10)
    except subprocess.TimeoutExpired:
        peer.kill()
        peer.wait()
