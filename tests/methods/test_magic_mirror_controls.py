import pytest
import torch
from miniature import CLEAN, PROMPT, TEXT_TOKENS, make_face, make_inputs, make_mirror, random_identity

from likeness.errors import ConfigError

STEPS = 4


def latents_by_step(pipe, **prompt):
    steps = []

    def keep(_pipe, _step, _timestep, tensors):
        steps.append(tensors["latents"].clone())
        return tensors

    pipe(
        height=32, width=32, num_frames=9, num_inference_steps=STEPS, guidance_scale=6.0,
        max_sequence_length=TEXT_TOKENS, generator=torch.Generator().manual_seed(0), output_type="latent",
        callback_on_step_end=keep,
        **{name: value for name, value in prompt.items() if name != "max_sequence_length"},
    )  # fmt: skip
    return steps


def test_steps_before_the_start_are_the_stock_pipeline_bit_for_bit(pipe, mirror):
    stock = latents_by_step(pipe, prompt=CLEAN)
    with mirror.identity([make_face()], start=0.5):
        late = latents_by_step(pipe, **mirror.prompt(PROMPT))
    assert [torch.equal(a, b) for a, b in zip(late, stock, strict=True)] == [True, True, False, False]


def test_steps_after_the_end_run_the_stock_transformer_bit_for_bit(pipe, mirror):
    calls = []

    def keep(_module, _args, kwargs, output):
        calls.append((kwargs, output[0]))

    hook = pipe.transformer.register_forward_hook(keep, with_kwargs=True)
    with mirror.identity([make_face()], end=0.5):
        whole, half = latents_by_step(pipe, **mirror.prompt(PROMPT)), list(calls)
    hook.remove()
    with mirror.identity([make_face()]):
        full = latents_by_step(pipe, **mirror.prompt(PROMPT))
    assert [torch.allclose(a, b, atol=1e-5) for a, b in zip(whole, full, strict=True)] == [
        True,
        True,
        False,
        False,
    ]
    with torch.no_grad():
        embeds, negative = pipe.encode_prompt(CLEAN, "", max_sequence_length=TEXT_TOKENS)
    for number, (kwargs, output) in enumerate(half):
        given = {**kwargs, "encoder_hidden_states": torch.cat([negative, embeds]), "attention_kwargs": None}
        with torch.no_grad():
            assert torch.equal(pipe.transformer(**given)[0], output) == (number >= STEPS // 2)


def outputs_by_block(transformer, inputs):
    outputs = []
    hooks = [
        block.register_forward_hook(lambda _module, _args, output: outputs.append(output[0].clone()))
        for block in transformer.transformer_blocks
    ]
    with torch.no_grad():
        transformer(**inputs)
    for hook in hooks:
        hook.remove()
    return outputs


def test_blocks_that_are_not_named_are_stock_bit_for_bit(transformer):
    inputs = make_inputs()
    stock = outputs_by_block(transformer, inputs)
    mirror = make_mirror(transformer).attach(transformer)
    identity = random_identity(mirror)
    with mirror.conditioned(identity, blocks=[2]):
        second = outputs_by_block(transformer, inputs)
    with mirror.conditioned(identity, blocks=range(2, 4)):
        ranged = outputs_by_block(transformer, inputs)
    with mirror.conditioned(identity, blocks=range(0)):
        none = outputs_by_block(transformer, inputs)
    with mirror.conditioned(identity, blocks=range(4)):
        every = outputs_by_block(transformer, inputs)
    with mirror.conditioned(identity):
        plain = outputs_by_block(transformer, inputs)
    assert [torch.equal(a, b) for a, b in zip(second, stock, strict=True)] == [True, True, False, False]
    assert all(torch.equal(a, b) for a, b in zip(ranged, second, strict=True))
    assert all(torch.equal(a, b) for a, b in zip(none, stock, strict=True))
    assert all(torch.equal(a, b) for a, b in zip(every, plain, strict=True))


@pytest.mark.parametrize(
    ("controls", "message"),
    [
        ({"start": 0.6, "end": 0.4}, "acts from 0.6 to 0.4 of the steps"),
        ({"end": 1.5}, "0 <= start < end <= 1"),
        ({"branch": "none"}, "must be one of conditional, both"),
        ({"blocks": [1]}, "names 1, which is not adapted; those are 0, 2"),
        ({"blocks": [9]}, "names 9; the transformer has blocks 0 to 3"),
        ({"scale": -1.0}, "must be a finite number from 0"),
    ],
)
def test_controls_out_of_range_are_refused(mirror, controls, message):
    with pytest.raises(ConfigError, match=message), mirror.identity([make_face()], **controls):
        pass


def test_a_window_without_a_pipeline_that_counts_steps_is_refused(transformer):
    mirror = make_mirror(transformer).attach(transformer)
    with (
        mirror.conditioned(random_identity(mirror), start=0.5),
        pytest.raises(ConfigError, match="steps are not counted"),
    ):
        transformer(**make_inputs())
