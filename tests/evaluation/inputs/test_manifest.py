import json

import pytest
from made_videos import frames_of

from likeness.errors import ConfigError
from likeness.evaluation.inputs.manifest import read_prompts, read_request, read_rows
from likeness.evaluation.inputs.reference_matching import (
    find_references,
    match_identity,
    read_cases,
    remove_trigger_words,
)
from likeness.evaluation.inputs.video_items import VideoItem, resolve_items
from likeness.media import write_video


@pytest.fixture
def tree(tmp_path):
    """Pictures of anna, anna_lee (a folder) and bob, and videos of two systems."""
    for name in ("people/anna.jpg", "people/anna_lee/1.png", "people/anna_lee/2.png", "people/bob.png"):
        path = tmp_path / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(b"picture")
    for system in ("ours", "theirs"):
        for name in ("anna_park", "anna_lee_park", "bob"):
            path = tmp_path / system / f"{name}.mp4"
            path.parent.mkdir(exist_ok=True)
            path.write_bytes(b"video")
    (tmp_path / "ours" / "notes.txt").write_text("Not a video.")
    return tmp_path


def by_name(request):
    return {(item.system, item.resolved_name): item for item in request.items}


def test_systems_and_people_are_read_from_names(tree):
    request = read_request([str(tree / "ours"), f"other={tree / 'theirs'}"], tree / "people")
    items = by_name(request)
    assert {system for system, _ in items} == {"ours", "other"}
    assert len(items) == 6
    # The longest name that fits is meant, not the first.
    assert items["ours", "anna_lee_park"].identity == "anna_lee"
    assert items["other", "anna_park"].identity == "anna"
    assert len(request.references["anna_lee"]) == 2


def test_a_name_ends_at_a_boundary():
    assert match_identity("anna2", ["anna"]) is None
    assert match_identity("anna_2", ["anna"]) == match_identity("anna", ["anna"]) == "anna"
    assert match_identity("annabel.park", ["anna", "annabel"]) == "annabel"
    assert match_identity("Аннабель_1", ["Анна"]) is None
    assert match_identity("Анна_1", ["Анна"]) == "Анна"
    assert match_identity("zoë_1", ["zo"]) is None
    composed, decomposed = "zo\u00eb", "zoe\u0308"  # As Linux and as macOS write it.
    assert match_identity(f"{decomposed}_1", [composed]) == composed
    assert match_identity(f"{composed}_1", [decomposed]) == decomposed
    for other, name in (("अनिल_1", "अन"), ("น้ำ_1", "น"), ("محمّد_1", "محم")):
        assert match_identity(other, [name]) is None  # A sign on the letter makes another one of it.
        assert match_identity(f"{name}_1", [name]) == name


def test_trigger_words_mean_nothing_to_others():
    assert remove_trigger_words("a man img1 nods and a woman img2 smiles") == "a man nods and a woman smiles"
    assert remove_trigger_words("an image of a woman img") == "an image of a woman"


def test_two_folders_of_one_name_are_two_systems_or_an_error(tree):
    for name in ("a", "b"):
        (tree / name / "videos").mkdir(parents=True)
        (tree / name / "videos" / f"bob_{name}.mp4").write_bytes(b"video")
    words = [str(tree / name / "videos") for name in ("a", "b")]
    with pytest.raises(ConfigError, match="would both be the system `videos`"):
        read_request(words, tree / "people")
    assert len(read_request([words[0], f"b={words[1]}"], tree / "people").items) == 2
    assert len(read_request([f"c={word}" for word in words], tree / "people").items) == 2
    for more in (f"videos={words[1]}", str(tree / "ours" / "anna_park.mp4")):
        with pytest.raises(ConfigError, match="would both be the system `videos`"):
            read_request([words[0], more], tree / "people")


def test_sentences_find_their_videos_or_are_reported(tree):
    (tree / "ours" / "bob_1.5.mp4").write_bytes(b"video")
    prompts = {
        "anna_park.mp4": "a woman img nods",
        "anna_lee_park": "a woman smiles",
        "bob": "b",
        "bob_1.5": "c",
    }
    (tree / "p.json").write_text(json.dumps(prompts | {"carl": "of nobody here"}), encoding="utf-8-sig")
    rows = [f"{name},{text}" for name, text in prompts.items()]
    (tree / "p.csv").write_text("\n".join(["name,prompt", *rows]))
    for name in ("p.json", "p.csv"):
        items = by_name(read_request([str(tree / "ours")], tree / "people", tree / name))
        assert {title: item.prompt for (_, title), item in items.items()} == {
            "anna_park": "a woman nods", "anna_lee_park": "a woman smiles", "bob": "b", "bob_1.5": "c"
        }  # fmt: skip
    del prompts["bob"]
    (tree / "p.json").write_text(json.dumps(prompts | {"carl": "of nobody here"}))
    items = by_name(read_request([str(tree / "ours")], tree / "people", tree / "p.json"))
    assert items["ours", "bob"].prompt is None
    (tree / "p.json").write_text(json.dumps(prompts | {"bop": "b"}))
    with pytest.raises(ConfigError, match=r"no prompt for `bob`, but one for `bop`"):
        read_request([str(tree / "ours")], tree / "people", tree / "p.json")


@pytest.mark.parametrize(
    ("name", "text", "message"),
    [
        ("p.csv", "name,prompt\nbob\n", "`bob` has no prompt: None"),
        ("p.json", '{"bob": " "}', "`bob` has no prompt"),
        ("p.json", '{"bob": "a", "bob.mp4": "b"}', "`bob` has two prompts"),
    ],
)
def test_sentences_that_are_none_or_two_are_refused(tmp_path, name, text, message):
    (tmp_path / name).write_text(text)
    with pytest.raises(ConfigError, match=message):
        read_prompts(tmp_path / name)


def test_a_name_with_a_folder_is_a_name(tmp_path):
    (tmp_path / "p.json").write_text('{"scene/1": "a woman nods", "zoe\\u0308.mp4": "b"}')
    assert read_prompts(tmp_path / "p.json") == {"scene/1": "a woman nods", "zo\u00eb": "b"}


def test_a_name_that_is_no_text_is_reported(tree):
    (tree / "ours" / "bob_\udcff.mp4").write_bytes(b"video")
    skipped = read_request([str(tree / "ours")], tree / "people").skipped
    assert ["not UTF-8" in file.reason for file in skipped if file.is_video] == [True]
    with pytest.raises(ConfigError, match="not UTF-8"):
        read_request([str(tree / "ours" / "bob_\udcff.mp4")], tree / "people")


def test_only_people_who_are_shown_are_in_the_gallery(tree):
    (tree / "people" / "carl.png").write_bytes(b"picture")
    assert set(read_request([str(tree / "ours")], tree / "people").references) == {"anna", "anna_lee", "bob"}


def test_all_that_cannot_be_paired_is_reported_at_once(tree):
    (tree / "ours" / "zoe.mp4").write_bytes(b"video")
    (tree / "ours" / "max_2.mp4").write_bytes(b"video")
    (tree / "ours" / "bob.webm").write_bytes(b"video")
    with pytest.raises(ConfigError) as caught:
        read_request([str(tree / "ours"), str(tree / "absent")], tree / "people")
    message = str(caught.value)
    assert "4 things" in message
    assert "zoe.mp4 matches no reference" in message
    assert "max_2.mp4 matches no reference" in message
    assert "bob.webm and" in message
    assert "both `bob`" in message
    assert "absent does not exist" in message


def test_pictures_under_one_name_twice_are_refused(tree):
    (tree / "people" / "anna").mkdir()
    (tree / "people" / "anna" / "1.png").write_bytes(b"picture")
    (tree / "people" / "bob.jpg").write_bytes(b"picture")
    with pytest.raises(ConfigError, match=r"(?s)anna: anna.jpg, anna/.*bob: bob.jpg, bob.png"):
        find_references(tree / "people")


def test_a_folder_of_folders_names_them(tree):
    with pytest.raises(ConfigError, match="name its folders one by one: ours, people, theirs"):
        read_request([str(tree)], tree / "people")


CSV = (
    "video,system,name,identity,references,prompt\n"
    "ours/bob.mp4,a,1,bob,,A man waves.\n"
    "theirs/bob.mp4,b,1,,people/bob.png,\n"
)
ROWS = [
    {"video": "ours/bob.mp4", "system": "a", "name": "1", "identity": "bob", "prompt": "A man waves."},
    {"video": "theirs/bob.mp4", "system": "b", "name": "1", "references": ["people/bob.png"]},
]
TOML = """
[[videos]]
video = "ours/bob.mp4"
system = "a"
name = "1"
identity = "bob"
prompt = "A man waves."
[[videos]]
video = "theirs/bob.mp4"
system = "b"
name = "1"
references = ["people/bob.png"]
"""


@pytest.mark.parametrize(
    ("suffix", "text"),
    [("csv", CSV), ("json", json.dumps(ROWS)), ("json", json.dumps({"videos": ROWS})), ("toml", TOML)],
)
def test_manifests_say_all_in_three_formats(tree, suffix, text):
    path = tree / f"all.{suffix}"
    path.write_text(text)
    request = read_request([str(path)], tree / "people")
    items = by_name(request)
    assert items["a", "1"].identity == items["b", "1"].identity == "bob"
    assert items["a", "1"].prompt == "A man waves."
    assert items["b", "1"].prompt is None
    assert request.references == {"bob": (tree / "people" / "bob.png",)}


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ('[{"vidoe": "a.mp4"}]', "row 1: unknown column `vidoe`. Did you mean `video`"),
        ('[{"name": "a"}]', "has no `video`"),
        ('[{"video": 3}]', "`video` is 3"),
        ('[{"video": "a.mp4", "name": "a\\nb"}]', "row 1: `name` is .* without control characters"),
        ('[{"video": "a.mp4", "system": "\\ud800"}]', "row 1: `system` is .* without control characters"),
        ('[{"video": "a.mp4", "identity": " "}]', "row 1: `identity` is ' '"),
        ("[]", "no rows"),
        ("{", "cannot be read as a manifest"),
        ('{"a": 1}', "cannot be read as a manifest"),
    ],
)
def test_a_manifest_that_is_none_is_refused(tmp_path, text, message):
    path = tmp_path / "m.json"
    path.write_text(text)
    with pytest.raises(ConfigError, match=message):
        read_rows(path)


def test_a_name_that_results_cannot_hold_is_refused_before_videos_are_read(tmp_path):
    (tmp_path / "a.mp4").write_bytes(b"")
    with pytest.raises(ConfigError, match="not UTF-8; name it"):
        read_request([f"\udcff={tmp_path / 'a.mp4'}"], None, against_first_face=True)
    with pytest.raises(ConfigError, match="not UTF-8 text"):
        resolve_items([VideoItem(path="a.mp4", name="\ud800")], None, None)


def test_a_manifest_of_absent_files_and_unknown_people_is_reported_at_once(tree):
    rows = [{"video": "gone.mp4", "identity": "bob"}, {"video": "ours/bob.mp4", "identity": "carl"}]
    rows.append({"video": "theirs/bob.mp4", "name": "x", "references": ["people/none.png"], "identity": "bob"})
    (tree / "m.json").write_text(json.dumps(rows))
    with pytest.raises(ConfigError) as caught:
        read_request([str(tree / "m.json")], tree / "people")
    for part in (
        "gone.mp4 does not exist",
        "`carl`, who has no reference",
        "none.png does not exist",
        "other pictures",
    ):
        assert part in str(caught.value)


def test_cases_in_the_layout_of_opens2v_bring_pictures_and_prompts(tree):
    cases = {
        "anna_park": {"img_paths": ["people/anna.jpg"], "prompt": "a woman img waves"},
        "anna_lee_park": {
            "img_paths": ["people/anna_lee/1.png", "people/anna_lee/2.png"],
            "prompt": "she nods",
        },
        "bob": {"img_paths": ["people/bob.png"], "prompt": "he nods"},
    }
    (tree / "cases.json").write_text(json.dumps(cases))
    request = read_request([str(tree / "ours")], tree / "cases.json")
    items = by_name(request)
    assert items["ours", "anna_park"].prompt == "a woman waves"
    assert request.references[items["ours", "anna_lee_park"].identity] == (
        tree / "people/anna_lee/1.png",
        tree / "people/anna_lee/2.png",
    )
    pictures = {request.references[item.identity] for item in request.items}
    assert len(pictures) == 3


@pytest.mark.parametrize(
    "entry", ['{"img_paths": "a.png"}', '{"img_paths": [3]}', '{"img_paths": [], "prompt": 3}', '{"prompt": "x"}', "3"]
)
def test_cases_that_are_none_are_refused(tmp_path, entry):
    (tmp_path / "cases.json").write_text(f'{{"v": {entry}}}')
    with pytest.raises(ConfigError, match="not a list of cases"):
        read_cases(tmp_path / "cases.json", tmp_path)


def test_a_file_as_opens2v_publishes_it_is_read(tmp_path):
    """Human-Domain_Eval.json: pictures of many people in one folder, more keys, line breaks in prompts."""
    names = [f"singleface_{number}" for number in (1, 2, 10)]
    for number, name in enumerate(names):
        for path in (tmp_path / "Images" / "face" / f"{number}.jpg", tmp_path / "ours" / f"{name}.mp4"):
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(b"x")
    cases = {
        name: {
            "img_paths": [f"Images/face/{number}.jpg"],
            "prompt": "The video begins with a woman\u2019s face.\n\nbackground",
            "synthesis_flag": "False",
            "class_label": ["Woman"],
        }
        for number, name in enumerate(names)
    }
    (tmp_path / "Human-Domain_Eval.json").write_text(json.dumps(cases, indent=4))
    request = read_request([str(tmp_path / "ours")], tmp_path / "Human-Domain_Eval.json")
    for item in request.items:
        assert request.references[item.identity] == (tmp_path / cases[item.resolved_name]["img_paths"][0],)
        assert item.prompt == "The video begins with a woman\u2019s face. background"
    assert len({item.identity for item in request.items}) == 3


@pytest.mark.parametrize(
    ("suffix", "text"),
    [
        ("json", '{"bob": "a man waves"}'),
        ("json", '{"bob": {"prompt": "a man waves", "img_paths": []}}'),
        ("toml", 'bob = "a man waves"'),
        ("csv", "name,prompt\nbob.mp4,a man waves\n"),
    ],
)
def test_prompts_are_read_in_three_formats(tree, suffix, text):
    (tree / f"p.{suffix}").write_text(text)
    assert read_prompts(tree / f"p.{suffix}") == {"bob": "a man waves"}
    items = by_name(read_request([str(tree / "ours")], tree / "people", tree / f"p.{suffix}"))
    assert items["ours", "bob"].prompt == "a man waves"
    assert items["ours", "anna_park"].prompt is None


@pytest.mark.parametrize("text", ["{", "[1]", '{"bob": 3}'])
def test_prompts_that_are_none_are_refused(tmp_path, text):
    (tmp_path / "p.json").write_text(text)
    with pytest.raises(ConfigError, match="cannot be read as prompts"):
        read_prompts(tmp_path / "p.json")


@pytest.mark.parametrize("read", [read_prompts, read_rows])
def test_a_table_with_a_field_beyond_all_limits_is_refused(tmp_path, read):
    (tmp_path / "p.csv").write_text(f"video,name,prompt\na.mp4,a,{'x' * 200_000}\n")
    with pytest.raises(ConfigError, match="cannot be read as"):
        read(tmp_path / "p.csv")


def test_a_video_brings_its_own_prompt_without_the_trigger_word(tmp_path):
    write_video(tmp_path / "a.mp4", frames_of(1), 8, {"prompt": "a woman img nods"})
    request = read_request([str(tmp_path / "a.mp4")], None, against_first_face=True)
    assert request.items[0].prompt == "a woman nods"
    assert request.references is None
    assert request.items[0].identity is None
