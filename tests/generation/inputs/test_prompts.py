import logging

import pytest

from likeness.errors import ConfigError, PromptError
from likeness.generation.inputs.prompts import (
    add_style,
    check_negative_prompt,
    check_prompt,
    check_style,
    place_trigger,
)
from likeness.identity.prompt import split_prompt


@pytest.mark.parametrize(
    ("prompt", "better"),
    [
        ("a woman waves", "a woman img waves"),
        ("an elderly man, smiling", "an elderly man img, smiling"),
        ("A Boy runs to a man", "A Boy img runs to a man"),
        ("waves at the camera", "a person img waves at the camera"),
        ("img woman waves", "woman img waves"),
        ("a woman img and a man img wave", "a woman img and a man wave"),
        ("a photo of img", "a photo of a person img"),
        ("a photo of img smiling at a man", "a photo of a person img smiling at a man"),
        ("a img waves", "a person img waves"),
        ("img waves at a man", "a person img waves at a man"),
        ("a woman img IMG waves", "a woman img waves"),
        ("a woman IMG waves", "a woman img waves"),
        ("a woman <img> waves", "a woman img waves"),
        ("a woman_img waves", "a woman img waves"),
        ("a woman, img, waves", "a woman img, waves"),
        ("a woman doctor waves", "a woman doctor img waves"),
        ("she smiles", "a woman img smiles"),
        ("a woman waving img", "a woman img waving"),
        ("a woman waves img", "a woman img waves"),
        ("a woman in red img smiles", "a woman img in red smiles"),
        ("a woman at the beach img", "a woman img at the beach"),
        ("a smiling img waves", "a smiling person img waves"),
        ("a photo img", "a person img, a photo"),
        ("the sea at night", "a person img, the sea at night"),
    ],
)
def test_proposed_sentence_passes_the_check(prompt, better):
    assert place_trigger(prompt) == better
    check_prompt(better)
    with pytest.raises(PromptError, match=f'Try: "{better}"'):
        check_prompt(prompt)


@pytest.mark.parametrize(
    ("prompt", "parts"),
    [
        ("a violinist img", ("a", "violinist", "")),
        ("a woman violinist img", ("a woman", "violinist", "")),
        ("a king img", ("a", "king", "")),
        ("a brunette img", ("a", "brunette", "")),
        ("her sibling img nods", ("her", "sibling", " nods")),
        ("a man greets his boss img", ("a man greets his", "boss", "")),
        ("a genius img", ("a", "genius", "")),
        ("Thomas img", ("", "Thomas", "")),
        ("the princess img", ("the", "princess", "")),
    ],
)
def test_any_noun_may_name_a_person(prompt, parts):
    check_prompt(prompt)
    assert split_prompt(prompt) == parts


def test_the_second_person_is_named_by_a_noun_too():
    with pytest.raises(PromptError, match=r'"nods", which names no person.*Try: "a man img1 greets a woman img2 nods"'):
        check_prompt("a man img1 greets a woman nods img2", 2)


def test_words_that_contain_a_class_word_do_not_count():
    assert place_trigger("a superhuman waves") == "a person img, a superhuman waves"


@pytest.mark.parametrize(
    ("prompt", "complaint", "proposal"),
    [
        ("a woman img waves \U0001f600", "grinning face", '"a woman img waves"'),
        ("a woman img waves \u2764\ufe0f", "heavy black heart", '"a woman img waves"'),
        ("\u5973\u4eba img \u5fae\u7b11", "Chinese", '"a woman img waves at the camera"'),
        ("\u0436\u0435\u043d\u0449\u0438\u043d\u0430 img", "Cyrillic", '"a woman img waves at the camera"'),
        ("a woman img at a \u6771\u4eac sign", "Chinese", '"a woman img at a sign"'),
        ("a woman\x1b img waves", r"U\+001B", '"a woman img waves"'),
        ("a \u202ewoman img waves", "right-to-left override", '"a woman img waves"'),
    ],
)
def test_what_the_text_encoder_would_drop_is_refused(prompt, complaint, proposal):
    for check in (check_prompt, lambda text: check_prompt(text, method="fantasy_id")):
        with pytest.raises(PromptError, match=complaint) as caught:
            check(prompt)
        assert str(caught.value).endswith(proposal)
    assert "\x1b" not in str(caught.value)


@pytest.mark.parametrize("prompt", ["une femme img sourit dans le parc", "eine Frau img winkt im Garten"])
def test_other_languages_give_a_warning_once(prompt, caplog):
    with caplog.at_level(logging.WARNING, logger="likeness"):
        check_prompt(prompt)
        check_prompt(prompt)
    assert [prompt in record.message for record in caplog.records] == [True]


@pytest.mark.parametrize(
    "prompt",
    ["a woman img in a caf\u00e9 at 20\u00b0, \u201chello\u201d", "woman img", "a man img at the la mer bar"],
)
def test_english_with_accents_signs_and_names_passes_in_silence(prompt, caplog):
    with caplog.at_level(logging.WARNING, logger="likeness"):
        check_prompt(prompt)
    assert not caplog.records


def test_fantasy_id_needs_no_trigger_and_speaks_of_itself():
    check_prompt("a woman waves", method="fantasy_id")
    check_prompt("a woman img waves", method="fantasy_id")
    with pytest.raises(PromptError, match=r'FantasyID needs none.*Try: "a person img waves"'):
        check_prompt("img waves", method="fantasy_id")
    with pytest.raises(PromptError, match="The prompt is empty"):
        check_prompt(" ", method="fantasy_id")
    with pytest.raises(ConfigError, match="FantasyID shows one person"):
        check_prompt("a man img1 and a woman img2", 2, method="fantasy_id")


def test_style_and_negative_prompt_are_read_as_prompts_are():
    check_style("watercolor")
    check_negative_prompt("blurry, distorted")
    with pytest.raises(PromptError, match="The style holds"):
        check_style("\u6c34\u5f69")
    with pytest.raises(PromptError, match="negative prompt holds"):
        check_negative_prompt("blurry \U0001f600")
    with pytest.raises(PromptError, match=r"negative prompt \"an ugly img\" holds the trigger word"):
        check_negative_prompt("an ugly img")


@pytest.mark.parametrize(
    ("prompt", "style", "styled"),
    [
        ("a woman img waves.", "watercolor", "a woman img waves, in the style of watercolor"),
        ("a woman img waves", " film noir ", "a woman img waves, in the style of film noir"),
        ("a woman img waves.", "", "a woman img waves."),
        ("a woman img waves", "  ", "a woman img waves"),
    ],
)
def test_a_style_stands_behind_the_prompt_in_fixed_words(prompt, style, styled):
    assert add_style(prompt, style) == styled
