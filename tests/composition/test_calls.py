"""What a user gives to one call: schedulers, callbacks, prompts, several videos; and gradients with checkpointing."""

import pytest
import torch
from composing.calls import CALLS
from composing.features import load_lora


@pytest.mark.parametrize("name", CALLS)
def test_agrees_with_the_plain_run(subject, name):
    assert CALLS[name](subject) <= 1e-5


def test_checkpointing_goes_with_lora(subject):
    pipe = subject.pipe()
    load_lora(pipe)
    method = subject.method(pipe).attach(pipe)
    pipe.transformer.enable_gradient_checkpointing()
    parameters = method.trainable_parameters()
    config = pipe.transformer.config
    person = method.encode_tensors(torch.rand(1, 1, 3, 16, 16), torch.randn(1, 1, 128))
    text = torch.randn(1, config.max_text_seq_length, config.text_embed_dim)
    rope = pipe._prepare_rotary_positional_embeddings(32, 32, 1, torch.device("cpu"))
    with method.conditioned(person):
        video = torch.randn(1, 1, config.in_channels, 4, 4)
        pipe.transformer(video, text, torch.tensor([500]), image_rotary_emb=rope).sample.mean().backward()
    assert any(parameter.grad is not None and parameter.grad.any() for parameter in parameters)


def test_a_callback_can_change_the_latents_and_stop(subject):
    pipe = subject.pipe()
    method = subject.method(pipe).attach(pipe)

    def stop(pipe, step, _time, tensors):
        pipe._interrupt = step == 1
        return {"latents": tensors["latents"] * 0.5}

    changed = subject.sample(pipe, method, callback_on_step_end=stop)
    assert not torch.equal(changed, subject.sample(pipe, method))
