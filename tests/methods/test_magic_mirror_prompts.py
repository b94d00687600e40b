from dataclasses import replace

import numpy as np
import pytest
import torch
from miniature import CLEAN, PROMPT, TEXT_TOKENS, make_face, sample
from torch.testing import assert_close

from likeness.errors import ConfigError, PromptError
from likeness.methods.magic_mirror import MagicMirrorIdentity


@pytest.mark.parametrize("guidance_scale", [1.0, 6.0], ids=["unguided", "guided"])
def test_prompts_share_one_identity_or_bring_their_own(pipe, mirror, guidance_scale):
    prompts = [PROMPT, "a man img nods at the camera"]
    first, second = mirror.encode([make_face(0)]), mirror.encode([make_face(1)])
    with mirror.identity(first):
        shared = sample(pipe, **mirror.prompt(prompts), guidance_scale=guidance_scale)
    with mirror.identity(MagicMirrorIdentity.stack([first, second])):
        own = sample(pipe, **mirror.prompt(prompts), guidance_scale=guidance_scale)
    assert shared.shape == own.shape
    assert len(shared) == 2
    assert_close(own[0], shared[0], rtol=1e-3, atol=1e-3)
    assert not torch.allclose(own[1], shared[1], rtol=1e-3, atol=1e-3)


def test_each_reference_takes_two_positions(pipe, mirror):
    identity = mirror.encode([make_face(0), make_face(1), make_face(2)])
    assert identity.id_tokens.shape == (1, 6, 16)
    assert identity.face_tokens.shape == (1, 3, 32)
    with mirror.identity(identity, scale=0.5):
        encoded = mirror.prompt(PROMPT)
        assert sample(pipe, **encoded).isfinite().all()
    tokens = mirror.tokenize([PROMPT], pipe.tokenizer, num_references=3, max_length=TEXT_TOKENS)
    assert tokens.mask.sum() == 6


def test_one_reference_given_twice_is_the_same_person_to_the_norm_and_the_face_branch(mirror):
    once, twice = mirror.encode([make_face()]), mirror.encode([make_face(), make_face()])
    assert_close(twice.id_tokens[:, :2], once.id_tokens)
    assert_close(twice.id_tokens[:, 2:], once.id_tokens)


def test_prompt_leaves_the_negative_prompt_alone(pipe, mirror):
    with mirror.identity([make_face()]):
        encoded = mirror.prompt(PROMPT)
    with torch.no_grad():
        _, negative = pipe.encode_prompt([CLEAN], max_sequence_length=TEXT_TOKENS)
    assert torch.equal(encoded["negative_prompt_embeds"], negative)
    assert not torch.equal(encoded["prompt_embeds"], negative)


@pytest.mark.parametrize("prompt", ["a woman waves", "a woman img and a man img", "img waves"])
def test_prompts_with_an_unusable_trigger_are_refused(mirror, prompt):
    with mirror.identity([make_face()]), pytest.raises(PromptError, match="after the word for the person"):
        mirror.prompt(prompt)


def test_too_many_references_for_the_text_length_are_refused(mirror):
    with (
        mirror.identity([make_face(seed) for seed in range(6)]),
        pytest.raises(PromptError, match="fewer references"),
    ):
        mirror.prompt(PROMPT)


def test_prompts_that_only_look_like_guidance_are_refused(pipe, mirror):
    embeds = torch.randn(2, TEXT_TOKENS, 16)
    with mirror.identity([make_face()]), pytest.raises(ConfigError, match="without guidance 1 was expected"):
        sample(pipe, prompt_embeds=embeds, guidance_scale=1.0)
    pair = MagicMirrorIdentity.stack([mirror.encode([make_face(seed)]) for seed in (0, 1)])
    one = {"prompt_embeds": embeds[:1], "negative_prompt_embeds": embeds[1:]}
    with mirror.identity(pair), pytest.raises(ConfigError, match="with guidance in one pass 4 was expected"):
        sample(pipe, **one)
    with mirror.identity(pair):
        assert len(sample(pipe, prompt_embeds=embeds, guidance_scale=1.0)) == 2
    with mirror.identity([make_face()]):
        assert len(sample(pipe, **one)) == 1


def test_embeddings_of_another_width_are_refused(mirror):
    face = replace(make_face(), embedding=np.zeros(512, dtype=np.float32), engine="arcface")
    with pytest.raises(ConfigError, match="read by `arcface`, has 512 numbers; the adapter was trained on 128"):
        mirror.encode([make_face(), face])
