"""Compares two revisions of this repository bit by bit: pictures, video frames, trained weights, counted costs.

The first revision is the one before a change, the second (by default this working tree) the one after. Each is checked
out into a temporary work tree and runs the same commands in this Python. Compared are:

- SHA-256 of the frames that `likeness generate` hands to the PNG and H.264 encoders, for both methods;
- SHA-256 of the weights after the first steps of each stage of training, for both methods, from a recipe of the first
  revision;
- operators, FLOPs and bytes that `benchmarks/overhead.py` counts at the size of CogVideoX-5B.

    python benchmarks/bit_identity.py HEAD~20
    python benchmarks/bit_identity.py HEAD~20 HEAD~5 --only frames
"""

import hashlib
import json
import os
import runpy
import subprocess
import sys
import tempfile
import tomllib
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import skimage.data
from claims import Benchmark
from safetensors.torch import load_file

from likeness import media

ROOT = Path(__file__).parents[1]
PROMPT = "a man img smiles"
METHODS = ("magic_mirror", "fantasy_id")
STEPS = 3
SIZES = {"count": 16, "people": 8, "shard": 8}
OPTIMIZER = {"kind": "adamw", "learning_rate": 1e-3, "warmup_steps": 1}
"""Torch's own: a change of the project's Muon changes every number after the first step."""


def main() -> int:
    """Measure both revisions, and claim that nothing differs."""
    benchmark = Benchmark("bit_identity", seed=0)
    benchmark.parser.add_argument("before", help="revision before the change")
    benchmark.parser.add_argument("after", nargs="?", help="revision after it; by default this working tree")
    benchmark.parser.add_argument("--only", choices=sorted(PARTS), action="append", help="measure this part only")
    benchmark.parser.add_argument("--record", help="used by the script itself: run `likeness` and write frames here")
    arguments = benchmark.arguments()
    parts = arguments.only or sorted(PARTS)
    with (
        tempfile.TemporaryDirectory(prefix="likeness-bits-") as name,
        checkout(arguments.before, name) as before,
        checkout(arguments.after, name) as after,
    ):
        for part in parts:
            old, new = (PARTS[part](tree, before, Path(name)) for tree in (before, after))
            compare(benchmark, part, old, new)
    return benchmark.finish()


def compare(benchmark: Benchmark, part: str, old: dict[str, Any], new: dict[str, Any]) -> None:
    both = sorted(old.keys() & new.keys())
    if not both:
        raise SystemExit(f"The two revisions share no figure of {part}: {sorted(old)} and {sorted(new)}.")
    for name in both:
        if old[name] != new[name]:
            benchmark.note(f"{part}.{name}", f"{old[name]} before, {new[name]} after")
    for name in sorted(old.keys() ^ new.keys()):
        benchmark.note(f"{part}.{name}", "in one revision only")
    benchmark.note(f"{part}.compared", len(both))
    benchmark.claim(f"{part}.different", sum(old[name] != new[name] for name in both), "<=", 0)


@contextmanager
def checkout(revision: str | None, scratch: str) -> Iterator[Path]:
    """A work tree of `revision`; this one if there is none."""
    if revision is None:
        yield ROOT
        return
    tree = Path(tempfile.mkdtemp(prefix="tree-", dir=scratch)) / "likeness"
    git("worktree", "add", "--quiet", "--detach", str(tree), revision)
    try:
        yield tree
    finally:
        git("worktree", "remove", "--force", str(tree))


def git(*words: str) -> None:
    subprocess.run(["git", "-C", str(ROOT), *words], check=True)


def run(tree: Path, *words: str) -> None:
    """Run Python with the package of `tree`, and show what it printed if it fails."""
    environment = os.environ | {"PYTHONPATH": str(tree / "src"), "PYTHONWARNINGS": "ignore"}
    done = subprocess.run([sys.executable, *words], cwd=tree, env=environment, capture_output=True, text=True)
    if done.returncode:
        raise SystemExit(f"{' '.join(words)}\nfailed in {tree}:\n{done.stdout[-1000:]}{done.stderr[-3000:]}")


def frames(tree: Path, _before: Path, scratch: Path) -> dict[str, Any]:
    """SHA-256 of each picture and of all frames of a video, by method."""
    face = scratch / "face.png"
    if not face.exists():
        media.write_image(face, skimage.data.astronaut())
    hashes: dict[str, Any] = {}
    for method in METHODS:
        for suffix, more in (("png", ["--frames", "1"]), ("mp4", [])):
            record = scratch / f"{tree.parent.name}-{method}-{suffix}.json"
            words = ["generate", PROMPT, "--face", str(face), "--method", method, "--seed", "3", *more]
            words += ["-o", str(record.with_suffix(f".{suffix}"))]
            run(tree, str(Path(__file__).resolve()), "--record", str(record), *words)
            hashes |= {f"{method}.{suffix}": json.loads(record.read_text())}
    return hashes


def record(target: Path, words: list[str]) -> None:
    """Run `likeness` with `words`, and write the SHA-256 of what it hands to encoders to `target`."""
    from PIL import Image

    from likeness.media import video

    digest, counted = hashlib.sha256(), 0
    encode, save = video.VideoFrame.from_ndarray, Image.Image.save

    class Recorded:  # Attributes of `av.VideoFrame` cannot be set.
        @staticmethod
        def from_ndarray(array: Any, *args: Any, **kwargs: Any) -> Any:
            nonlocal counted
            counted += 1
            digest.update(array.tobytes())
            return encode(array, *args, **kwargs)

    def save_recorded(image: Any, *args: Any, **kwargs: Any) -> None:
        nonlocal counted
        counted += 1
        digest.update(image.tobytes())
        save(image, *args, **kwargs)

    video.VideoFrame, Image.Image.save = Recorded, save_recorded
    sys.argv = ["likeness", *words]
    try:
        runpy.run_module("likeness", run_name="__main__")
    except SystemExit as stop:
        if stop.code:
            raise
    if not counted:
        raise SystemExit("No frame reached an encoder that this script knows.")
    target.write_text(json.dumps({"frames": counted, "sha256": digest.hexdigest()}))


def weights(tree: Path, before: Path, scratch: Path) -> dict[str, Any]:
    """SHA-256 of the final weights of each stage of a small recipe, by method; names of tensors do not count.

    A log would not do: its lines are means over the steps of some seconds.
    """
    hashes: dict[str, Any] = {}
    for method in METHODS:
        recipe = scratch / f"{method}.toml"
        if not recipe.exists():
            recipe.write_text(small_recipe(before / "recipes" / "tiny" / f"{method}.toml", before))
        folder = scratch / f"{tree.parent.name}-{method}"
        run(tree, "-m", "likeness", "train", str(recipe), "-o", str(folder), "--processes", "1")
        for path in sorted(folder.glob("*/finished.safetensors")):
            tensors = sorted(hashlib.sha256(each.numpy().tobytes()).digest() for each in load_file(path).values())
            total = hashlib.sha256(b"".join(tensors)).hexdigest()
            hashes[f"{method}.{path.parent.name}"] = {"tensors": len(tensors), "sha256": total}
    return hashes


def small_recipe(path: Path, tree: Path) -> str:
    """The recipe of a method with a few samples and steps, over the weights that `tree` ships."""
    recipe = tomllib.loads(path.read_text())
    shipped = tree / "src" / "likeness" / "checkpoints" / "tiny"
    recipe["base"] = str(shipped)
    for name, folder in (("recognizer", "recognizer"), ("shape", "shape"), ("stem", "recognizer")):
        if name in recipe:
            recipe[name] = str(shipped / folder)
    for value in recipe.values():
        if isinstance(value, dict) and "count" in value:
            value |= {key: SIZES[key] for key in SIZES}
    descriptor = recipe.get("descriptor")  # FantasyID's first stage.
    for stage in [*recipe["stages"], *([descriptor] if descriptor else [])]:
        stage.pop("minutes", None)
        stage |= {"steps": STEPS, "batch": 4, "optimizer": OPTIMIZER}
    stages = recipe.pop("stages")
    lines = [f"{key} = {toml(value)}" for key, value in recipe.items()]
    return "\n".join([*lines, f"stages = {toml(stages)}", ""])


def toml(value: Any) -> str:
    if isinstance(value, dict):
        return "{ " + ", ".join(f"{json.dumps(key)} = {toml(item)}" for key, item in value.items()) + " }"
    if isinstance(value, list):
        return "[" + ", ".join(toml(item) for item in value) + "]"
    return json.dumps(value)


def costs(tree: Path, _before: Path, scratch: Path) -> dict[str, Any]:
    target = scratch / f"{tree.parent.name}-overhead.json"
    run(tree, "benchmarks/overhead.py", "--json", str(target))
    content = json.loads(target.read_text())
    return content["notes"] | {claim["name"]: claim["value"] for claim in content["claims"]}


PARTS: dict[str, Callable[[Path, Path, Path], dict[str, Any]]] = {"costs": costs, "frames": frames, "weights": weights}


if __name__ == "__main__":
    if sys.argv[1:2] == ["--record"]:
        record(Path(sys.argv[2]), sys.argv[3:])
    else:
        sys.exit(main())
