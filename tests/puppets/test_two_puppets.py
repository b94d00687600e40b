import numpy as np
import pytest

from likeness.errors import ConfigError
from likeness.puppets import sample_clip, sample_person, sample_two_person_clip
from likeness.puppets.scenes.captions import MAX_PAIR_WORDS


@pytest.fixture(scope="module")
def clip():
    return sample_two_person_clip(5, num_frames=3)


def test_a_seed_is_a_clip_bit_for_bit(clip):
    again = sample_two_person_clip(5, num_frames=3)
    assert np.array_equal(clip.frames, again.frames)
    assert clip.prompt == again.prompt


def test_truth_has_the_shapes_promised(clip):
    assert clip.frames.shape == (3, 64, 128, 3)
    assert clip.landmarks.shape == (3, 2, 5, 2)
    assert clip.pose_deg.shape == (3, 2, 3)
    assert clip.face_masks.shape == (3, 2, 64, 128)


def test_each_head_is_in_its_half_and_no_pixel_is_of_both(clip):
    columns = clip.face_masks.nonzero()[3], clip.face_masks.nonzero()[1]
    assert columns[0][columns[1] == 0].mean() < 64 < columns[0][columns[1] == 1].mean()
    assert not clip.face_masks.all(axis=1).any()
    assert (clip.landmarks[:, 0, :, 0] < 64).all()
    assert (clip.landmarks[:, 1, :, 0] > 64).all()


def test_heads_are_as_large_as_in_clips_of_one():
    people = (sample_person(1), sample_person(2))
    clip = sample_two_person_clip(3, people=people, actions=("look", "look"), num_frames=1)
    for who, person in enumerate(people):
        alone = sample_clip(3, person=person, action="look", num_frames=1).face_mask.sum()
        assert 0.7 < clip.face_masks[0, who].sum() / alone < 1.4


def test_sentences_name_both_from_left_to_right_and_stay_short():
    for seed in range(15):
        clip = sample_two_person_clip(seed, num_frames=1, size_px=16)
        first, second = (clip.prompt.index(f"{clip.people[n].group} img{n + 1}") for n in (0, 1))
        assert first < second
        assert "img" not in clip.caption
        assert len(clip.caption.split()) <= MAX_PAIR_WORDS


def test_bad_requests_say_what_is_possible():
    with pytest.raises(ConfigError, match="turn_left"):
        sample_two_person_clip(0, actions=("look", "fly"))
    with pytest.raises(ConfigError, match="16 px"):
        sample_two_person_clip(0, size_px=4)
