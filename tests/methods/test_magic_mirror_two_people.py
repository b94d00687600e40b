import pytest
import torch
from miniature import PROMPT, make_face, make_mirror, sample
from torch.testing import assert_close

from likeness.adapters.conditioning.regions import Regions
from likeness.errors import ConfigError, PromptError
from likeness.methods.magic_mirror import MagicMirrorIdentity

BOTH = "a man img1 waves at a woman img2"
LEFT, RIGHT = (0, 0, 0.5, 1), (0.5, 0, 1, 1)
APART = Regions(cross_region_weight=0.0, own_positions=True)


def wide(pipe, mirror, faces, prompt=BOTH, *, width=64, steps=2, guidance=6.0, **controls):
    with torch.no_grad(), mirror.identity(faces, **controls):
        return pipe(
            height=32, width=width, num_frames=9, num_inference_steps=steps, guidance_scale=guidance,
            generator=torch.Generator().manual_seed(0), output_type="latent", **mirror.prompt(prompt),
        ).frames  # fmt: skip


def test_one_person_in_a_list_is_that_person_bit_for_bit(pipe, mirror):
    alone = mirror.encode([make_face(0)])
    assert MagicMirrorIdentity.together([alone]) is alone
    with mirror.identity([[make_face(0)]]):
        listed = sample(pipe, **mirror.prompt(PROMPT))
    with mirror.identity([make_face(0)]):
        assert torch.equal(listed, sample(pipe, **mirror.prompt(PROMPT)))


@pytest.mark.parametrize("branch", ["conditional", "both"])
@pytest.mark.parametrize("regions", [None, APART, Regions(areas=((0, 0, 0.6, 1), (0.5, 0.2, 0.9, 1)))])
def test_the_sampling_cache_agrees_with_the_figure(pipe, mirror, regions, branch):
    people = [[make_face(0)], [make_face(1), make_face(2)]]
    cached = wide(pipe, mirror, people, regions=regions, branch=branch)
    mirror._make_sampling_cache = lambda _transformer: None
    assert_close(cached, wide(pipe, mirror, people, regions=regions, branch=branch), atol=2e-5, rtol=1e-4)


def test_kept_apart_a_face_reaches_its_own_strip_alone(pipe):
    """Words see everyone, so one block is looked at, and a method without CAN, which moves all words."""
    mirror = make_mirror(pipe.transformer, has_norm=False).attach(pipe)
    for block in pipe.transformer.transformer_blocks[1:]:
        block.forward = lambda hidden_states, encoder_hidden_states, *_, **__: (
            hidden_states,
            encoder_hidden_states,
        )
    one, two = (
        wide(pipe, mirror, [[make_face(0)], [make_face(other)]], regions=APART, steps=1, guidance=1.0)
        for other in (1, 2)
    )
    assert_close(one[..., :4], two[..., :4], atol=1e-5, rtol=1e-5)
    assert (one[..., 4:] - two[..., 4:]).abs().max() > 1e-3


def test_strips_follow_the_order_of_mention(pipe, mirror):
    faces = [[make_face(0)], [make_face(1)]]
    mentioned = wide(pipe, mirror, faces, "a woman img2 waves at a man img1")
    placed = wide(pipe, mirror, faces, "a woman img2 waves at a man img1", regions=Regions(areas=(RIGHT, LEFT)))
    assert torch.equal(mentioned, placed)
    assert not torch.equal(mentioned, wide(pipe, mirror, faces, regions=Regions(areas=(LEFT, RIGHT))))


def test_people_differ_from_each_other_in_number_and_place(pipe, mirror):
    first, second = [make_face(0)], [make_face(1)]
    both = wide(pipe, mirror, [first, second])
    assert not torch.equal(both, wide(pipe, mirror, [second, first]))


def test_scale_0_is_the_stock_pipeline(pipe, mirror):
    silent = wide(pipe, mirror, [[make_face(0)], [make_face(1)]], scale=0.0, regions=APART)
    mirror.detach()
    clean = "a man waves at a woman"
    stock = pipe(height=32, width=64, num_frames=9, num_inference_steps=2, generator=torch.Generator().manual_seed(0),
                 output_type="latent", prompt=clean, max_sequence_length=12).frames  # fmt: skip
    assert torch.equal(silent, stock)


def test_numbers_of_people_have_to_agree(pipe, mirror):
    faces = [[make_face(0)], [make_face(1)]]
    with mirror.identity(faces), pytest.raises(PromptError, match=r"names 1 person, but faces of 2"):
        mirror.prompt(PROMPT)
    with mirror.identity([make_face(0)]), pytest.raises(PromptError, match=r"names 2 people, but faces of 1"):
        mirror.prompt(BOTH)
    with pytest.raises(ConfigError, match="1 regions were given for 2 people"):
        wide(pipe, mirror, faces, regions=Regions(areas=(LEFT,)))
    with pytest.raises(ConfigError, match="4 x 2 tokens"):
        wide(pipe, mirror, faces, regions=APART, width=32)


def test_a_batch_shows_two_people_in_each_video(pipe, mirror):
    faces = [mirror.encode([make_face(number)]) for number in range(4)]
    pairs = [MagicMirrorIdentity.together(faces[:2]), MagicMirrorIdentity.together(faces[2:])]
    with torch.no_grad(), mirror.identity(MagicMirrorIdentity.stack(pairs)):
        prompts = mirror.prompt([BOTH, "a woman img2 nods at a man img1"])
        generators = [torch.Generator().manual_seed(0) for _ in pairs]
        together = pipe(height=32, width=64, num_frames=9, num_inference_steps=2, generator=generators,
                        output_type="latent", **prompts).frames  # fmt: skip
    assert_close(together[:1], wide(pipe, mirror, pairs[0]), atol=2e-5, rtol=1e-4)
    with pytest.raises(ConfigError, match="people"):
        MagicMirrorIdentity.stack([pairs[0], faces[0]])
