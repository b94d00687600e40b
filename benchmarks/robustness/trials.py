"""What the robustness benchmarks share: start a command, end it, search for damage, count.

A command runs in a session of its own. It is forked from this process, with all imports done, so that a random moment
falls into its work; or it is a new interpreter, so that a random moment falls into its imports as well.

A trial is *bad* if a file is damaged, a result is lost, a traceback is printed, the exit code is unexpected, or a
process hangs or survives.
"""

import contextlib
import fnmatch
import hashlib
import importlib
import json
import os
import pickle
import secrets
import signal
import sqlite3
import subprocess
import sys
import tempfile
import time
import tomllib
import traceback
from collections import Counter
from collections.abc import Callable, Container, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parents[2]
for _folder in ("benchmarks", "tests", "tests/app"):  # Benchmarks and tests are no packages.
    sys.path.append(str(ROOT / _folder))
os.environ.setdefault("OMP_NUM_THREADS", "1")  # A process with threads of its own cannot be forked safely.
os.environ["HF_HUB_OFFLINE"] = "1"
signal.signal(
    signal.SIGINT, signal.default_int_handler
)  # Processes inherit it, and a shell's background jobs ignore it.

from claims import Benchmark  # noqa: E402

from likeness.__main__ import end_at_once, run  # noqa: E402
from likeness.files import TEMPORARY_PREFIX  # noqa: E402

LONGEST_END_S = 20.0
"""A command must have ended within this time of a signal."""
LONGEST_RUN_S = 300.0
"""A command that still runs then hangs."""
LONGEST_SURVIVAL_S = 5.0
"""Processes of a command that still run so long after its end survive it."""
REFUSED = (2, 3, 4)
"""Exit codes of a command that refuses."""
INTERRUPTED = (130, -signal.SIGINT)
"""Exit codes of a command that Ctrl-C ends: shells show 130 for both. Python has the second until it has started."""
TERMINATED = (143, -signal.SIGTERM)
"""The same of SIGTERM."""
COMMAND = Path(sys.executable).with_name("likeness")


@dataclass(frozen=True, slots=True)
class Ended:
    """What remained of a command."""

    code: int | None
    """Negative for a signal; None if it hung and was killed."""
    printed: str
    seconds: float
    survivors: int
    """Processes of its session that were still alive some seconds later."""

    def faults(self, expected: Container[int]) -> list[str]:
        """What must not happen, in words; `expected` holds the exit codes that may."""
        found = []
        if self.code is None:
            found.append("hangs")
        elif self.code not in expected:
            found.append(f"exit code {self.code}: {self.last_line}")
        if "Traceback (most recent call last)" in self.printed or "Exception ignored" in self.printed:
            found.append(f"traceback: {self.last_line}")
        if self.survivors:
            found.append(f"{self.survivors} processes survive")
        return found

    @property
    def last_line(self) -> str:
        return next((line for line in reversed(self.printed.splitlines()) if line.strip()), "")[:200]


class Command:
    """A `likeness` command that runs now.

    Args:
        words: Its words.
        folder: Where it runs, and where its messages go, as `.log`.
        setup: Called in the new process first, for limits.
        is_new_process: Start a new interpreter; otherwise fork this one.
        environment: Further variables.
    """

    def __init__(
        self,
        words: Sequence[str],
        folder: Path,
        *,
        log: Path | None = None,
        setup: Callable[[], None] | None = None,
        is_new_process: bool = False,
        environment: Mapping[str, str] | None = None,
    ) -> None:
        self.log = log or folder.with_suffix(".log")
        self.began_s = time.monotonic()
        self.code: int | None = None
        self.marker = f"LIKENESS_TRIAL={secrets.token_hex(8)}"
        own = (
            dict([self.marker.split("=")])
            | {"LIKENESS_HOME": str(folder / "home"), "COLUMNS": "200"}
            | dict(environment or {})
        )
        if is_new_process:
            with self.log.open("wb") as log_file:
                self.process = subprocess.Popen(
                    [sys.executable, str(COMMAND), *words],
                    cwd=folder,
                    stdin=subprocess.DEVNULL,
                    stdout=log_file,
                    stderr=log_file,
                    env=os.environ | own,
                    start_new_session=True,
                    preexec_fn=setup,
                )
            self.pid = self.process.pid
        else:
            self.process = None
            self.pid = _fork(lambda: _run_command(list(words), folder, own, setup), self.log)

    def poll(self) -> int | None:
        """The exit code, or None while it runs."""
        if self.code is not None:
            return self.code
        if self.process is not None:
            self.code = self.process.poll()
        else:
            done, status = os.waitpid(self.pid, os.WNOHANG)
            self.code = os.waitstatus_to_exitcode(status) if done else None
        return self.code

    def wait(self, limit_s: float) -> int | None:
        """The exit code, or None if it still runs after `limit_s`."""
        until_s = time.monotonic() + limit_s
        while self.poll() is None and time.monotonic() < until_s:
            time.sleep(0.005)
        return self.code

    def end(self, limit_s: float = LONGEST_RUN_S) -> Ended:
        """Wait for its end, and kill what still runs after `limit_s`."""
        code = self.wait(limit_s)
        seconds = time.monotonic() - self.began_s
        if code is None:
            os.killpg(self.pid, signal.SIGKILL)
            self.wait(10)
        until_s = time.monotonic() + LONGEST_SURVIVAL_S
        while (survivors := session_of(self.pid, self.marker)) and time.monotonic() < until_s:
            time.sleep(0.02)
        for pid in survivors:
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        return Ended(code, self.log.read_text(encoding="utf-8", errors="replace"), seconds, len(survivors))

    def disturb(self, after_s: float, number: signal.Signals, *, is_of_peer: bool = False) -> Ended:
        """Send a signal after some time: to the process or to a training process that it started.

        Ctrl-C goes to all of its session, as from a terminal.
        """
        if self.wait(after_s) is None:
            with contextlib.suppress(ProcessLookupError):
                if is_of_peer:
                    os.kill(self._wait_for_peer(), number)
                elif number == signal.SIGINT:
                    os.killpg(self.pid, number)
                else:
                    os.kill(self.pid, number)
        return self.end(LONGEST_END_S)

    def _wait_for_peer(self) -> int:
        """The training process that this one has started, or will start.

        Raises:
            ProcessLookupError: It has ended before.
        """
        while self.poll() is None:
            for pid in session_of(self.pid, self.marker):
                with contextlib.suppress(OSError):
                    if b"LIKENESS_RANK=1" in Path(f"/proc/{pid}/environ").read_bytes():
                        return pid
            time.sleep(0.01)
        raise ProcessLookupError


def session_of(leader: int, marker: str = "") -> list[int]:
    """Living processes of a session, and those of other sessions that have a variable in their environment."""
    found = []
    for path in Path("/proc").glob("[0-9]*/stat"):
        with contextlib.suppress(OSError):
            state, _, _, session = path.read_text().rsplit(")", 1)[1].split()[:4]
            is_ours = int(session) == leader or (marker and marker.encode() in path.with_name("environ").read_bytes())
            if is_ours and state != "Z":
                found.append(int(path.parent.name))
    return found


def call_in_child(function: Callable[[], Any], log: Path) -> Any:
    """The result of a function that runs in a forked process."""
    result = log.with_suffix(".pickle")

    def run() -> int:
        result.write_bytes(pickle.dumps(function()))
        return 0

    _, status = os.waitpid(_fork(run, log), 0)
    if os.waitstatus_to_exitcode(status) != 0:
        raise RuntimeError(f"The preparation failed:\n{log.read_text(errors='replace')}")
    value = pickle.loads(result.read_bytes())
    result.unlink()
    return value


def import_modules(names: Sequence[str]) -> None:
    """Import what commands need, so that forked ones begin with their work."""
    for name in names:
        with contextlib.suppress(Exception):
            importlib.import_module(name)


def _fork(function: Callable[[], int], log: Path) -> int:
    """Run a function in a child, whose exit code it returns, with messages to a file."""
    sys.stdout.flush()
    before = {number: signal.signal(number, end_at_once) for number in (signal.SIGINT, signal.SIGTERM)}
    child = os.fork()
    if child:
        for number, handler in before.items():
            signal.signal(number, handler)
        return child
    code = 1
    try:
        os.setsid()
        file = os.open(log, os.O_WRONLY | os.O_CREAT | os.O_TRUNC)
        os.dup2(file, 1)
        os.dup2(file, 2)
        code = function()
    except BaseException:
        traceback.print_exc()
    finally:
        with contextlib.suppress(Exception):
            sys.stdout.flush()
            sys.stderr.flush()
        os._exit(code)


def _run_command(words: list[str], folder: Path, environment: dict[str, str], setup: Callable[[], None] | None) -> int:
    from likeness.training.run import MALLOC

    os.environ.update(environment | MALLOC)  # `train` restarts itself without them.
    os.chdir(folder)
    tempfile.tempdir = None  # It may be known already.
    sys.argv = ["likeness", *words]
    if setup is not None:
        setup()
    try:
        run()
    except SystemExit as leave:
        return leave.code if isinstance(leave.code, int) else 1


def damaged(folder: Path) -> list[str]:
    """Files that cannot be read by what their suffix says, and what killed writers left is not among them."""
    found = []
    for path in sorted(folder.rglob("*")):
        if path.is_symlink() or not path.is_file() or any(TEMPORARY_PREFIX in part for part in path.parts):
            continue
        try:
            _read(path)
        except Exception as error:
            found.append(f"damaged {path.relative_to(folder)}: {type(error).__name__} {str(error)[:100]}")
    return found


def _read(path: Path) -> None:
    from likeness import media

    suffix = path.suffix.lower()
    if suffix in (".png", ".jpg", ".jpeg"):
        media.read_image(path)
    elif suffix == ".mp4":
        media.read_video(path)
        media.read_metadata(path)
    elif suffix == ".json":
        json.loads(path.read_bytes())
    elif suffix == ".toml":
        tomllib.loads(path.read_text(encoding="utf-8"))
    elif suffix == ".html":
        assert path.read_text(encoding="utf-8").rstrip().lower().endswith("</html>"), "its end is missing"
    elif suffix == ".safetensors":
        from safetensors import safe_open

        with safe_open(path, "numpy") as file:
            for name in file.keys():  # noqa: SIM118
                file.get_tensor(name)
    elif suffix == ".parquet":
        import pyarrow.parquet

        pyarrow.parquet.read_table(path)
    elif suffix == ".sqlite":
        with contextlib.closing(sqlite3.connect(f"file:{path}?mode=ro", uri=True)) as base:
            assert base.execute("PRAGMA integrity_check").fetchone() == ("ok",), "it is not whole"


def left_over(folder: Path) -> list[str]:
    """Temporary files and folders."""
    return [
        f"left over: {path.relative_to(folder)}"
        for path in folder.rglob("*")
        if path.name.startswith(TEMPORARY_PREFIX)
        or "partial" in path.name
        or path.suffix == ".part"
        or path.name == ".unfinished.json"
    ]


def digests(folder: Path, ignored: Sequence[str] = ()) -> dict[str, str]:
    """SHA-256 of all files but those whose path matches a pattern."""
    files = {path.relative_to(folder).as_posix(): path for path in sorted(folder.rglob("*")) if path.is_file()}
    return {
        name: hashlib.sha256(path.read_bytes()).hexdigest()
        for name, path in files.items()
        if not any(fnmatch.fnmatch(name, pattern) for pattern in ignored)
    }


def differences(found: Mapping[str, str], meant: Mapping[str, str]) -> list[str]:
    """Names that one of two folders lacks, or whose contents differ."""
    names = sorted(name for name in found.keys() | meant.keys() if found.get(name) != meant.get(name))
    return [f"result differs: {', '.join(names[:5])}"] if names else []


@contextmanager
def small_disk(folder: Path, size_bytes: int, *, is_read_only: bool = False) -> Iterator[Path]:
    """A new disk in memory of some size.

    Raises:
        PermissionError: This process may not mount.
    """
    folder.mkdir(parents=True, exist_ok=True)
    _mount("-t", "tmpfs", "-o", f"size={size_bytes},mode=755", "tmpfs", str(folder))
    try:
        if is_read_only:
            remount(folder, "ro")
        yield folder
    finally:
        subprocess.run(["umount", "--lazy", str(folder)], check=False, capture_output=True)


def remount(folder: Path, options: str) -> None:
    _mount("-o", f"remount,{options}", str(folder))


def _mount(*words: str) -> None:
    done = subprocess.run(["mount", *words], capture_output=True, text=True, check=False)
    if done.returncode:
        raise PermissionError(
            f"mount {' '.join(words)}: {done.stderr.strip()}. Run as root, in a container for example."
        )


def benchmark_of(name: str, commands: Sequence[str], *, has_trials: bool = False) -> Benchmark:
    """A benchmark with the options that all scripts here have; its arguments are not parsed yet."""
    benchmark = Benchmark(f"robustness.{name}", seed=0)
    default = Path("runs/benchmarks/robustness") / name
    benchmark.parser.add_argument("--output", type=Path, default=default, help="folder of the trials")
    benchmark.parser.add_argument("--material", type=Path, help="inputs that another script left in OUTPUT/material")
    benchmark.parser.add_argument("--only", nargs="*", help=f"some of: {', '.join(commands)}")
    if has_trials:
        benchmark.parser.add_argument("--factor", type=float, default=1.0, help="times as many trials")
    return benchmark


class Tally:
    """Counts tries and bad ones of each kind, and prints them as a table."""

    def __init__(self, benchmark: Benchmark) -> None:
        self.benchmark = benchmark
        self.tries: Counter[str] = Counter()
        self.bad: Counter[str] = Counter()
        self.faults: dict[str, Counter[str]] = {}
        self.outcomes: dict[str, Counter[str]] = {}
        self.accepted: dict[str, list[str]] = {}
        """Inputs that a command accepted although they look wrong, to be read by a person."""

    def add(self, what: str, faults: Sequence[str], *, outcome: str = "", tries: int = 1) -> None:
        self.tries[what] += tries
        self.bad[what] += bool(faults)
        self.faults.setdefault(what, Counter()).update(faults)
        if outcome:
            self.outcomes.setdefault(what, Counter())[outcome] += 1
        for fault in faults:
            print(f"  BAD {what}: {fault}", flush=True)

    def done(self, what: str) -> None:
        """Print a row as soon as it is complete, and keep what is known by now."""
        seen = ", ".join(f"{count} {name}" for name, count in sorted(self.outcomes.get(what, {}).items()))
        print(f"  {what}: {self.tries[what]} tries, {self.bad[what]} bad{f' ({seen})' if seen else ''}", flush=True)
        place = self.benchmark.arguments().output
        place.mkdir(parents=True, exist_ok=True)
        (place / "so_far.json").write_text(json.dumps({name: self.row(name) for name in self.tries}, indent=1) + "\n")

    def row(self, what: str) -> dict[str, Any]:
        return {
            "tries": self.tries[what],
            "bad": self.bad[what],
            "outcomes": dict(self.outcomes.get(what, {})),
            "faults": dict(self.faults.get(what, {})),
            "accepted": self.accepted.get(what, []),
        }

    def finish(self) -> int:
        """Print the table and the claims; returns how many kinds are bad."""
        width = max(map(len, self.tries), default=4)
        print(f"\n| {'what':{width}} | tries | bad |\n|{'-' * (width + 2)}|---|---|")
        for what, tries in self.tries.items():
            print(f"| {what:{width}} | {tries} | {self.bad[what]} |")
        for what in self.tries:
            name = what.lower().replace(" ", "_").replace(",", "")
            self.benchmark.notes[what] = self.row(what)
            self.benchmark.claim(f"{self.benchmark.name}.{name}.bad", self.bad[what], "<=", 0)
        return self.benchmark.finish()
