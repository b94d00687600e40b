import math
import sys
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).parents[2] / "benchmarks"))

from two_people import Found, summarize, write_prompt

OWN, OTHER = (0.3, 0.5), (0.5, 0.3)
"""Distances to the left and the right person."""


def test_a_frame_counts_when_both_are_found_and_both_are_nearest_their_own():
    right = Found((OWN, OTHER))
    swapped = Found((OTHER, OWN))
    twins = Found((OWN, OWN))
    alone = Found((OWN, None))
    result = summarize([right, swapped, twins, alone])
    assert result["two_found"] == 0.75
    assert result["both_own"] == pytest.approx(1 / 3)
    assert result["found_own"] == pytest.approx(4 / 7)
    assert result["faces_found"] == pytest.approx(7 / 8)


def test_nothing_found_is_no_success():
    result = summarize([Found((None, None))])
    assert math.isnan(result["both_own"])
    assert result["two_found"] == 0


def test_prompts_name_both_and_every_other_one_begins_with_the_second():
    assert write_prompt(("man", "elderly woman"), 0).startswith("a man img1")
    assert write_prompt(("man", "elderly woman"), 1).startswith("an elderly woman img2")
