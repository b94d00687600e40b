"""Files in the layout of VBench's prompts/augmented_prompts/gpt_enhanced_prompts, with sentences of our own."""

import re

import pytest

from likeness.app.bench.long_prompts import make_template, read_long_prompts
from likeness.app.bench.protocols import build_cases, fill_template, read_prompts, read_protocol, replace_prompts
from likeness.errors import ConfigError
from likeness.identity.prompt import split_prompt

LINES = [
    "A calm individual, dressed in linen, walks on a beach. Their face is lit by the low sun.",
    "A person in a green scarf stands in a market. They smile.",
    "A young person on a scooter rides through a town.",
    "A bearded man in his fifties, wearing a wool coat, reads a map.",
    "An elderly woman with silver hair knits by a fire.",
    "A focused potter, hands in clay, sits at a wheel. She looks up.",
    "A joyful child, in yellow boots, jumps into puddles.",
    "In a bright kitchen, a woman with curly hair bakes bread {slowly}.",
    "A lively group of friends sits around a table.",
    "A mountain lake lies under a clear sky.",
    "A mother lifts her son into the air.",
    "A man img waves.",
]


@pytest.fixture
def folder(tmp_path):
    place = tmp_path / "prompts_per_dimension_longer"
    place.mkdir()
    # all_dimension_longer.txt has Windows line ends, human_action_longer.txt ends without one.
    (tmp_path / "all_dimension_longer.txt").write_bytes("\r\n".join([*LINES, ""]).encode())
    (place / "human_action_longer.txt").write_text("\n".join(LINES), encoding="utf-8")
    return tmp_path


def test_prompts_of_one_person_are_kept_in_their_order(folder):
    found = read_long_prompts(folder / "prompts_per_dimension_longer" / "human_action_longer.txt")
    assert found == read_long_prompts(folder / "all_dimension_longer.txt")
    assert len(found.templates) == 8
    assert [line for line, _ in found.left_out] == [9, 10, 11, 12]
    filled = [fill_template(text, group) for text, groups in found.templates for group in sorted(groups)]
    assert "A calm elderly man img, dressed in linen, walks on a beach. Their face is lit by the low sun." in filled
    assert "An elderly woman img in a green scarf stands in a market. They smile." in filled
    assert "A man img on a scooter rides through a town." in filled
    assert "A bearded man img in his fifties, wearing a wool coat, reads a map." in filled
    assert "A joyful girl img, in yellow boots, jumps into puddles." in filled
    assert "In a bright kitchen, a woman img with curly hair bakes bread {slowly}." in filled
    assert not any(re.search(r"\b[Aa] [aeiou]\w+ (wo)?man img", text) for text in filled)
    for text in filled:
        assert split_prompt(text)


def test_words_and_pronouns_say_whom_a_prompt_fits(folder):
    fits = [groups for _, groups in read_prompts(str(folder / "all_dimension_longer.txt"))]
    assert fits[0] == {"man", "woman", "elderly man", "elderly woman", "person"}
    assert fits[2] == {"man", "woman", "person"}
    assert fits[3:6] == [{"man"}, {"elderly woman"}, {"woman", "elderly woman"}]
    assert fits[6] == {"boy", "girl"}


@pytest.mark.parametrize(
    ("line", "why"),
    [
        ("A man \x1b[2J waves", "control characters"),
        ("A man " + "walks " * 200, "more than 200 words"),
        ("Two women stand in a park", "several people"),
        ("A man wrestles an opponent", "several people"),
        ("Waves roll onto a beach", "names no person"),
    ],
)
def test_other_lines_are_left_out_with_a_reason(line, why):
    made = make_template(line)
    assert why in made


def test_a_protocol_takes_them(folder):
    path = folder / "all_dimension_longer.txt"
    protocol, notes = replace_prompts(read_protocol("magic_mirror"), [path])
    assert notes == [f"{path}: 8 prompts are used, 4 left out (first: line 9, it may show several people (`group`))"]
    assert protocol.source.endswith("with the prompts of all_dimension_longer.txt")
    cases = build_cases(protocol, {"w": "woman", "e": "elderly woman", "b": "baby"})
    assert len(cases) == 12
    for case in cases:
        split_prompt(case.prompt)
    with pytest.raises(ConfigError, match="such as `magic_mirror`"):
        replace_prompts(read_protocol("prompt_sets"), [path])


def test_files_without_prompts_are_refused(tmp_path):
    (tmp_path / "a.txt").write_text("A mountain lake.\n")
    (tmp_path / "b.txt").write_bytes(b"\xff\xfe\x00")
    for name, words in (
        ("a.txt", r"shows one person \(line 1: its first"),
        ("b.txt", "cannot be read"),
        ("c.txt", "cannot be read"),
    ):
        with pytest.raises(ConfigError, match=words):
            read_long_prompts(tmp_path / name)


def test_face_enhanced_prompts_say_where_the_face_is():
    protocol = read_protocol("magic_mirror_faces")
    texts = read_prompts("face_enhanced")
    assert len(texts) >= 40
    for text, groups in texts:
        for group in groups:
            filled = fill_template(text, group)
            assert re.search(r"\b(his|her|its|their) (whole )?(face|head|chin|forehead|brows|hair)\b", filled.lower())
            assert 25 <= len(filled.split()) <= 80
            assert not re.search(r"[.?!] [a-z]", filled)
    for group in protocol.groups:
        assert len([text for text, groups in texts if group in groups]) >= 8


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("{who} and {who} wave", "not exactly once"),
        ("a woman waves", "not exactly once"),
        ("{who} {hat}", "other fields"),
        ("{who} \\u001b[2J", "control"),
    ],
)
def test_own_lists_are_checked_when_they_are_read(tmp_path, text, words):
    path = tmp_path / "own.toml"
    path.write_text(f'[[prompts]]\ngroups = ["woman"]\ntexts = ["{text}"]\n')
    with pytest.raises(ConfigError, match=words):
        read_prompts(str(path))


@pytest.mark.parametrize(
    "change", ["identities = 99999999999", "max_references = 99999", "prompts_per_identity = 9999999999"]
)
def test_absurd_numbers_are_refused_before_anything_is_made(tmp_path, change):
    base = {
        "title": '"t"',
        "source": '"s"',
        "max_references": "1",
        "identities": "2",
        "prompts_per_identity": "1",
        "lists": '["faces"]',
    }
    name, _, value = change.partition(" = ")
    (tmp_path / "own.toml").write_text("\n".join(f"{key} = {text}" for key, text in (base | {name: value}).items()))
    with pytest.raises(ConfigError, match=f"`{name}` is {value}.*less than or equal"):
        read_protocol(str(tmp_path / "own.toml"))
