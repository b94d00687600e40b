"""Ends trainings at random moments and counts which of them resume to the weights of an undisturbed one.

A VAE of a few thousand weights is trained in two stages on 32 px puppets. Trials are forked from one process with all
imports done; trials of `--starts` are commands with two processes. The counts go to OUTPUT/counts.json:

- kills: SIGKILL; afterwards every checkpoint must load, and the model of the last trial must be the undisturbed one.
- interrupts: Ctrl-C, the same; a trial must end with 130 within 20 s.
- starts: Ctrl-C while two processes start; all of them must have ended within 20 s.
- pairs: two trials at once in one folder; one must train to the end, one must be refused.
- disks: a tmpfs of random size, too small for a run (needs the right to mount); the message must name the cause, every
  checkpoint must load, and with more room the run must end with the model of the undisturbed one.
"""

import hashlib
import json
import os
import random
import shutil
import signal
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Callable
from pathlib import Path

os.environ.setdefault("OMP_NUM_THREADS", "1")

import matplotlib.pyplot as plt  # noqa: F401  Imported once, before trials are forked.
from claims import Benchmark

from likeness.errors import LikenessError
from likeness.training import run
from likeness.training.base import vae  # noqa: F401
from likeness.training.engine import checkpoints

NUMBERS = {"kills": 40, "interrupts": 40, "starts": 8, "pairs": 10, "disks": 10}
"""How many trials of each kind."""
QUICK_NUMBERS = {"kills": 2, "interrupts": 2, "starts": 1, "pairs": 1, "disks": 0}
RECIPE = """
kind = "vae"
[model]
widths = [8, 8, 8, 8]
norm_num_groups = 2
latent_channels = 4
size_px = 32
[images]
kind = "images"
count = 24
people = 24
size_px = 32
shard = 8
[clips]
kind = "clips"
count = 8
people = 8
size_px = 32
num_frames = 9
seed = 1
shard = 4
[validation]
kind = "clips"
count = 4
people = 4
size_px = 32
num_frames = 9
seed = 90
shard = 4
[[stages]]
name = "images"
data = "images"
steps = 14
batch = 4
checkpoint_steps = 3
[[stages]]
name = "clips"
data = "clips"
steps = 6
batch = 2
checkpoint_steps = 2
"""


def fork(recipe: Path, output: Path) -> int:
    """Train in a child; return its process id. Its messages go to `output` with the ending .txt."""
    child = os.fork()
    if child:
        return child
    os.setpgid(0, 0)
    signal.signal(signal.SIGINT, signal.default_int_handler)  # A shell's background jobs ignore it.
    log = os.open(output.with_suffix(".txt"), os.O_WRONLY | os.O_CREAT | os.O_APPEND)
    os.dup2(log, 1)
    os.dup2(log, 2)
    code = 1
    try:
        run.train(recipe, output=output, processes=1)
        code = 0
    except LikenessError as error:
        code = error.exit_code
        os.write(log, f"likeness: {error}\n".encode())
    except BaseException as error:  # No other error may leave `train`.
        os.write(log, f"ESCAPED {error!r}\n".encode())
        code = 99
    finally:
        os._exit(code)


def wait(child: int, limit_s: float) -> int | None:
    """The exit code, negative for a signal; None if the child still ran after `limit_s` and was killed."""
    until_s = time.monotonic() + limit_s
    while time.monotonic() < until_s:
        done, status = os.waitpid(child, os.WNOHANG)
        if done:
            return os.waitstatus_to_exitcode(status)
        time.sleep(0.02)
    os.kill(child, signal.SIGKILL)
    os.waitpid(child, 0)
    return None


def model_of(output: Path) -> str:
    digest = hashlib.sha256()
    for path in sorted((output / "model").rglob("*")):
        digest.update(path.read_bytes() if path.is_file() else b"")
    return digest.hexdigest()


def broken(output: Path) -> int:
    """Checkpoints that cannot be loaded."""
    count = 0
    for folder in output.glob("*/checkpoints"):
        for path in checkpoints.complete(folder):
            try:
                checkpoints.load(path)
            except LikenessError:
                count += 1
    return count


def disturb(
    number: int, recipe: Path, parent: Path, meant: str, end: Callable[[int], tuple[int | None, bool]]
) -> Counter[str]:
    """Disturb runs `number` times, each until it has ended by itself."""
    counts: Counter[str] = Counter()
    while counts["disturbed"] < number:
        output = parent / f"run_{counts['runs']}"
        counts["runs"] += 1
        for _ in range(60):
            code, is_as_it_should_be = end(fork(recipe, output))
            counts["broken checkpoints"] += broken(output)
            if code == 0:
                counts["identical" if model_of(output) == meant else "DIFFERENT"] += 1
                break
            counts["disturbed"] += 1
            counts["as it should be" if is_as_it_should_be else f"WRONG exit {code}"] += 1
            (parent / "so_far.json").write_text(json.dumps(counts))
        left = [path for path in output.rglob("*") if ".likeness-write-" in path.name or "partial" in path.name]
        counts["left-over files"] += len(left)
        shutil.rmtree(output, ignore_errors=True)
    return counts


def end_by(kind: signal.Signals, longest_s: float) -> Callable[[int], tuple[int | None, bool]]:
    def end(child: int) -> tuple[int | None, bool]:
        code = wait_gently(child, random.uniform(0, longest_s))
        if code is not None:
            return code, True
        os.kill(child, kind)
        code = wait(child, 20)
        return code, code == (-signal.SIGKILL if kind == signal.SIGKILL else 130)

    return end


def wait_gently(child: int, seconds: float) -> int | None:
    """As `wait`, without killing the child."""
    until_s = time.monotonic() + seconds
    while time.monotonic() < until_s:
        done, status = os.waitpid(child, os.WNOHANG)
        if done:
            return os.waitstatus_to_exitcode(status)
        time.sleep(0.005)
    return None


def start(number: int, recipe: Path, parent: Path, longest_s: float) -> Counter[str]:
    """Ctrl-C while a command with two processes starts."""
    counts: Counter[str] = Counter()
    for trial in range(number):
        output = parent / f"start_{trial}"
        command = [
            sys.executable,
            "-m",
            "likeness",
            "train",
            str(recipe),
            "-o",
            str(output),
            "--processes",
            "2",
        ]
        with output.with_suffix(".txt").open("w") as log:
            first = subprocess.Popen(
                command,
                stdout=log,
                stderr=log,
                start_new_session=True,
                preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),
            )
        wait_s = random.uniform(1, longest_s)
        time.sleep(wait_s)
        peers = children(first.pid)
        first.send_signal(signal.SIGINT)
        began_s = time.monotonic()
        try:
            code = first.wait(timeout=20)
        except subprocess.TimeoutExpired:
            code = None
            first.kill()
            first.wait()
        time.sleep(1)
        alive = [peer for peer in peers if Path(f"/proc/{peer}").exists()]
        for peer in alive:
            os.kill(peer, signal.SIGKILL)
        counts[f"exit {code}"] += 1
        counts["with peers"] += bool(peers)
        counts["PEERS LEFT"] += len(alive)
        print(
            f"after {wait_s:.1f} s: exit {code} in {time.monotonic() - began_s - 1:.1f} s, {len(peers)} peers",
            flush=True,
        )
    return counts


def children(parent: int) -> list[int]:
    found = subprocess.run(["ps", "--ppid", str(parent), "-o", "pid="], capture_output=True, text=True, check=False)
    return [int(line) for line in found.stdout.split()]


def meet(number: int, recipe: Path, parent: Path, meant: str) -> Counter[str]:
    counts: Counter[str] = Counter()
    for trial in range(number):
        output = parent / f"pair_{trial}"
        both = []
        for _ in range(2):
            both.append(fork(recipe, output))
            time.sleep(random.uniform(0, 0.5))
        codes = sorted(code if code is not None else -1 for code in (wait(child, 300) for child in both))
        counts["one trained, one refused" if codes == [0, 4] else f"WRONG {codes}"] += 1
        counts["identical" if model_of(output) == meant else "DIFFERENT"] += 1
        shutil.rmtree(output, ignore_errors=True)
    return counts


def fill(number: int, recipe: Path, parent: Path, meant: str) -> Counter[str]:
    counts: Counter[str] = Counter()
    for trial in range(number):
        disk = parent / f"disk_{trial}"
        disk.mkdir()
        size_kb = random.randint(700, 3500)
        options = f"size={size_kb}k"
        subprocess.run(["mount", "-t", "tmpfs", "-o", options, "tmpfs", str(disk)], check=True)
        try:
            output = disk / "run"
            cache = parent / "cache"
            (disk / "cache").symlink_to(cache)
            code = wait(fork_logged(recipe, output, parent / f"disk_{trial}.txt"), 300)
            log = (parent / f"disk_{trial}.txt").read_text()
            said = "No space left on device" in log and "ESCAPED" not in log
            counts["room enough" if code == 0 else "reported" if code == 4 and said else f"WRONG {code}"] += 1
            counts["broken checkpoints"] += broken(output)
            subprocess.run(["mount", "-o", "remount,size=100m", str(disk)], check=True)
            code = wait(fork_logged(recipe, output, parent / f"disk_{trial}.txt"), 300)
            counts["identical" if code == 0 and model_of(output) == meant else f"DIFFERENT {code}"] += 1
        finally:
            subprocess.run(["umount", str(disk)], check=False)
    return counts


def fork_logged(recipe: Path, output: Path, log: Path) -> int:
    """As `fork`, with messages on another disk."""
    child = os.fork()
    if child:
        return child
    file = os.open(log, os.O_WRONLY | os.O_CREAT | os.O_APPEND)
    os.dup2(file, 1)
    os.dup2(file, 2)
    code = 99
    try:
        run.train(recipe, output=output, processes=1)
        code = 0
    except LikenessError as error:
        code = error.exit_code
        os.write(file, f"likeness: {error}\n".encode())
    except BaseException as error:
        os.write(file, f"ESCAPED {error!r}\n".encode())
    finally:
        os._exit(code)


def main() -> int:
    benchmark = Benchmark("kill_training", seed=0)
    benchmark.parser.add_argument("--output", type=Path, default=Path("runs/benchmarks/kill_training"))
    for name, number in NUMBERS.items():
        benchmark.parser.add_argument(f"--{name}", type=int, help=f"trials; by default {number}")
    benchmark.parser.add_argument("--longest-start-s", type=float, default=25.0)
    arguments = benchmark.arguments()
    random.seed(arguments.seed)
    defaults = QUICK_NUMBERS if arguments.quick else NUMBERS
    numbers = {
        name: defaults[name] if getattr(arguments, name) is None else getattr(arguments, name) for name in NUMBERS
    }
    parent = arguments.output.absolute()
    parent.mkdir(parents=True, exist_ok=True)
    recipe = parent / "small.toml"
    recipe.write_text(RECIPE)
    shutil.rmtree(parent / "undisturbed", ignore_errors=True)
    wait(fork(recipe, parent / "undisturbed"), 1200)  # Renders the data.
    shutil.rmtree(parent / "undisturbed")
    began_s = time.monotonic()
    assert wait(fork(recipe, parent / "undisturbed"), 1200) == 0, "an undisturbed run has failed"
    longest_s = time.monotonic() - began_s
    meant = model_of(parent / "undisturbed")
    benchmark.note("undisturbed_s", longest_s)
    trials = {
        "kills": lambda number: disturb(number, recipe, parent, meant, end_by(signal.SIGKILL, longest_s)),
        "interrupts": lambda number: disturb(number, recipe, parent, meant, end_by(signal.SIGINT, longest_s)),
        "pairs": lambda number: meet(number, recipe, parent, meant),
        "disks": lambda number: fill(number, recipe, parent, meant),
        "starts": lambda number: start(number, recipe, parent, arguments.longest_start_s),
    }
    counts: dict[str, dict[str, int]] = {}
    for name, trial in trials.items():
        if numbers[name]:
            counts[name] = {key: value for key, value in sorted(trial(numbers[name]).items()) if value}
            benchmark.note(name, counts[name])
            (parent / "counts.json").write_text(json.dumps(counts, indent=1) + "\n")
    for name, count in counts.items():
        benchmark.claim(f"kill_training.{name}.wrong", sum(n for key, n in count.items() if is_wrong(key)), "<=", 0)
    return benchmark.finish()


def is_wrong(outcome: str) -> bool:
    """Names of outcomes that must not happen begin with a capital word."""
    return outcome.split()[0].isupper() or outcome == "broken checkpoints"


if __name__ == "__main__":
    sys.exit(main())
