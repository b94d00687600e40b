import pytest

from likeness.errors import PromptError
from likeness.generation.prompts import add_style, check_prompt, place_trigger


@pytest.mark.parametrize(
    ("prompt", "better"),
    [
        ("a woman waves", "a woman img waves"),
        ("an elderly man, smiling", "an elderly man img, smiling"),
        ("A Boy runs to a man", "A Boy img runs to a man"),
        ("waves at the camera", "a person img waves at the camera"),
        ("img woman waves", "woman img waves"),
        ("a woman img and a man img wave", "a woman img and a man wave"),
    ],
)
def test_proposed_sentence_passes_the_check(prompt, better):
    assert place_trigger(prompt) == better
    check_prompt(better)
    with pytest.raises(PromptError, match=f'Try: "{better}"'):
        check_prompt(prompt)


def test_words_that_contain_a_class_word_do_not_count():
    assert place_trigger("a superhuman waves") == "a person img a superhuman waves"


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
