import pytest
import torch
from torch.testing import assert_close

from likeness.adapters.conditioning.regions import Regions, build_region_masks
from likeness.errors import ConfigError

GRID = (1, 1, 4)
PERSON_INDEX = torch.tensor([[0, 1, 0, 2]])


def masks(regions=None, person_index=PERSON_INDEX, num_identities=1):
    regions = regions or Regions()
    return build_region_masks(
        regions, person_index, GRID,
        num_identities=num_identities, text_tokens=4, num_people=2, device=torch.device("cpu"),
    )  # fmt: skip


def test_strips_go_to_people_in_order_of_mention():
    assert masks().video_mask[0].tolist() == [[1, 1, 0, 0], [0, 0, 1, 1]]
    assert masks(person_index=torch.tensor([[0, 2, 1, 0]])).video_mask[0].tolist() == [[0, 0, 1, 1], [1, 1, 0, 0]]
    assert masks(person_index=None).video_mask[0].tolist() == [[1, 1, 0, 0], [0, 0, 1, 1]]


def test_overlapping_areas_share_and_the_background_is_nobodys():
    mixed = masks(Regions(areas=((0, 0, 0.5, 1), (0.25, 0, 0.625, 1)))).video_mask[0]
    assert_close(mixed, torch.tensor([[1, 0.5, 0, 0], [0, 0.5, 0.5, 0]]))


def test_faces_meet_their_own_region_and_word_and_nothing_else_of_their_kind():
    bias = masks().attention_bias(2, 1.0, torch.zeros(1), order="tfv")[0, 0].exp()
    text, face, video = range(4), (4, 5), range(6, 10)
    assert bias[face[0]].tolist() == [1, 1, 1, 0, 1, 0, 1, 1, 0, 0]
    assert bias[face[1]].tolist() == [1, 0, 1, 1, 0, 1, 0, 0, 1, 1]
    assert bias[video[0]].tolist() == [1, 1, 1, 0, 1, 0, 1, 1, 1, 1]
    assert bias[text[0]].tolist() == [1] * 10
    assert bias[text[3]].tolist() == [1, 1, 1, 1, 0, 1, 0, 0, 1, 1]


def test_across_weighs_video_between_regions_and_a_scale_the_faces():
    bias = masks(Regions(cross_region_weight=0.25)).attention_bias(2, 0.5, torch.zeros(1), order="tvf")[0, 0].exp()
    assert_close(bias[4], torch.tensor([1, 1, 1, 0, 1, 1, 0.25, 0.25, 0.5, 0]))
    assert masks().stock_attention_bias([0], torch.zeros(1)) is None


def test_factors_go_to_whom_they_belong_and_shared_words_get_the_mean():
    factors = torch.stack([torch.zeros(6), torch.ones(6)])[None]
    shift, *_, text_gate = masks().modulation_per_token(factors)
    assert shift[0, :, 0].tolist() == [0, 0, 1, 1]
    assert text_gate[0, :, 0].tolist() == [0.5, 0, 0.5, 1]


def test_impossible_regions_are_refused():
    with pytest.raises(ConfigError, match="left half"):
        Regions(areas=((0.5, 0, 0.5, 1),))
    with pytest.raises(ConfigError, match="`cross_region_weight` is 2"):
        Regions(cross_region_weight=2)
    with pytest.raises(ConfigError, match="needs strips"):
        Regions(areas=((0, 0, 1, 1),), own_positions=True)
