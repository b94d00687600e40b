import pytest
import torch
from torch.testing import assert_close

from likeness.errors import ConfigError
from likeness.training.base.transformer import BaseStage, BaseStageSettings, Denoiser
from likeness.training.data.datasets import ShardedDataset
from likeness.training.data.prompts import tokenize
from likeness.training.objectives.perturbed_guidance import GuidedTeacher

SENTENCE = "a woman nods in a park"


@pytest.fixture
def pipe(frozen_pipe):
    return frozen_pipe([SENTENCE])


@pytest.fixture
def denoiser(pipe):
    return Denoiser(pipe.text_encoder, pipe.transformer)


@pytest.fixture
def inputs(pipe):
    ids = tokenize(pipe.tokenizer, [SENTENCE, ""], 32)
    return ids, torch.randn(2, 2, 16, 8, 8), torch.tensor([300, 700])


def teacher_of(denoiser, layers, scale=0.5):
    return GuidedTeacher(denoiser, scale=scale, layers=layers, dtype=torch.float32)


def test_guidance_moves_away_from_perturbed_attention(denoiser, inputs, monkeypatch):
    plain = denoiser(*inputs)
    guided = teacher_of(denoiser, [1])(*inputs, torch.tensor([True, False]))
    attention = denoiser.transformer.transformer_blocks[1].attn1

    def alone(hidden_states, encoder_hidden_states, **_):
        return tuple(attention.to_out[0](attention.to_v(x)) for x in (hidden_states, encoder_hidden_states))

    monkeypatch.setattr(attention, "forward", alone)
    perturbed = denoiser(*inputs)
    assert_close(guided[0], plain[0] + 0.5 * (plain[0] - perturbed[0]))
    assert_close(guided[1], plain[1])
    assert (guided[0] - plain[0]).abs().max() > 1e-4


def test_without_weight_the_teacher_is_its_model(denoiser, inputs):
    """With scale 0 the teacher is its model, and the model's own attention is never touched."""
    before = denoiser(*inputs)
    guided = teacher_of(denoiser, [0, 1], scale=0.0)(*inputs, torch.tensor([True, True]))
    assert_close(guided, before)
    assert_close(denoiser(*inputs), before)


def test_the_teacher_stays_when_the_student_learns(denoiser, inputs):
    teacher = teacher_of(denoiser, [1])
    before = teacher(*inputs, torch.tensor([True, True]))
    with torch.no_grad():
        for parameter in denoiser.parameters():
            parameter.mul_(2)
    assert_close(teacher(*inputs, torch.tensor([True, True])), before)


@pytest.mark.parametrize("layers", [(), (2,), (-1,)])
def test_blocks_that_are_not_there_are_refused(denoiser, layers):
    with pytest.raises(ConfigError, match="blocks 0 to 1"):
        teacher_of(denoiser, layers)


def test_a_student_nears_its_guided_teacher_and_leaves_the_text_encoder(pipe):
    pipe.transformer.requires_grad_(True)
    facts = [{"prompt": SENTENCE}] * 8
    tensors = {"latents": torch.randn(8, 1, 16, 8, 8).half(), "mask": torch.ones(8, 1, 8, 8).half()}
    settings = BaseStageSettings(
        name="s", steps=20, batch=8, data="images", dtype="float32", attention_guidance=2.0,
        perturbed_layers=(0, 1), long_text_every=2,
    )  # fmt: skip
    stage = BaseStage(pipe, settings, {"images": ShardedDataset(tensors, facts)}, seed=0)
    learning = [parameter for parameter in stage.denoiser.parameters() if parameter.requires_grad]
    assert not any(parameter.requires_grad for parameter in pipe.text_encoder.parameters())
    optimizer = torch.optim.Adam(learning, lr=5e-3)
    losses = []
    for step in range(20):
        loss, _ = stage.loss(step)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        losses.append(float(loss.detach()))
    assert sum(losses[-5:]) < 0.5 * sum(losses[:5])


def test_the_text_encoder_learns_again_where_no_teacher_is(pipe):
    shards = ShardedDataset({"latents": torch.randn(2, 1, 16, 8, 8).half()}, [{"prompt": SENTENCE}] * 2)
    for guidance in (
        0.5,
        0.0,
    ):  # An uninterrupted run builds both stages, one that goes on after the first only the second.
        settings = BaseStageSettings(
            name="s", steps=1, data="images", attention_guidance=guidance, perturbed_layers=(0,)
        )
        BaseStage(pipe, settings, {"images": shards}, seed=0)
        assert all(p.requires_grad is not bool(guidance) for p in pipe.text_encoder.parameters())
    pipe.text_encoder.requires_grad_(False)
