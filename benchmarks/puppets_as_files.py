"""Puppets trained on through files against the same puppets in memory: what is equal, what is not, and why.

The same images are rendered into memory and written as PNG files with their captions. Latents and token ids have to be
equal; labels (face mask, landmarks, reference crop, embedding) are exact in memory and detected in files. With the
exact labels put in the place of the detected ones, the losses of all steps have to be equal bit for bit.

    python benchmarks/puppets_as_files.py
"""

import json
import sys
import tempfile
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from claims import Benchmark

from likeness import media, weights
from likeness.training import recipes
from likeness.training.base.pipelines import read_base, read_transformer_config
from likeness.training.data import render_puppets
from likeness.training.data.datasets import EpochSampler, ShardedDataset
from likeness.training.data.pairs import TrainingData, read_data
from likeness.training.data.prompts import tokenize_dataset
from likeness.training.engine import distributed
from likeness.training.engine.logging import TrainingLogger
from likeness.training.methods.prepare import prepare_recipe
from likeness.training.methods.stage import MethodStage
from likeness.training.methods.train import read_recognizer
from likeness.training.precompute.dataset import open_data
from likeness.training.precompute.prepare import find_cache

TINY = weights.CHECKPOINTS / "tiny"
LABELS = ("mask", "landmarks")
STEPS = 6
RECIPE = f"""
kind = "magic_mirror"
base = "{TINY}"
recognizer = "{TINY / "recognizer"}"
{{data}}
[[stages]]
name = "images"
data = "images"
steps = {STEPS}
batch = 4
dtype = "float32"
min_alpha_bar = 0.1
"""


def main() -> int:
    """Compare, claim, and print the table."""
    benchmark = Benchmark("puppets_as_files", seed=5)
    arguments = benchmark.arguments()
    count = 16 if arguments.quick else 48
    with tempfile.TemporaryDirectory(prefix="likeness-files-") as name:
        folder = Path(name)
        memory = build(folder, in_memory(count, arguments.seed))
        write_files(memory, folder, count, arguments.seed)
        path = json.dumps(str(folder / "set.jsonl"))
        from_files = build(folder, f'[data]\nkind = "files"\npath = {path}\nresolution_px = 64\nnum_frames = 1\n')
        compare(benchmark, memory, from_files, count)
    return benchmark.finish()


def in_memory(count: int, seed: int) -> str:
    people = count // 2
    return (
        f'faces = {{ kind = "faces", count = {count}, people = {people}, size_px = 64, seed = {seed} }}\n'
        'clips = { kind = "clips", count = 1, people = 1 }\n'
        f'validation = {{ kind = "faces", count = 8, people = 4, size_px = 64, seed = {seed + 1} }}\n'
    )


def build(folder: Path, data: str) -> MethodStage:
    """The stage of the recipe over data of one kind."""
    path = folder / "recipe.toml"
    path.write_text(RECIPE.format(data=data))
    recipe = recipes.read(path, ())
    logger = TrainingLogger(folder / "run", "puppets_as_files")
    method_spec: Any = recipe.training_spec()
    torch.manual_seed(recipe.seed)
    method = method_spec.build(read_transformer_config(recipe.base), recipe.method, recipe.profile)
    pipe = read_base(recipe.base)
    found: TrainingData
    if recipe.data is None:
        found = read_data(recipe.puppets(), pipe, folder / "cache", logger)
    else:
        plan = prepare_recipe(recipe, method, method_spec, folder / "cache", logger, torch.device("cpu"))
        cache = find_cache(folder / "cache")
        found = open_data(plan, cache, lambda shards: method_spec.choose_crops(method, shards))
    method.attach(pipe, dtype=torch.float32)
    method.trainable_parameters()
    recognizer = read_recognizer(recipe.recognizer)
    return MethodStage(pipe, method, method_spec, recognizer, recipe.stages[0], found, 0)


def write_files(stage: MethodStage, folder: Path, count: int, seed: int) -> None:
    """The images of `stage` as PNG files with a manifest."""
    settings = render_puppets.PuppetSettings(kind="images", count=count, people=count // 2, size_px=64, seed=seed)
    images = ShardedDataset.read(render_puppets.folder(settings, folder / "cache"), ("frames",))
    lines = []
    for row, facts in enumerate(images.metadata):
        media.write_image(folder / "set" / f"{row:03d}.png", images["frames"][row, 0].numpy())
        lines.append(
            json.dumps({"media": f"set/{row:03d}.png", "caption": facts["prompt"], "person": str(facts["person"])})
        )
    (folder / "set.jsonl").write_text("\n".join(lines) + "\n")
    assert len(stage.targets) == count


def compare(benchmark: Benchmark, memory: MethodStage, files: MethodStage, count: int) -> None:
    places = {fact["prompt"] + str(fact["person"]): row for row, fact in enumerate(files.targets.metadata)}
    keys = [fact["prompt"] + str(fact["person"]) for fact in memory.targets.metadata]
    both = [row for row in range(count) if keys[row] in places]  # A face was found in the file.
    rows, others = torch.tensor(both), torch.tensor([places[keys[row]] for row in both])
    benchmark.note("files.faces_found", len(both) / count)
    mine, theirs = (stage.targets["latents"][own].float() for stage, own in ((memory, rows), (files, others)))
    benchmark.claim(
        "files.latents_relative_rms", float((mine - theirs).square().mean().sqrt() / mine.std()), "<=", 0.01
    )
    benchmark.note("files.latents_bit_equal", bool(torch.equal(mine, theirs)))
    is_same = torch.equal(memory.prompts.prompt_ids[1][rows], files.prompts.prompt_ids[1][others])
    benchmark.claim("files.token_ids_equal", float(is_same), ">=", 1)
    masks = [stage.targets["mask"][own].float() for stage, own in ((memory, rows), (files, others))]
    overlap = torch.minimum(*masks).sum() / torch.maximum(*masks).sum()
    benchmark.note("files.face_mask_overlap", float(overlap))
    points = [stage.targets["landmarks"][own] for stage, own in ((memory, rows), (files, others))]
    benchmark.note("files.landmark_distance_px", float((points[0] - points[1]).norm(dim=-1).mean()))
    detected = losses(files, others)
    memory.targets = ShardedDataset(
        {name: memory.targets[name][rows] for name in LABELS} | {"latents": files.targets["latents"][others]},
        [memory.targets.metadata[row] for row in both],
    )
    memory.prompts = tokenize_dataset(memory.pipe, memory.method, memory.targets)
    exact = losses(memory, torch.arange(len(both)))
    use_exact_labels(files, memory, others)
    replaced = losses(files, others)
    benchmark.note("files.loss_change_by_detected_labels", float(((detected - exact) / exact).abs().max()))
    benchmark.note("files.losses_bit_equal", bool(torch.equal(replaced, exact)))
    benchmark.claim("files.loss_change_with_exact_labels", float(((replaced - exact) / exact).abs().max()), "<=", 1e-6)


def use_exact_labels(files: MethodStage, memory: MethodStage, others: torch.Tensor) -> None:
    """Give `files` masks, landmarks and references of `memory`; `others` are its rows in the order of `memory`."""
    for name in LABELS:
        values = torch.zeros(len(files.targets), *memory.targets[name].shape[1:], dtype=memory.targets[name].dtype)
        values[others] = memory.targets[name]
        files.targets = files.targets.with_tensor(name, values)
    files.targets.reference_rows = ()
    person = {row: memory.targets.metadata[number]["person"] for number, row in enumerate(others.tolist())}
    files.targets.metadata = [fact | {"person": person.get(row)} for row, fact in enumerate(files.targets.metadata)]
    files.data = replace(files.data, references=memory.data.references)
    files.reference_views = memory.reference_views


def losses(stage: MethodStage, rows: torch.Tensor) -> torch.Tensor:
    """The losses of the first steps over these rows, in the same order for every stage: (steps,)."""
    stage.rows, stage.sampler, stage.prefetcher = rows, EpochSampler(len(rows), 0), None
    found = []
    for step in range(STEPS):
        distributed.seed_micro_step(0, step)
        found.append(float(stage.loss(step)[0].detach()))
    return torch.tensor(found, dtype=torch.float64)


if __name__ == "__main__":
    sys.exit(main())
