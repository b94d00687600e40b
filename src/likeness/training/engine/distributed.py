"""One training process a core, gradients averaged between them. With one process every function here does nothing.

Two processes of one thread each train more than ten times as fast as one process of two threads when something else
runs on the machine: threads wait for each other in every operation, processes once a step.

None waits for another that is dead: each peer watches the process that started it, which watches its peers. They meet
in Python, where Ctrl-C is heard, and join their group when all are there.
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

import torch
import torch.distributed as dist
from torch import Tensor

import likeness
from likeness.errors import ResourceError

_RANK, _WORLD, _STORE, _FIRST = "LIKENESS_RANK", "LIKENESS_WORLD", "LIKENESS_STORE", "LIKENESS_FIRST"
_PATIENCE = timedelta(days=30)
"""How long processes wait for one that lives, say for the one that renders."""
_MEETING_S = 600.0
"""Processes that need longer than this to start do not start at all."""
_GRACE_S = 20.0
"""Seconds that a process whose peer has died has to end by itself."""
_POLL_S = 0.2
_FINE = (0, 130)
"""Exit codes of peers that ended as they should: done, or stopped with everything saved."""


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
    """Run the body in `processes` processes: this one, and others started with this one's command line.

    Raises:
        ResourceError: One of the others has died. What was saved stays.
    """
    if is_peer():
        with _as_peer():
            yield
    elif processes == 1:
        yield
    else:
        with _as_first(processes):
            yield


def wait() -> None:
    """Go on when every process is here."""
    if dist.is_initialized():
        dist.barrier()


def average(gradients: list[Tensor], told: list[float]) -> list[float]:
    """Average gradients in place between processes; every process gets the numbers that process 0 told."""
    if not dist.is_initialized():
        return told
    number, count = len(told), world()
    head = torch.tensor(told, dtype=torch.float64) if rank() == 0 else torch.zeros(number, dtype=torch.float64)
    flat = torch.cat([gradient.flatten() for gradient in gradients])
    dist.broadcast(head, 0)
    dist.all_reduce(flat)
    flat /= count
    for gradient, part in zip(gradients, flat.split([g.numel() for g in gradients]), strict=True):
        gradient.copy_(part.view_as(gradient))
    return head.tolist()


@contextmanager
def _as_peer() -> Iterator[None]:
    first, folder = int(os.environ[_FIRST]), Path(os.environ[_STORE])
    number, count = int(os.environ[_RANK]), int(os.environ[_WORLD])

    def is_orphan() -> bool:
        return os.getppid() != first or not folder.is_dir()

    def end_with_first() -> None:
        while not is_orphan():
            time.sleep(_POLL_S)
        os._exit(1)  # Whatever the main thread waits for will not come.

    threading.Thread(target=end_with_first, daemon=True).start()
    torch.set_num_threads(1)
    (folder / f"ready_{number}").touch()
    while not (folder / "go").exists():
        time.sleep(0.02)
    _join(folder, number, count)
    yield
    dist.barrier()


@contextmanager
def _as_first(processes: int) -> Iterator[None]:
    torch.set_num_threads(1)
    with tempfile.TemporaryDirectory(prefix="likeness-processes-") as name:
        folder = Path(name)
        peers = _Peers(folder, processes)
        is_whole = False
        try:
            peers.meet()
            _join(folder, 0, processes)
            yield
            dist.barrier()
            is_whole = True
        except (RuntimeError, KeyboardInterrupt) as error:  # Torch's are RuntimeErrors, the watch interrupts.
            if lost := peers.wait_for_lost(0.0 if isinstance(error, KeyboardInterrupt) else 2.0):
                raise ResourceError(lost) from error
            raise
        finally:
            peers.end(patience_s=10.0 if is_whole else 1.0)
            if dist.is_initialized():
                with contextlib.suppress(RuntimeError):
                    dist.destroy_process_group()


class _Peers:
    """The processes that process 0 has started, and a thread that watches them."""

    def __init__(self, folder: Path, processes: int) -> None:
        self.folder = folder
        self.over = threading.Event()
        self.started: list[subprocess.Popen[bytes]] = []
        settings = {**os.environ, _WORLD: str(processes), _STORE: str(folder), _FIRST: str(os.getpid())}
        settings["OMP_NUM_THREADS"] = "1"
        # The working directory is not searched for modules: anybody's may lie there.
        home = str(Path(likeness.__file__).parents[1])
        begin = f"import sys; sys.path.append({home!r}); from likeness.cli import main; sys.exit(main())"
        command = [sys.executable, "-P", "-c", begin, *sys.argv[1:]]
        for number in range(1, processes):
            with (folder / f"errors_{number}").open("wb") as errors:
                peer = subprocess.Popen(
                    command,
                    env={**settings, _RANK: str(number)},
                    stdin=subprocess.DEVNULL,
                    stdout=subprocess.DEVNULL,
                    stderr=errors,
                    start_new_session=True,  # Ctrl-C is process 0's alone, which tells the others.
                )
            self.started.append(peer)
        threading.Thread(target=self._watch, daemon=True).start()

    def meet(self) -> None:
        """Wait until every peer is ready to join."""
        until_s = time.monotonic() + _MEETING_S
        waiting = [self.folder / f"ready_{number}" for number in range(1, len(self.started) + 1)]
        while not all(path.exists() for path in waiting):
            if lost := self.lost(fine=()):
                raise ResourceError(lost)
            if time.monotonic() > until_s:
                raise ResourceError(
                    f"Not every training process has started within {_MEETING_S:.0f} s. Use fewer `--processes`."
                )
            time.sleep(0.02)
        (self.folder / "go").touch()

    def lost(self, *, fine: tuple[int, ...] = _FINE) -> str | None:
        """What to say of a peer that ended as it should not have."""
        for number, peer in enumerate(self.started, start=1):
            code = peer.poll()
            if code is None or code in fine:
                continue
            errors = (self.folder / f"errors_{number}").read_text(encoding="utf-8", errors="replace")
            how = f"was ended by signal {-code}" if code < 0 else f"ended with code {code}"
            reason = " (Often there was too little memory: use fewer `--processes`.)" if code == -9 else ""
            last = "\n".join(errors.strip().splitlines()[-8:])
            return f"Training process {number} {how}.{reason} The same command goes on from the last checkpoint." + (
                f" It said:\n{last}" if last else ""
            )
        return None

    def wait_for_lost(self, seconds: float) -> str | None:
        """`lost`, of a peer that may be about to end."""
        until_s = time.monotonic() + seconds
        while not (lost := self.lost()) and time.monotonic() < until_s:
            time.sleep(_POLL_S)
        return lost

    def end(self, *, patience_s: float) -> None:
        """Let peers end, and end those that do not."""
        self.over.set()
        until_s = time.monotonic() + patience_s
        for peer in self.started:
            try:
                peer.wait(timeout=max(0.0, until_s - time.monotonic()))
            except subprocess.TimeoutExpired:
                peer.kill()
                peer.wait()

    def _watch(self, leave: Callable[[int], None] = os._exit) -> None:
        """Interrupt the main thread when a peer has died, and end the process where that does not help."""
        while not self.over.wait(_POLL_S):
            if lost := self.lost():
                if self.over.wait(1.0):
                    return
                _thread.interrupt_main()
                if self.over.wait(_GRACE_S):
                    return
                sys.stderr.write(f"likeness: {lost}\n")
                sys.stderr.flush()
                leave(ResourceError.exit_code)


def _join(folder: Path, number: int, count: int) -> None:
    dist.init_process_group(
        "gloo", init_method=f"file://{folder}/store", rank=number, world_size=count, timeout=_PATIENCE
    )
