import pytest

from likeness.errors import ConfigError, PromptError
from likeness.generation.inputs.settings import parse_blocks, resolve_settings
from likeness.generation.loading.presets import find_preset


def resolve(**chosen):
    return resolve_settings(find_preset("tiny"), chosen)


@pytest.mark.parametrize(
    ("given", "text", "numbers"),
    [
        ("0-20", "0-20", range(21)),
        (range(4), "0-3", range(4)),
        ([0, 2, 4], "0,2,4", (0, 2, 4)),
        (range(0, 6, 2), "0,2,4", (0, 2, 4)),
        (" 0, 2 ", "0,2", (0, 2)),
        (None, None, None),
    ],
)
def test_blocks_may_be_given_as_text_range_or_list(given, text, numbers):
    settings = resolve(identity_blocks=given)
    assert settings.identity_blocks == text
    assert parse_blocks(text) == numbers
    assert settings.identity_controls()["blocks"] == numbers


@pytest.mark.parametrize(
    ("chosen", "words"),
    [
        ({"identity_start": 0.8, "identity_end": 0.2}, "the end has to be larger"),
        ({"identity_start": 0.5, "identity_end": 0.5}, "the end has to be larger"),
        ({"identity_start": -0.1}, "`identity_start` is -0.1"),
        ({"identity_end": 1.5}, "`identity_end` is 1.5"),
        ({"identity_scale": float("nan")}, "`identity_scale` is nan"),
        ({"identity_branch": "none"}, "`identity_branch` is none"),
        ({"identity_blocks": "all"}, "Write a range such as 0-20"),
        ({"identity_blocks": "-1"}, "Write a range such as 0-20"),
        ({"identity_blocks": []}, "Write a range such as 0-20"),
        ({"identity_blocks": "9-3"}, "Write 3-9"),
        ({"identity_blocks": "0-99999999999"}, "more than 1000 blocks"),
        ({"identity_blocks": "7" * 5000}, "more than 1000 blocks"),
        ({"identity_blocks": ",".join("0" * 2000)}, "more than 1000 blocks"),
        ({"identity_blocks": range(10**12)}, "more than 1000 blocks"),
        ({"identity_blocks": range(0, 10**12, 2)}, "more than 1000 blocks"),
        ({"frames": -7}, "`frames` is -7"),
        ({"frames": 1001}, "less than or equal to 257"),
        ({"step": 3}, "Did you mean `steps`"),
    ],
)
def test_settings_out_of_range_are_refused(chosen, words):
    with pytest.raises(ConfigError, match=words):
        resolve(**chosen)


def test_a_style_with_the_trigger_word_is_refused():
    with pytest.raises(PromptError, match="Say only how it looks"):
        resolve(style="an img painting")
