"""The commands, the code and the examples of the README work in a folder with a picture me.jpg."""

import json
import re
import runpy
import shlex
import shutil
import sys
from pathlib import Path

import pytest

from likeness.app import demo
from likeness.cli import main
from likeness.generation import Likeness
from likeness.generation.loading.presets import PRESETS
from likeness.generation.outputs.similarity import describe_similarity, read_similarity
from likeness.media import read_image, read_video, write_image

ROOT = Path(__file__).parents[1]
README = (ROOT / "README.md").read_text()
BLOCKS = re.findall(r"```(bash|python)\n(.*?)```", README, flags=re.S)
COMMANDS = [
    line.split("#")[0].strip()
    for language, block in BLOCKS
    if language == "bash"
    for line in block.splitlines()
    if line
]
CODE = [block for language, block in BLOCKS if language == "python"]
EXAMPLES = sorted((ROOT / "examples").glob("*.py"))
MAX_EXAMPLE_LINES = 30
NUM_STEPS = 2
NUM_FRAMES = 9
NUM_SHOTS = 3
"""Of examples/story.toml."""
STOCK_FRAMES = 17
"""Of a diffusers pipeline that is called as it comes, without the preset."""
IN_STOCK = ("inside_diffusers",)
"""Examples that call one."""


@pytest.fixture(scope="module")
def desk(tmp_path_factory):
    """A folder with one picture of a face and the examples."""
    from likeness.puppets import sample_image, sample_person

    folder = tmp_path_factory.mktemp("desk")
    portrait = sample_image(7, person=sample_person(7, "woman"), size_px=256, max_yaw_deg=5)
    write_image(folder / "me.jpg", portrait.frames[0])
    (folder / "runs").mkdir()
    shutil.copytree(ROOT / "examples", folder / "examples")
    story = folder / "examples" / "story.toml"
    story.write_text(story.read_text().replace("best_of = 3", "best_of = 2"))
    return folder


@pytest.fixture(scope="module")
def load_once():
    """`Likeness.load`, but a second call with the same arguments returns what the first one loaded."""
    load, loaded = Likeness.load, {}

    def load_once(*args, **kwargs):
        key = repr((args, sorted(kwargs.items())))
        if key not in loaded:
            loaded[key] = load(*args, **kwargs)
        return loaded[key]

    return load_once


@pytest.fixture
def at_desk(desk, load_once, monkeypatch):
    """Work in that folder with `me.jpg` as the first argument.

    Few steps, frames, seeds and videos: these tests check that everything runs, not how a video looks.
    """
    monkeypatch.setattr(Likeness, "load", load_once)
    monkeypatch.chdir(desk)
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    monkeypatch.setenv("LIKENESS_HOME", str(desk / "home"))
    monkeypatch.setattr(sys, "argv", ["example", "me.jpg"])
    monkeypatch.setitem(PRESETS, "tiny", PRESETS["tiny"].model_copy(update={"steps": NUM_STEPS, "frames": NUM_FRAMES}))
    monkeypatch.setattr(demo, "SEEDS_PER_VIDEO", 1)
    for name in ("PUPPET_ACTIONS", "ASTRONAUT_PROMPTS"):
        monkeypatch.setattr(demo, name, getattr(demo, name)[:1])
    return desk


def test_readme_has_both_kinds_of_blocks():
    assert len(COMMANDS) >= 5
    assert len(CODE) == 2


def test_first_python_needs_at_most_six_lines():
    assert len([line for line in CODE[0].splitlines() if line.strip()]) <= 6


@pytest.mark.parametrize("command", [command for command in COMMANDS if command.startswith("make ")])
def test_make_targets_exist(command):
    target = command.split()[1]
    assert re.search(rf"^{target}:", (ROOT / "Makefile").read_text(), flags=re.M)


@pytest.fixture
def unseen_faces(monkeypatch):
    """Search frames at their own size, at which their faces are too small to be found: that takes a tenth of the time.

    The demo, the README's code and one command (`MEASURED`) search them as users' calls do.
    """
    monkeypatch.setattr("likeness.generation.outputs.similarity.FRAME_DETECTION_PX", 64)


MEASURED = "nod.mp4"
"""What the command writes whose frames are searched for faces as a user's are."""
STEPS_TO_A_FACE = 10
"""After `NUM_STEPS` few of its frames show a face."""


@pytest.mark.parametrize(
    "command", [command for command in COMMANDS if command.startswith("likeness ") and MEASURED not in command]
)
@pytest.mark.usefixtures("at_desk")
def test_commands_work(command, request):
    words = shlex.split(command)[1:]
    if words[0] == "train":  # Takes hours.
        assert (ROOT / words[1]).is_file()
        return
    if words[0] != "demo":
        request.getfixturevalue("unseen_faces")
    assert main(words) == 0
    if "-o" in words:
        assert_shows_something(Path(words[words.index("-o") + 1]))


@pytest.mark.usefixtures("at_desk")
def test_a_command_measures_the_faces_of_its_frames(capsys):
    (command,) = (command for command in COMMANDS if MEASURED in command)
    assert main([*shlex.split(command)[1:], "--steps", str(STEPS_TO_A_FACE)]) == 0
    assert_shows_something(Path(MEASURED))
    similarity = read_similarity(json.loads(Path(MEASURED).with_suffix(".json").read_text())["similarity"])
    assert len(similarity.distances) == NUM_FRAMES
    assert similarity.face_rate >= 0.5
    assert 0.2 < similarity.mean_distance < 0.8
    assert describe_similarity(similarity) in capsys.readouterr().out


def assert_shows_something(path, num_frames=NUM_FRAMES):
    """What was written is there, and is neither one color nor, if it is a video, a still."""
    if path.is_dir():
        assert (path / "report.html").stat().st_size > 0
        assert len(list(path.glob("*.mp4"))) >= 2
        for file in [*path.glob("*.mp4"), *path.glob("*.png")]:
            assert_shows_something(file)
    elif path.suffix == ".mp4":
        frames, _ = read_video(path)
        assert len(frames) == num_frames * (NUM_SHOTS if path.name == "story.mp4" else 1)
        assert frames[0].std() > 5
        assert abs(frames[0].astype(float) - frames[-1]).mean() > 0.5
    else:
        assert read_image(path).std() > 5


@pytest.mark.parametrize("code", CODE, ids=["likeness", "diffusers"])
@pytest.mark.usefixtures("at_desk")
def test_python_works(code, tmp_path):
    script = tmp_path / "readme.py"
    script.write_text(code)
    names = runpy.run_path(str(script))
    if "clip" in names:
        assert_shows_something(Path("me.mp4"))
        assert len(names["clip"].similarity.distances) == NUM_FRAMES
        assert names["clip"].similarity.face_rate > 0
    else:
        assert len(names["video"]) == STOCK_FRAMES
        assert names["mirror"]._attachment is None


AS_README = ("identity_scale", "same_person_many_scenes", "puppet_as_reference", "inside_diffusers")
"""Examples that do what README's own commands and code do, some of them several times."""


@pytest.mark.parametrize(
    "example",
    [pytest.param(path, id=path.stem, marks=pytest.mark.slow if path.stem in AS_README else ()) for path in EXAMPLES],
)
@pytest.mark.usefixtures("at_desk", "unseen_faces")
def test_examples_work(example):
    runpy.run_path(str(example), run_name="__main__")
    written = re.findall(r"runs/[\w.]+", example.read_text())
    assert written
    for path in written:
        assert_shows_something(Path(path), STOCK_FRAMES if example.stem in IN_STOCK else NUM_FRAMES)


@pytest.mark.parametrize("example", EXAMPLES, ids=lambda path: path.stem)
def test_examples_are_short(example):
    assert len(example.read_text().splitlines()) <= MAX_EXAMPLE_LINES


def test_links_lead_somewhere():
    targets = re.findall(r"\]\(([^)#]+)", README)
    assert len(targets) == README.count("](") > 20
    assert [target for target in targets if not (ROOT / target).exists()] == []


def test_tree_names_real_packages():
    named = re.findall(r"[├└]── (\w+)/", README)
    assert len(named) >= 8
    for name in named:
        assert (ROOT / "src" / "likeness" / name).is_dir(), name
