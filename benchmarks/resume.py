"""A run that was stopped equals one that was not, to the last bit, and survives kills while it saves.

1. 20 steps against 10, a resume and 10 more, in the middle of an epoch, on data from files, with 0, 2 and 4 threads
   that read ahead, in one process and in two, with moving average and accumulation: SHA-256 of weights, optimizer and
   average.
2. SIGKILL at random moments of saving: every run resumes, and ends with the weights of an undisturbed run.
3. A flipped bit and a truncated file in the newest checkpoint: a clear error that names it, and no training.
"""

import hashlib
import json
import os
import random
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from claims import Benchmark

from likeness import media, weights
from likeness.puppets import sample_image, sample_person
from likeness.training.data.prompts import caption_without_trigger
from likeness.training.engine import checkpoints

TINY = weights.CHECKPOINTS / "tiny"
LIKENESS = [sys.executable, "-P", "-c", "import sys; from likeness.cli import main; sys.exit(main())"]


def main() -> None:
    benchmark = Benchmark("resume", seed=11)
    benchmark.parser.add_argument("--kills", type=int, default=50)
    arguments = benchmark.arguments()
    kills = 4 if arguments.quick else arguments.kills
    with tempfile.TemporaryDirectory(prefix="likeness-resume-") as name:
        folder = Path(name)
        recipe = write_recipe(folder)
        cases = [(0, 1)] if arguments.quick else [(0, 1), (2, 1), (4, 1), (0, 2), (2, 2)]
        equal = [is_equal(folder, recipe, workers, processes) for workers, processes in cases]
        benchmark.claim("resume.bit_identical_runs", sum(equal) / len(equal), ">=", 1)
        benchmark.note("resume.cases", [f"workers {w}, processes {p}" for w, p in cases])
        resumed, damaged = kill_while_saving(folder, recipe, kills, random.Random(arguments.seed))
        benchmark.note("resume.kills", kills)
        benchmark.claim("resume.kills_resumed", resumed / kills, ">=", 1)
        benchmark.claim("resume.kills_with_other_weights", damaged, "<=", 0)
        refused = [refuses(folder, recipe, damage) for damage in ("flip", "truncate")]
        benchmark.claim("resume.damage_refused", sum(refused) / len(refused), ">=", 1)
    benchmark.finish()


def write_recipe(folder: Path) -> Path:
    """Five pictures of people, so that ten steps of two end in the middle of an epoch."""
    rows = []
    for number in range(5):
        clip = sample_image(930_000 + number, person=sample_person(930_000 + number), size_px=192)
        media.write_image(folder / "set" / f"{number}.png", clip.frames[0])
        rows.append(
            {
                "media": f"{number}.png",
                "caption": caption_without_trigger({"prompt": clip.prompt}),
                "person": str(number),
            }
        )
    (folder / "set" / "set.jsonl").write_text("".join(f"{json.dumps(row)}\n" for row in rows))
    recipe = folder / "recipe.toml"
    recipe.write_text(
        f'kind = "magic_mirror"\nbase = "{TINY}"\nrecognizer = "{TINY / "recognizer"}"\n'
        f'[data]\nkind = "files"\npath = "{folder / "set" / "set.jsonl"}"\nresolution_px = 64\nnum_frames = 1\n'
        '[[stages]]\nname = "images"\ndata = "images"\nsteps = 20\nbatch = 2\naccumulation = 2\n'
        "checkpoint_steps = 10\nsheet_minutes = 1000\nidentity_samples = 1\n"
        # A rate that depends on the length of the stage would differ before the stop.
        'optimizer = { schedule = "constant", warmup_steps = 5 }\n'
    )
    return recipe


def train(recipe: Path, output: Path, *changes: str, processes: int = 1) -> subprocess.CompletedProcess[str]:
    command = [*LIKENESS, "train", str(recipe), "-o", str(output), "--processes", str(processes)]
    for change in changes:
        command += ["--set", change]
    return subprocess.run(command, capture_output=True, text=True, check=False, env=environment())


def environment() -> dict[str, str]:
    return {**os.environ, "OMP_NUM_THREADS": "1"}


def is_equal(folder: Path, recipe: Path, workers: int, processes: int) -> bool:
    """Whether 20 steps equal 10 steps, a stop and 10 more."""
    setting = f"stages.0.workers={workers}"
    batch = f"stages.0.batch={2 * processes}"
    digests = []
    for name in ("straight", "stopped"):
        output = folder / f"{name}_{workers}_{processes}"
        if name == "stopped":
            train(recipe, output, setting, batch, "stages.0.steps=10", processes=processes)
        done = train(recipe, output, setting, batch, processes=processes)
        assert done.returncode == 0, done.stderr
        digests.append(digest(output / "images"))
    print(f"workers {workers}, processes {processes}: {'equal' if digests[0] == digests[1] else digests}", flush=True)
    return digests[0] == digests[1]


def digest(stage: Path) -> dict[str, str]:
    """SHA-256 of the files of the last checkpoint, and of the final weights."""
    last = checkpoints.list_checkpoints(stage / "checkpoints")[-1]
    found = {path.name: hashlib.sha256(path.read_bytes()).hexdigest() for path in sorted(last.glob("*.safetensors"))}
    found["finished"] = hashlib.sha256((stage / "finished.safetensors").read_bytes()).hexdigest()
    return found


def kill_while_saving(folder: Path, recipe: Path, kills: int, chance: random.Random) -> tuple[int, int]:
    """Kill runs at random moments of saving; how many resumed, and how many ended with other weights."""
    every_step = ("stages.0.checkpoint_steps=1", "stages.0.steps=6")
    straight = folder / "unkilled"
    assert train(recipe, straight, *every_step).returncode == 0
    expected, resumed, damaged = digest(straight / "images"), 0, 0
    for number in range(kills):
        output = folder / f"killed_{number}"
        process = subprocess.Popen(
            [*LIKENESS, "train", str(recipe), "-o", str(output), "--processes", "1",
             *(part for change in every_step for part in ("--set", change))],
            env=environment(), stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
        )  # fmt: skip
        wait_for_saving(output / "images" / "checkpoints", process)
        time.sleep(chance.uniform(0, 0.2))
        process.send_signal(signal.SIGKILL)
        process.wait()
        again = train(recipe, output, *every_step)
        resumed += again.returncode == 0
        damaged += again.returncode == 0 and digest(output / "images") != expected
        shutil.rmtree(output, ignore_errors=True)
    return resumed, damaged


def wait_for_saving(folder: Path, process: subprocess.Popen[bytes]) -> None:
    """Return when a checkpoint is being written, or the process has ended."""
    while process.poll() is None:
        if any(folder.glob(".likeness-write-*")):
            return
        time.sleep(0.002)


def refuses(folder: Path, recipe: Path, damage: str) -> bool:
    """Whether a damaged newest checkpoint ends in an error that names it, before anything is trained."""
    output = folder / damage
    assert train(recipe, output, "stages.0.steps=10").returncode == 0
    last = checkpoints.list_checkpoints(output / "images" / "checkpoints")[-1]
    path = max(last.glob("*.safetensors"), key=lambda file: file.stat().st_size)
    data = bytearray(path.read_bytes())
    if damage == "flip":
        data[-5] ^= 1
    path.write_bytes(data if damage == "flip" else data[:-7])
    again = train(recipe, output)
    return again.returncode not in (0, 1) and last.name in again.stderr and "Traceback" not in again.stderr


if __name__ == "__main__":
    main()
