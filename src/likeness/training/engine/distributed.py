"""Data parallelism with one training process per core. With a single process every function here does nothing.

Two processes of one thread each train more than ten times as fast as one process of two threads when something else
runs on the machine: threads synchronize in every operation, processes once a step.

A process never waits for a dead one: each peer watches process 0, which watches its peers. Before the process group is
joined they synchronize through files in Python, where Ctrl-C is handled.
"""

import _thread
import contextlib
import os
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import timedelta
from pathlib import Path
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor

from likeness.errors import ResourceError
from likeness.runtime import choose_device

_RANK, _WORLD_SIZE, _STORE, _RANK_ZERO_PID = (
    "LIKENESS_RANK",
    "LIKENESS_WORLD",
    "LIKENESS_STORE",
    "LIKENESS_FIRST",
)
_GROUP_TIMEOUT = timedelta(days=30)
"""Timeout of collective operations: one process can render for hours while the others wait."""
_START_TIMEOUT_S = 600.0
"""Seconds for all processes to start."""
_GRACE_S = 20.0
"""Seconds for a process to end by itself after a peer has died."""
_POLL_S = 0.2
_EXPECTED_CODES = (0, 130, 143)
"""Exit codes of peers that are no failure: done, or stopped with everything saved."""


def rank() -> int:
    """Number of this process; process 0 writes files and logs."""
    return dist.get_rank() if dist.is_initialized() else 0


def world_size() -> int:
    """Number of processes."""
    return dist.get_world_size() if dist.is_initialized() else 1


def is_peer() -> bool:
    """Whether this process was started by `launch` of another process, or is not the first one of torchrun's."""
    return _RANK in os.environ or (is_torchrun() and int(os.environ["RANK"]) > 0)


def is_torchrun() -> bool:
    """Whether torchrun (or another launcher with its environment variables) has started this process."""
    return all(name in os.environ for name in ("RANK", "WORLD_SIZE", "MASTER_ADDR", "MASTER_PORT"))


def local_device(name: str) -> torch.device:
    """The device of this process: with several processes on CUDA, the one of its local rank.

    Raises:
        ConfigError: The name is not a device.
        ResourceError: The machine has no such device.
    """
    device = choose_device(name)
    if device.type == "cuda" and device.index is None:
        device = torch.device("cuda", int(os.environ.get("LOCAL_RANK", 0)))
        torch.cuda.set_device(device)
    return device


@contextmanager
def launch(processes: int) -> Iterator[None]:
    """Run the body in `processes` processes: this one, and peers started with this one's command line.

    Raises:
        ResourceError: A peer has died. Saved checkpoints remain.
    """
    if is_torchrun():
        with _run_under_torchrun():
            yield
    elif is_peer():
        with _run_as_peer():
            yield
    elif processes == 1:
        yield
    else:
        with _run_as_rank_zero(processes):
            yield


def barrier() -> None:
    """Wait for all processes."""
    if dist.is_initialized():
        dist.barrier()


def seed_micro_step(seed: int, micro_step: int) -> None:
    """Set the random state that all processes begin a micro-batch with."""
    torch.manual_seed((seed * 1_000_003 + micro_step) % (1 << 62))


def seed_by_rank() -> None:
    """From here on random numbers differ between processes; with one process nothing changes."""
    if world_size() > 1:
        torch.manual_seed((torch.initial_seed() * 8191 + rank() + 1) % (1 << 62))


def local_rows(values: Tensor) -> Tensor:
    """This process's rows of a whole batch."""
    return values[rank() :: world_size()]


def broadcast_scalar(value: float) -> float:
    """The number of process 0."""
    return broadcast_stop(value, is_stopping=False)[0]


def broadcast_stop(elapsed_s: float, *, is_stopping: bool) -> tuple[float, bool]:
    """The training time and the stop request of process 0, so that all processes end at the same step."""
    if not dist.is_initialized():
        return elapsed_s, is_stopping
    device = "cuda" if dist.get_backend() == "nccl" else "cpu"
    state = torch.tensor([elapsed_s, float(is_stopping)], dtype=torch.float64, device=device)
    dist.broadcast(state, 0)
    elapsed_s, stop = state.tolist()
    return elapsed_s, bool(stop)


@contextmanager
def _run_under_torchrun() -> Iterator[None]:
    """Join the group of torchrun, with NCCL where there is CUDA. Its elastic agent watches and restarts processes.

    A group that exists already, as Ray Train makes it, is used and kept.
    """
    if dist.is_initialized():
        dist.barrier()  # Process 0 has checked the recipe and written its record.
        yield
        dist.barrier()
        return
    backend = "nccl" if torch.cuda.is_available() else "gloo"
    if backend == "nccl":
        torch.cuda.set_device(int(os.environ.get("LOCAL_RANK", 0)))
    dist.init_process_group(backend, timeout=_GROUP_TIMEOUT, **_restarted_store())
    try:
        yield
        dist.barrier()
    finally:
        with contextlib.suppress(RuntimeError):
            dist.destroy_process_group()


def _restarted_store() -> dict[str, Any]:
    """Arguments of `init_process_group` for processes that torchrun's agent has started again.

    Where workers share the store of the agent, they find the addresses of the earlier workers there, and would wait for
    them until the timeout (torch 2.13; pytorch issue 135712).
    """
    if os.environ.get("TORCHELASTIC_USE_AGENT_STORE") != "True":
        return {}
    stores: Any = dist
    store = stores.TCPStore(os.environ["MASTER_ADDR"], int(os.environ["MASTER_PORT"]), is_master=False)
    attempt = os.environ.get("TORCHELASTIC_RESTART_COUNT", "0")
    return {
        "store": stores.PrefixStore(f"likeness/attempt_{attempt}", store),
        "rank": int(os.environ["RANK"]),
        "world_size": int(os.environ["WORLD_SIZE"]),
    }


@contextmanager
def _run_as_peer() -> Iterator[None]:
    rank_zero_pid, folder = int(os.environ[_RANK_ZERO_PID]), Path(os.environ[_STORE])
    number, count = int(os.environ[_RANK]), int(os.environ[_WORLD_SIZE])

    def is_orphan() -> bool:
        return os.getppid() != rank_zero_pid or not folder.is_dir()

    def end_with_rank_zero() -> None:
        while not is_orphan():
            time.sleep(_POLL_S)
        os._exit(1)  # The main thread may hang in a collective operation.

    threading.Thread(target=end_with_rank_zero, daemon=True).start()
    torch.set_num_threads(1)
    (folder / f"ready_{number}").touch()
    while not (folder / "go").exists():
        time.sleep(0.02)
    _join(folder, number, count)
    yield
    dist.barrier()


@contextmanager
def _run_as_rank_zero(processes: int) -> Iterator[None]:
    torch.set_num_threads(1)
    with tempfile.TemporaryDirectory(prefix="likeness-processes-") as name:
        folder = Path(name)
        peers = _Peers(folder, processes)
        has_ended = False
        try:
            peers.wait_until_ready()
            _join(folder, 0, processes)
            yield
            dist.barrier()
            has_ended = True
        except (RuntimeError, KeyboardInterrupt) as error:  # Of torch's collectives; of `_watch`.
            is_stopped = isinstance(error, KeyboardInterrupt)
            expected = _EXPECTED_CODES if is_stopped else (0,)  # A peer that was stopped alone breaks the group.
            if failure := peers.wait_for_failure(0.0 if is_stopped else 2.0, expected=expected):
                raise ResourceError(failure) from error
            raise
        finally:
            peers.stop(timeout_s=10.0 if has_ended else 1.0)
            if dist.is_initialized():
                with contextlib.suppress(RuntimeError):
                    dist.destroy_process_group()


class _Peers:
    """The peers that process 0 has started, and a thread that watches them."""

    def __init__(self, folder: Path, num_processes: int) -> None:
        self.folder = folder
        self.has_ended = threading.Event()
        self.processes: list[subprocess.Popen[bytes]] = []
        settings = {
            **os.environ,
            _WORLD_SIZE: str(num_processes),
            _STORE: str(folder),
            _RANK_ZERO_PID: str(os.getpid()),
        }
        settings["OMP_NUM_THREADS"] = "1"
        # -P: modules must not be imported from the working directory.
        source = str(Path(__file__).parents[3])  # The folder of the package `likeness`.
        code = f"import sys; sys.path.append({source!r}); from likeness.__main__ import run; run()"
        command = [sys.executable, "-P", "-c", code, *sys.argv[1:]]
        for number in range(1, num_processes):
            with (folder / f"errors_{number}").open("wb") as errors:
                peer = subprocess.Popen(
                    command,
                    env={**settings, _RANK: str(number)},
                    stdin=subprocess.DEVNULL,
                    stdout=subprocess.DEVNULL,
                    stderr=errors,
                    start_new_session=True,  # Only process 0 gets Ctrl-C; it stops the others.
                )
            self.processes.append(peer)
        threading.Thread(target=self._watch, daemon=True).start()

    def wait_until_ready(self) -> None:
        """Wait until every peer is ready to join the group, then let them join."""
        deadline_s = time.monotonic() + _START_TIMEOUT_S
        waiting = [self.folder / f"ready_{number}" for number in range(1, len(self.processes) + 1)]
        while not all(path.exists() for path in waiting):
            if failure := self.failure_message(expected=()):
                raise ResourceError(failure)
            if time.monotonic() > deadline_s:
                raise ResourceError(
                    f"Not every training process has started within {_START_TIMEOUT_S:.0f} s. Use fewer `--processes`."
                )
            time.sleep(0.02)
        (self.folder / "go").touch()

    def failure_message(self, *, expected: tuple[int, ...] = _EXPECTED_CODES) -> str | None:
        """The message about a peer that ended with another code than `expected`, None if there is none."""
        for number, peer in enumerate(self.processes, start=1):
            code = peer.poll()
            if code is None or code in expected:
                continue
            errors = (self.folder / f"errors_{number}").read_text(encoding="utf-8", errors="replace")
            how = f"was ended by signal {-code}" if code < 0 else f"ended with code {code}"
            reason = " (Often there was too little memory: use fewer `--processes`.)" if code == -9 else ""
            last_output = "\n".join(errors.strip().splitlines()[-8:])
            return f"Training process {number} {how}.{reason} The same command continues from the last checkpoint." + (
                f" Its last output:\n{last_output}" if last_output else ""
            )
        return None

    def wait_for_failure(self, seconds: float, *, expected: tuple[int, ...]) -> str | None:
        """`failure_message`, for a peer that may be about to end."""
        deadline_s = time.monotonic() + seconds
        while not (failure := self.failure_message(expected=expected)) and time.monotonic() < deadline_s:
            time.sleep(_POLL_S)
        return failure

    def stop(self, *, timeout_s: float) -> None:
        """Wait for peers to end, and kill those that have not after the timeout."""
        self.has_ended.set()
        deadline_s = time.monotonic() + timeout_s
        for peer in self.processes:
            try:
                peer.wait(timeout=max(0.0, deadline_s - time.monotonic()))
            except subprocess.TimeoutExpired:
                peer.kill()
                peer.wait()

    def _watch(self, exit_process: Callable[[int], None] = os._exit) -> None:
        """Interrupt the main thread when a peer has died; end the process if it does not react."""
        while not self.has_ended.wait(_POLL_S):
            if failure := self.failure_message():
                if self.has_ended.wait(1.0):
                    return
                _thread.interrupt_main()
                if self.has_ended.wait(_GRACE_S):
                    return
                sys.stderr.write(f"likeness: {failure}\n")
                sys.stderr.flush()
                exit_process(ResourceError.exit_code)


def _join(folder: Path, number: int, count: int) -> None:
    dist.init_process_group(
        "gloo", init_method=f"file://{folder}/store", rank=number, world_size=count, timeout=_GROUP_TIMEOUT
    )
