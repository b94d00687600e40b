import json
from pathlib import Path

import pytest

from likeness.errors import PromptError
from likeness.identity.prompt import split_prompt
from likeness.training.files.class_word import (
    Undecided,
    add_trigger,
    add_triggers,
    describe_undecided,
    find_class_word,
    locate_class_word,
)
from likeness.training.files.sample import Sample

CAPTIONS = [json.loads(line) for line in Path(__file__).with_name("captions.jsonl").read_text().splitlines()]


def prompt_of(caption, class_word=None):
    prompt = add_trigger(caption, class_word)
    return None if isinstance(prompt, Undecided) else prompt


def test_captions_are_two_hundred_of_which_forty_or_more_are_hard():
    assert len({row["caption"] for row in CAPTIONS}) == 200
    assert sum(row["hard"] for row in CAPTIONS) >= 40
    assert all(row["expected"] is None or row["expected"].replace(" img", "") == row["caption"] for row in CAPTIONS)


@pytest.mark.parametrize("split", ["development", "held_out"])
def test_at_least_95_percent_of_captions_get_the_right_prompt(split):
    rows = [row for row in CAPTIONS if row["split"] == split]
    right = [prompt_of(row["caption"]) == row["expected"] for row in rows]
    assert len(rows) == 100
    assert sum(right) >= 95, [row["caption"] for row, ok in zip(rows, right, strict=True) if not ok]


def test_no_caption_without_one_person_gets_a_trigger():
    assert [row["caption"] for row in CAPTIONS if row["expected"] is None and prompt_of(row["caption"])] == []


def test_every_prompt_is_its_caption_with_one_valid_trigger():
    prompts = {row["caption"]: prompt for row in CAPTIONS if (prompt := prompt_of(row["caption"]))}
    assert len(prompts) >= 0.95 * sum(row["expected"] is not None for row in CAPTIONS)
    for caption, prompt in prompts.items():
        before, word, after = split_prompt(prompt)
        assert f"{before} {word}{after}".strip() == caption


@pytest.mark.parametrize(
    ("caption", "reason"),
    [
        ("A man and a woman dance.", "two people"),
        ("A man nods. The other man waves.", "two people"),
        ("Two women laugh.", "several people"),
        ("A lake at dawn.", "no word for a person"),
        ("A woman's hand reaches for a cup.", "possessive"),
        ("The subject looks left.", "may be no person"),
    ],
)
def test_undecided_captions_say_why(caption, reason):
    found = find_class_word(caption)
    assert isinstance(found, Undecided)
    assert reason in found.reason


def test_typographic_quotes_are_read_as_straight_ones_and_kept():
    assert prompt_of("A woman\u2019s face. The woman smiles.") == "A woman\u2019s face. The woman img smiles."
    assert prompt_of("A mug with \u201cbest man ever\u201d stands on a table.") is None


def test_a_given_class_word_decides_between_people():
    caption = "A man and a woman dance with another woman."
    assert prompt_of(caption) is None
    assert prompt_of(caption, "man") == "A man img and a woman dance with another woman."
    assert prompt_of(caption, "woman:2") == "A man and a woman dance with another woman img."


def test_a_given_class_word_may_be_one_that_the_rule_does_not_know():
    assert prompt_of("A beekeeper opens a hive.", "beekeeper") == "A beekeeper img opens a hive."


def test_a_given_class_word_is_a_whole_word_and_no_possessive():
    assert locate_class_word("The woman's man-made woman waves.", "woman").start == 21
    assert locate_class_word("A human and a man.", "man").start == 14


@pytest.mark.parametrize("word", ["woman:3", "girl", "the", "woman:0", "woman:x", "", "!"])
def test_a_class_word_that_is_not_there_is_refused(word):
    with pytest.raises(PromptError, match=r"class word|class_word"):
        locate_class_word("A woman sees the woman.", word)


def test_all_samples_are_placed_and_the_undecided_ones_are_listed():
    captions = [("A man nods.", None), ("A boy and a girl sit.", None), ("A boy and a girl sit.", "girl")]
    samples = [Sample(media=Path("a"), caption=text, person="a", class_word=word) for text, word in captions]
    prompts, undecided = add_triggers(samples)
    assert prompts == ["A man img nods.", None, "A boy and a girl img sit."]
    assert [one.row for one in undecided] == [1]
    assert undecided[0].reason == 'it may name two people ("boy" and "girl")'
    message = describe_undecided([undecided[0].reason, "another"], len(samples), num_listed=1)
    assert "2 of 3 captions" in message
    assert undecided[0].reason in message
    assert "and 1 more" in message


def test_every_wrong_class_word_is_in_one_error():
    samples = [
        Sample(media=Path(f"{name}.mp4"), caption="A man nods.", person="a", class_word="woman") for name in "abc"
    ]
    with pytest.raises(PromptError, match=r"3 captions(.|\n)*a\.mp4(.|\n)*c\.mp4"):
        add_triggers(samples)
