"""The commands that write, with small inputs: a network of a few thousand weights, two steps, clips of nine frames."""

import atexit
import json
import os
import shutil
import subprocess
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from itertools import pairwise
from pathlib import Path

import numpy as np
from trials import ROOT, call_in_child, import_modules

PROMPT = "a woman img in a red sweater nods"
STORY = """
title = "A day"
steps = 2
frames = 9
[[shots]]
prompt = "a woman img in a red sweater nods"
[[shots]]
prompt = "a woman img in a blue shirt smiles"
seed = 3
[[shots]]
prompt = "a woman img in a park turns to the left"
frames = 1
"""
PROTOCOL = """
title = "Small"
source = "test"
groups = { woman = 2 }
max_references = 1
lists = ["LISTS"]
prompts_per_identity = 2
"""
SENTENCES = '[[prompts]]\ngroups = ["woman"]\ntexts = ["{who} nods", "{who} smiles in a park"]\n'
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
SHORT = ("--steps", "2", "--frames", "9")
PULL = ("models", "pull", "cogvideox-2b")
SHARD_BYTES = 12_000_000
"""More than a chunk of `huggingface_hub`, so that a part of it stays when a download is ended."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Verb:
    """One command that writes."""

    name: str
    words: Callable[[Path], list[str]]
    """Words for a folder of material; outputs are relative to the folder in which it runs."""
    inputs: str = ""
    """Folder of the material that is copied to `work`, because the command changes it."""
    varies: tuple[str, ...] = ()
    """Files that differ between two undisturbed runs."""
    refuses_again: bool = False
    """A finished run is not done again in the same place."""
    is_forked: bool = True
    """False for what starts processes with the words of its own command line."""
    has_peer: bool = False
    """It starts a second training process."""
    environment: Callable[[Path], dict[str, str]] = lambda _: {}
    """Further variables, for a folder of material."""
    check: Callable[[Path], list[str]] = lambda _: []
    """Further faults of its files."""

    def prepare(self, material: Path, folder: Path) -> Path:
        """Make the folder in which it runs."""
        shutil.rmtree(folder, ignore_errors=True)
        folder.mkdir(parents=True)
        if self.inputs:
            shutil.copytree(material / self.inputs, folder / "work")
        return folder


def _generate(material: Path, *, output: str, frames: str = "9") -> list[str]:
    words = ["generate", PROMPT, "--face", str(material / "me.png"), "-o", output, "--overwrite", "--steps", "2"]
    return [*words, "--frames", frames, "--backbone", str(material / "checkpoint")]


def _story(material: Path) -> list[str]:
    words = ["story", str(material / "story.toml"), "--face", str(material / "me.png"), "-o", "story", "--overwrite"]
    return [*words, "--backbone", str(material / "checkpoint")]


def _demo(_material: Path) -> list[str]:
    return ["demo", "-o", "demo", "--overwrite", "--steps", "1"]  # Its sentences are too long for the small network.


def _character(material: Path) -> list[str]:
    words = ["character", "add", "ana", "--face", str(material / "me.png"), "--consent", "Ana, for tests"]
    return [*words, "--replace"]


def _show(material: Path) -> list[str]:
    return ["character", "show", str(material / "ana.safetensors"), "--picture", "ana.png", "--overwrite"]


def _puppets(_material: Path, *, output: str) -> list[str]:
    return ["puppets", output, "--people", "2", "--size", "64", "--overwrite"]


def _bench_create(material: Path) -> list[str]:
    return ["bench", "create", str(material / "protocol.toml"), "--pictures", str(material / "pictures"), "-o", "bench"]


def _bench_run(material: Path) -> list[str]:
    return ["bench", "run", "work", "--name", "a", *SHORT, "--backbone", str(material / "checkpoint")]


def _study_create(material: Path) -> list[str]:
    systems = [str(material / "systems" / name) for name in ("ours", "theirs")]
    references = str(material / "references")
    return ["study", "create", *systems, "--references", references, "-o", "study", "--seed", "3"]


def _eval(material: Path, *, workers: str) -> list[str]:
    words = ["eval", str(material / "systems" / "ours"), "--references", str(material / "references"), "-o", "results"]
    return [*words, "--metrics", "id_distance,face_rate,face_flow", "--workers", workers]


def _train(material: Path, *, processes: str) -> list[str]:
    return ["train", str(material / "recipe.toml"), "-o", "work/run", "--processes", processes]


def _hub(material: Path) -> dict[str, str]:
    """Variables for a hub of weights on this machine, which the first call starts."""
    if material not in _HUBS:
        script = ROOT / "tests" / "weights" / "local_hub.py"
        words = [sys.executable, str(script), str(material / "hub"), "0.01"]
        hub = subprocess.Popen(words, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True)
        atexit.register(hub.kill)
        assert hub.stdout is not None
        _HUBS[material] = hub.stdout.readline().strip()
    return {"HF_ENDPOINT": _HUBS[material], "HF_HUB_OFFLINE": "0", "HF_TOKEN": ""}


_HUBS: dict[Path, str] = {}
"""Addresses of hubs that run."""


def broken_checkpoints(folder: Path) -> list[str]:
    from likeness.errors import LikenessError
    from likeness.training.engine import checkpoints

    found = []
    for place in folder.glob("work/run/*/checkpoints"):
        for path in checkpoints.list_checkpoints(place):
            try:
                checkpoints.load(path)
            except LikenessError as error:
                found.append(f"damaged checkpoint: {error}")
    return found


VERBS = {
    verb.name: verb
    for verb in (
        Verb(name="generate", words=partial(_generate, output="clip.mp4")),
        Verb(name="generate, a picture", words=partial(_generate, output="clip.png", frames="1")),
        Verb(name="story", words=_story),
        Verb(name="demo", words=_demo),
        Verb(name="character add", words=_character),
        Verb(name="character show", words=_show),
        Verb(name="puppets, a sheet", words=partial(_puppets, output="sheet.png")),
        Verb(name="puppets, a clip", words=partial(_puppets, output="clip.mp4")),
        Verb(name="bench create", words=_bench_create, refuses_again=True),
        Verb(name="bench run", words=_bench_run, inputs="bench", varies=("work/cache/*",)),
        Verb(
            name="bench score", words=lambda _: ["bench", "score", "work", "a"], inputs="bench_made",
            varies=("work/cache/*",),
        ),
        Verb(
            name="bench report", words=lambda _: ["bench", "report", "work"], inputs="bench_made",
            varies=("work/cache/*",),
        ),
        Verb(name="study create", words=_study_create, refuses_again=True),
        Verb(
            name="study merge", words=lambda m: ["study", "merge", "work", str(m / "answers.json")], inputs="study",
            varies=("work/answers.sqlite*",),
        ),
        Verb(
            name="study report", words=lambda _: ["study", "report", "work"], inputs="study_answered",
            varies=("work/answers.sqlite*",),
        ),
        Verb(name="eval", words=partial(_eval, workers="1")),
        Verb(name="eval, two workers", words=partial(_eval, workers="2")),
        Verb(
            name="train", words=partial(_train, processes="1"), inputs="training",
            varies=("work/cache/*", "work/run/[!m]*"), check=broken_checkpoints,
        ),
        Verb(
            name="train, two processes", words=partial(_train, processes="2"), inputs="training",
            varies=("work/cache/*", "work/run/[!m]*"), check=broken_checkpoints, is_forked=False, has_peer=True,
        ),
        Verb(name="models pull, a folder", words=lambda m: [*PULL, "--from", str(m / "hub")]),
        Verb(name="models pull, a server", words=lambda _: list(PULL), environment=_hub, is_forked=False),
    )
}  # fmt: skip
ALWAYS_VARIES = ("home/cache/*", "*/features/*", "*.lock", "*/.*lock")


def make_material(
    folder: Path, given: Path | None = None, *, imports: bool = True, chosen: Sequence[str] = tuple(VERBS)
) -> Path:
    """Make all inputs in a child, so that this process runs no network and can be forked; imports its modules.

    Args:
        folder: Where they go.
        given: Inputs that another script made; used instead.
        imports: Whether commands will be forked from this process.
        chosen: Names of the verbs that will run; `demo` and `train` have dear inputs.
    """
    modules = "modules.json"
    if given is None:
        shutil.rmtree(folder, ignore_errors=True)
        folder.mkdir(parents=True)
        names = call_in_child(lambda: _make(folder, chosen), folder / "material.log")
        (folder / modules).write_text(json.dumps(names))
    material = (given or folder).absolute()
    if imports:
        import_modules(json.loads((material / modules).read_text()))
    return material


def _make(folder: Path, chosen: Sequence[str]) -> list[str]:
    import torch
    from conftest import build_checkpoint

    from likeness.cli import main
    from likeness.media import resize, write_image, write_video
    from likeness.training.run import MALLOC

    torch.set_num_threads(1)
    build_checkpoint(folder / "checkpoint")
    portrait = _portrait()
    write_image(folder / "me.png", portrait)
    (folder / "story.toml").write_text(STORY)
    (folder / "lists.toml").write_text(SENTENCES)
    (folder / "protocol.toml").write_text(PROTOCOL.replace("LISTS", str(folder / "lists.toml")))
    for name in ("ann", "eva"):
        write_image(folder / "pictures" / "woman" / f"{name}.png", portrait if name == "ann" else portrait[:, ::-1])
        write_image(folder / "references" / f"{name}.png", portrait)
        for system, shift in (("ours", 2), ("theirs", 5)):
            small = resize(portrait, 96, 96)
            frames = np.stack([np.roll(small, shift * number, axis=1) for number in range(5)])
            record = {"prompt": f"a woman img called {name} nods", "settings": {"method": system, "seed": 1}}
            write_video(folder / "systems" / system / f"{name}_1.mp4", frames, 8.0, metadata=record)
    home = str(folder)
    steps = [
        ["character", "add", "ana", "--face", f"{home}/me.png", "--consent", "yes", "-o", f"{home}/ana.safetensors"],
        _in(_bench_create(folder), "bench", folder),
        _in(_study_create(folder), "study", folder),
    ]
    if "demo" in chosen:
        steps.append(_in(_demo(folder), "demo", folder))
    for words in steps:
        assert main(words) == 0, words
    shutil.copytree(folder / "bench", folder / "bench_made")
    run = ["bench", "run", f"{home}/bench_made", "--name", "a", *SHORT, "--backbone", str(folder / "checkpoint")]
    assert main(run) == 0
    assert main(["bench", "report", f"{home}/bench_made"]) == 0
    _answer(folder)
    _fill_hub(folder / "hub")
    (folder / "recipe.toml").write_text(RECIPE)
    os.environ.update(MALLOC)  # `train` restarts itself without them.
    if any(name.startswith("train") for name in chosen):
        run = str(folder / "training" / "run")
        assert main(["train", str(folder / "recipe.toml"), "-o", run, "--processes", "1"]) == 0
        shutil.rmtree(run)
    return [name for name in sys.modules if name.split(".")[0] != "__main__"]


def _fill_hub(folder: Path) -> None:
    """The files of a pipeline, by name; one of its models has two shards."""
    from safetensors.numpy import save_file

    from likeness.weights import MODELS

    for file in MODELS[PULL[2]].files:
        path = folder / file.path
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text("{}")
    values = np.random.default_rng(0).integers(0, 256, SHARD_BYTES, dtype=np.uint8)
    for name in ("text_encoder/model", "vae/diffusion_pytorch_model"):
        save_file({"a": values[:1000]}, folder / f"{name}.safetensors")
    shards = {name: f"{name}.safetensors" for name in "ab"}
    for name, path in shards.items():
        save_file({name: values}, folder / "transformer" / path)
    index = folder / "transformer" / "diffusion_pytorch_model.safetensors.index.json"
    index.write_text(json.dumps({"weight_map": shards}))


def with_output(words: list[str], change: Callable[[str], str]) -> list[str]:
    """The same command with the value of each `-o` changed."""
    return words[:1] + [change(word) if before == "-o" else word for before, word in pairwise(words)]


def _in(words: list[str], name: str, folder: Path) -> list[str]:
    """The same command with its output in `folder`."""
    return with_output(words, lambda _: str(folder / name))


def _portrait() -> np.ndarray:
    from skimage.data import astronaut

    return np.ascontiguousarray(astronaut()[:300, 100:400])


def _answer(folder: Path) -> None:
    """Answers of two raters: in the store of one study, and as the file that the page of another saves."""
    from survey import answer_all, message

    from likeness.app.study.answers import AnswerStore
    from likeness.app.study.manifest import Study

    shutil.copytree(folder / "study", folder / "study_answered")
    study = Study.load(folder / "study_answered")
    store = AnswerStore(folder / "study_answered", study)
    for number in range(2):
        answer_all(study, store, f"rater-{number:04}", lambda _: 5)
    store.close()
    answers = [
        message(study, "rater-0007", trial, 4, position=position).model_dump()
        for position, trial in enumerate(study.plans[0])
    ]
    (folder / "answers.json").write_text(
        json.dumps({"study": study.key, "rater": "rater-0007", "plan": 0, "answers": answers})
    )
