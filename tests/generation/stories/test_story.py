import json
import re
import shutil
from pathlib import Path

import numpy as np
import pytest

from likeness.errors import ConfigError, LockedError, PromptError
from likeness.files import lock
from likeness.generation import Character, read_story
from likeness.generation.loading.presets import find_preset
from likeness.generation.stories.render import LOCK_FILE, _read_finished_shots
from likeness.generation.stories.story_file import build_story, resolve_shots
from likeness.media import read_image, read_video

EXAMPLE = Path(__file__).parents[3] / "examples" / "story.toml"
SHOTS = [
    {"prompt": "a woman img in a red sweater nods"},
    {"prompt": "a woman img smiles", "seed": 5, "style": "park"},
]
FAST = {"steps": 2, "frames": 9, "guidance": 1}
pytestmark = pytest.mark.usefixtures("small_frames")


def story_of(*shots, **settings):
    return build_story(FAST | {"shots": [dict(shot) for shot in shots]} | settings)


@pytest.fixture(scope="module", autouse=True)
def small_videos():
    """Save clips in the size in which they are made: enlarged, their encoding takes longer."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("likeness.generation.outputs.save.MIN_SAVED_SIDE_PX", 64)
        yield


@pytest.fixture(scope="module")
def story_folder(likeness, face_of, small_frames, small_videos, tmp_path_factory):  # noqa: ARG001
    folder = tmp_path_factory.mktemp("story")
    likeness.story(story_of(*SHOTS), folder, face_of(0))
    return folder


@pytest.fixture
def folder(story_folder, tmp_path):
    """A rendered story that a test may change."""
    return shutil.copytree(story_folder, tmp_path / "story")


def rendered_again(likeness, folder, face, story):
    """Which shots are made anew."""
    made = []
    likeness.story(
        story,
        folder,
        face,
        on_shot=lambda number, _count, is_kept: None if is_kept else made.append(number),
    )
    return made


def test_a_story_leaves_shots_one_video_sheet_plot_and_page(folder):
    record = json.loads((folder / "story.json").read_text())
    files = [shot["file"] for shot in record["shots"]]
    assert len(files) == 2
    assert all((folder / file).with_suffix(".json").is_file() for file in files)
    joined, fps = read_video(folder / "story.mp4")
    assert joined.shape == (18, 64, 64, 3)
    assert fps == 8
    for name in ("contact_sheet.png", "similarity.png", "reference_1.png"):
        assert read_image(folder / name).std() > 5
    page = (folder / "report.html").read_text()
    assert page.count("<video") == 3
    assert "Shot 2: a woman img smiles, in the style of park" in page
    for source in re.findall(r'src="([^"]+)"', page):
        assert source.startswith("data:image/png;base64,") or (folder / source).is_file()


def test_the_joined_video_shows_the_shots_in_order(folder):
    record = json.loads((folder / "story.json").read_text())
    joined, _ = read_video(folder / "story.mp4")
    for number, shot in enumerate(record["shots"]):
        frames, _ = read_video(folder / shot["file"])
        assert np.abs(joined[9 * number : 9 * number + 9].astype(int) - frames).mean() < 3


def test_each_shot_has_its_own_seed_style_and_similarity(folder):
    one, two = json.loads((folder / "story.json").read_text())["shots"]
    assert (one["seed"], two["seed"]) == (0, 5)
    assert one["prompt"] == SHOTS[0]["prompt"]
    assert two["prompt"] == "a woman img smiles, in the style of park"
    assert len(one["similarity"]["distances"]) == 9
    assert 0 <= one["similarity"]["score"] <= 1


def test_a_story_rendered_again_makes_no_shot_and_the_same_bytes(likeness, face, folder):
    before = {path.name: path.read_bytes() for path in folder.iterdir()}
    steps = []
    result = likeness.story(story_of(*SHOTS), folder, face, on_step=lambda *now: steps.append(now))
    assert [shot.is_kept for shot in result.shots] == [True, True]
    assert steps == [(2, 4), (4, 4)]
    assert {path.name: path.read_bytes() for path in folder.iterdir()} == before


@pytest.mark.parametrize(
    ("change", "made"),
    [
        (lambda shots: [shots[0], shots[1] | {"seed": 6}], [2]),
        (lambda shots: shots[::-1], []),
        (lambda shots: [{"prompt": "a woman img turns"}, *shots], [1]),
        (lambda shots: [shots[0], shots[0]], []),
    ],
    ids=["seed", "other order", "one more", "one twice"],
)
def test_only_what_changed_is_made_anew(likeness, face, folder, change, made):
    shots = change(SHOTS)
    assert rendered_again(likeness, folder, face, story_of(*shots)) == made
    record = json.loads((folder / "story.json").read_text())
    assert len(record["shots"]) == len(shots)


def test_what_was_changed_back_is_still_there(likeness, face, folder):
    assert rendered_again(likeness, folder, face, story_of(SHOTS[0] | {"identity_scale": 0.5}, SHOTS[1])) == [1]
    assert rendered_again(likeness, folder, face, story_of(*SHOTS)) == []


def test_another_face_makes_all_shots_anew(likeness, face_of, folder):
    assert rendered_again(likeness, folder, face_of(1), story_of(*SHOTS)) == [1, 2]


def test_a_damaged_shot_is_made_anew(likeness, face, folder):
    file = folder / json.loads((folder / "story.json").read_text())["shots"][0]["file"]
    whole = file.read_bytes()
    file.write_bytes(whole[:-20])
    assert rendered_again(likeness, folder, face, story_of(*SHOTS)) == [1]
    assert file.read_bytes() == whole


@pytest.mark.parametrize("record", ["{", "[]", '{"finished": [{"file": "x"}]}', "{}"])
def test_a_damaged_record_keeps_no_shot(folder, record):
    assert len(_read_finished_shots(folder)) == 2
    (folder / "story.json").write_text(record)
    assert _read_finished_shots(folder) == {}


def test_a_story_that_was_stopped_goes_on_where_it_was(likeness, face, tmp_path):
    def stop(done, _total):
        if done == 3:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        likeness.story(story_of(*SHOTS), tmp_path, face, on_step=stop)
    assert not (tmp_path / "story.mp4").exists()
    assert rendered_again(likeness, tmp_path, face, story_of(*SHOTS)) == [2]


def test_a_shot_may_search_for_the_best_seed(likeness, face, tmp_path):
    result = likeness.story(story_of(SHOTS[0] | {"best_of": 2}, frames=1), tmp_path, face)
    assert len(result.shots[0].clip.settings["best_of"]["candidates"]) == 2
    assert "of seeds 0:" in result.page.read_text()


def test_the_character_of_a_story_stands_in_its_records(likeness, face, tmp_path):
    character = Character.create("ana", [face], consent="Ana agreed.")
    file = character.save(tmp_path / "ana.safetensors")
    result = likeness.story(story_of(SHOTS[0], frames=1, character=str(file)), tmp_path / "story")
    assert result.shots[0].clip.settings["character"] == character.describe()


def test_toml_and_json_say_the_same(tmp_path):
    values = {"seed": 3, "faces": ["me.jpg"], "steps": 2, "frames": 9, "shots": SHOTS}
    (tmp_path / "story.json").write_text(json.dumps(values))
    lines = ["seed = 3", 'faces = ["me.jpg"]', "steps = 2", "frames = 9"]
    for shot in SHOTS:
        lines += ["[[shots]]", *(f"{name} = {json.dumps(value)}" for name, value in shot.items())]
    (tmp_path / "story.toml").write_text("\n".join(lines))
    one, two = read_story(tmp_path / "story.json"), read_story(tmp_path / "story.toml")
    assert one == two
    assert one.faces == (str(tmp_path / "me.jpg"),)


def test_the_example_is_a_story_in_which_overrides_count():
    story = read_story(EXAMPLE, ["steps=3", "shots.0.seed=9"])
    decided = resolve_shots(story, find_preset("tiny"))
    assert [settings.steps for settings, _ in decided] == [3, 3, 3]
    assert story.shots[0].seed == 9
    assert [search.best_of for _, search in decided] == [1, 1, 3]


@pytest.mark.parametrize(
    ("values", "words"),
    [
        ({"shots": []}, "has 0 shots"),
        ({}, "has 0 shots"),
        ({"shots": "one"}, "no list of tables"),
        ({"shots": [{"prompt": "a woman img nods"}] * 101}, "has 101 shots"),
        ({"shots": SHOTS, "titel": "x"}, "unknown setting `titel`. Did you mean `title`"),
        ({"shots": [SHOTS[0], {"promt": "x"}]}, "shot 2: unknown setting `promt`. Did you mean `prompt`"),
        ({"shots": [{"seed": 3}]}, "shot 1: `prompt` is required"),
        ({"shots": [SHOTS[0] | {"seed": -1}]}, "shot 1: `seed` is -1"),
        ({"shots": SHOTS, "setps": 3}, "Did you mean `steps`"),
        ({"shots": SHOTS, "defaults": {}}, "unknown setting `defaults`"),
        ({"shots": SHOTS, "steps": "many"}, "`steps` is 'many'"),
    ],
)
def test_files_that_are_no_story_are_refused(values, words):
    with pytest.raises(ConfigError, match=words):
        build_story(values)


@pytest.mark.parametrize(
    ("shot", "kind", "words"),
    [
        ({"prompt": "a woman waves"}, PromptError, 'Shot 2: .*Try: "a woman img waves"'),
        ({"prompt": "a woman img " + "nods " * 20}, PromptError, "Shot 2: .*at most 16 fit"),
        ({"frames": 1001}, ConfigError, "Shot 2: `frames` is 1001"),
        ({"frames": 10}, ConfigError, "Shot 2: `frames` is 10.*Try 9"),
        ({"steps": -4}, ConfigError, "Shot 2: `steps` is -4"),
        ({"best_of": 0}, ConfigError, "Shot 2: `best_of` is 0"),
        ({"identity_start": 0.6, "identity_end": 0.2}, ConfigError, "Shot 2: .*end has to be larger"),
    ],
)
def test_a_shot_that_cannot_be_made_is_named_before_any_is_made(likeness, face, tmp_path, shot, kind, words):
    with pytest.raises(kind, match=words):
        likeness.story(story_of(SHOTS[0], SHOTS[0] | shot), tmp_path / "story", face)
    assert not (tmp_path / "story").exists()


def test_a_story_needs_one_person(likeness, tmp_path):
    with pytest.raises(ConfigError, match="No face was given"):
        likeness.story(story_of(*SHOTS), tmp_path)
    with pytest.raises(ConfigError, match="Give one of both"):
        likeness.story(story_of(*SHOTS, faces=["me.jpg"], character="ana"), tmp_path)


@pytest.mark.parametrize(
    ("name", "content", "words"),
    [
        ("story.txt", "", "Use .toml or .json"),
        ("story.toml", "shots = [", "cannot be read as TOML"),
        ("story.json", "{", "cannot be read as JSON"),
        ("story.json", "[1]", "no table of settings"),
        ("story.toml", "\xff", "cannot be read as TOML"),
        ("story.toml", f"a = {'[' * 5000}", "cannot be read as TOML"),
        ("story.json", "[" * 100_000, "cannot be read as JSON"),
        ("story.json", '{"title": "\\ud83d"}', "no Unicode"),
        ("story.toml", "#" * 1_100_000, "more than 1 MB"),
    ],
)
def test_unreadable_files_are_refused(tmp_path, name, content, words):
    (tmp_path / name).write_text(content, encoding="latin-1")
    with pytest.raises(ConfigError, match=words):
        read_story(tmp_path / name)
    with pytest.raises(ConfigError, match="does not exist"):
        read_story(tmp_path / "absent.toml")


def test_a_byte_order_mark_is_no_part_of_a_story(tmp_path):
    toml, values = '[[shots]]\nprompt = "a man img nods"\n', {"shots": [{"prompt": "a man img nods"}]}
    for name, text in (("story.toml", toml), ("story.json", json.dumps(values))):
        (tmp_path / name).write_text(text, encoding="utf-8-sig")
        assert read_story(tmp_path / name).shots[0].prompt == "a man img nods"


def test_a_story_beyond_what_can_be_joined_is_refused():
    shots = [{"prompt": "a man img nods"}] * 20
    with pytest.raises(ConfigError, match="5140 frames together; at most 5000"):
        resolve_shots(build_story({"frames": 257, "shots": shots}), find_preset("tiny"))


def test_two_processes_make_no_story_in_one_folder(likeness, face, folder):
    with lock(folder / LOCK_FILE), pytest.raises(LockedError, match="makes a story in"):
        likeness.story(story_of(*SHOTS), folder, face)
    assert rendered_again(likeness, folder, face, story_of(*SHOTS)) == []


def test_files_of_others_are_left_where_a_story_is_rendered(likeness, face, tmp_path):
    (tmp_path / "report.html").write_text("mine")
    with pytest.raises(ConfigError, match="is there already"):
        likeness.story(story_of(*SHOTS), tmp_path, face, overwrite=False)
    (tmp_path / "story.json").write_text(json.dumps({"shots": SHOTS}))
    with pytest.raises(ConfigError, match="holds something else"):
        likeness.story(story_of(*SHOTS), tmp_path, face)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["report.html", "story.json"]
