import copy
import dataclasses
from functools import partial

import pytest
import torch
from pydantic import ValidationError
from safetensors.torch import load_file
from small_methods import PROMPT, SPECS, build, make_data
from torch.testing import assert_close

from likeness.adapters.blocks.attention import FaceAddedAttnProcessor
from likeness.errors import ConfigError
from likeness.identity.encoders.recognizer import Recognizer
from likeness.training.base.transformer import Denoiser
from likeness.training.data.prompts import tokenize
from likeness.training.engine.loop import InterruptedRunError
from likeness.training.methods import stage as method_stage
from likeness.training.methods import train as methods
from likeness.training.methods.fantasy_id import FantasyIDRecipe
from likeness.training.methods.settings import MethodStageSettings
from likeness.training.methods.stage import MethodStage
from likeness.training.methods.train import train_method
from likeness.training.objectives.denoiser import DenoiserInputs, MethodDenoiser
from likeness.training.objectives.on_policy import sample_on_policy
from likeness.training.objectives.perturbed_guidance import GuidedTeacher, MethodGuidance

pytestmark = pytest.mark.usefixtures("without_curves")


@pytest.fixture(scope="module", params=SPECS)
def parts(request, topology_of, frozen_pipe):
    pipe, method, method_spec = build(request.param, frozen_pipe, topology_of)
    method.attach(pipe).trainable_parameters()
    return pipe, method, method_spec, Recognizer(128, (8, 8, 8), 32).requires_grad_(False)


@pytest.fixture(params=SPECS)
def apart(request, frozen_pipe, topology_of):
    """Make what `build` makes; nothing of the method is left at zero, so that everything has an effect."""
    pipe, method, method_spec = build(request.param, frozen_pipe, topology_of)
    for parameter in method.parameters():
        torch.nn.init.normal_(parameter, std=0.1)
    return pipe, method, method_spec


def denoiser_inputs(pipe, method, method_spec, *, is_active):
    """Write the inputs of a denoiser, two samples."""
    stage_data = make_data()
    tokens = method.tokenize([PROMPT] * 2, pipe.tokenizer, num_references=1, max_length=32)
    ids, mask = tokens.ids, tokens.mask
    if not is_active:
        ids = tokenize(pipe.tokenizer, [PROMPT.replace(" img", "")] * 2, 32)
        mask = torch.zeros_like(mask)
    pixels = torch.randn(2, 1, 3, 64, 64)
    extra_conditioning = method_spec.extra_conditioning(stage_data, "train", torch.tensor([[0], [1]]))
    return DenoiserInputs(
        token_ids=ids,
        class_mask=mask,
        pixels=pixels,
        extra_conditioning=extra_conditioning,
        active=torch.full((2,), is_active),
        noisy=torch.randn(2, 2, 16, 8, 8),
        timesteps=torch.tensor([300, 700]),
    )


def test_guidance_of_rows_without_anybody_is_the_bases(apart):
    pipe, method, method_spec = apart
    inputs = denoiser_inputs(pipe, method, method_spec, is_active=False)
    guidance = MethodGuidance(pipe, method, layers=[0, 1], dtype=torch.float32)
    denoiser = Denoiser(pipe.text_encoder, pipe.transformer)
    base = inputs.token_ids, inputs.noisy, inputs.timesteps
    teacher = GuidedTeacher(denoiser, scale=1.0, layers=[0, 1], dtype=torch.float32)
    expected = teacher(*base, torch.tensor([True, True])) - denoiser(*base)
    assert expected.abs().max() > 1e-3
    assert_close(guidance(inputs), expected, atol=1e-5, rtol=1e-4)


def test_references_are_not_encoded_without_an_identity(apart, monkeypatch):
    pipe, method, method_spec = apart
    method.attach(pipe)
    denoiser, inputs = MethodDenoiser(pipe, method), denoiser_inputs(pipe, method, method_spec, is_active=False)
    assert not inputs.active.any()
    with torch.no_grad():
        one = denoiser(inputs.replace(active=torch.tensor([False, True])))
        monkeypatch.setattr(method, "encode_tensors", None)
        alone = denoiser(inputs)
    assert_close(alone[0], one[0])
    assert (alone[1] - one[1]).abs().max() > 1e-3


def test_guidance_sees_the_person(apart, monkeypatch):
    pipe, method, method_spec = apart
    inputs = denoiser_inputs(pipe, method, method_spec, is_active=True)
    guidance = MethodGuidance(pipe, method, layers=[0], dtype=torch.float32)(inputs)
    method.attach(pipe)
    denoiser = MethodDenoiser(pipe, method)
    with torch.no_grad():
        whole = denoiser(inputs)
        base = pipe.transformer.transformer_blocks[0].base.attn1

        def alone(hidden_states, encoder_hidden_states, **_):
            return tuple(base.to_out[0](base.to_v(x)) for x in (hidden_states, encoder_hidden_states))

        monkeypatch.setattr(base, "forward", alone)
        monkeypatch.setattr(
            FaceAddedAttnProcessor,
            "_attend",
            lambda _self, _q, _k, value, **_: value.transpose(1, 2).flatten(2),
        )
        perturbed = denoiser(inputs)
    assert guidance.abs().max() > 1e-4
    assert_close(guidance, whole - perturbed, atol=1e-5, rtol=1e-4)


GUIDED = MethodStageSettings(
    name="s", steps=2, batch=2, data="clips", attention_guidance=0.5, perturbed_layers=(1,), rollout_samples=1,
    rollout_steps=1, identity_samples=0, identity_drop=0.0, both_drop=0.0,
)  # fmt: skip


def recipe_of(folder, **changes) -> FantasyIDRecipe:
    values = {
        "without": (), "base": folder / "guided", "recognizer": folder, "seed": 0, "method": {}, "faces": None,
        "clips": None, "validation": None, "descriptor": None, "start": None, "unguided": folder / "base",
        "guidance_teacher": folder / "guidance_teacher", "stages": (GUIDED,), **changes,
    }  # fmt: skip
    return FantasyIDRecipe.model_construct(**values)


@pytest.mark.parametrize("absent", ["unguided", "guidance_teacher"])
def test_guidance_without_the_base_before_it_is_refused(tmp_path, parts, absent):
    with pytest.raises(ConfigError, match=f"`{absent}`"):
        train_method(recipe_of(tmp_path, **{absent: None}), tmp_path, tmp_path, parts[2])


@pytest.mark.parametrize(
    ("changes", "complaint"),
    [
        ({"rollout_samples": 1, "identity_weight": 0.0}, "identity_weight"),
        ({"on_policy_distillation_weight": 1.0, "teacher_scale": 1.0}, "rollout_samples"),
        ({"on_policy_distillation_weight": 1.0, "rollout_samples": 1}, "teacher_scale"),
        ({"identity_contrast": 0.1, "identity_weight": 0.0}, "identity_weight"),
        ({"attention_guidance": 0.5}, "perturbed_layers"),
        ({"attention_guidance": 0.5, "perturbed_layers": (1,), "teacher_scale": 1.0}, "guided already"),
        ({"rollout_to": (20, 90)}, "rollout_to"),
        ({"rollout_to": (0.01, 0.5)}, "rollout_from"),
    ],
)
def test_settings_that_would_do_nothing_are_refused(changes, complaint):
    with pytest.raises(ValidationError, match=complaint):
        MethodStageSettings(name="s", steps=1, data="clips", **changes)


def no_validation(*_):
    """No part, and no metrics."""
    yield from ()
    return {}


@pytest.mark.parametrize("apart", ["magic_mirror"], indirect=True)
def test_guided_training_that_was_stopped_goes_on_as_if_it_had_not_been(apart, tmp_path, monkeypatch):
    pipe, method, method_spec = apart
    method.save_pretrained(tmp_path / "guidance_teacher")
    read = []

    def read_base(folder, **_):
        read.append(folder.name)
        return copy.deepcopy(pipe)

    data, recognizer = make_data(), Recognizer(128, (8, 8, 8), 32)
    monkeypatch.setattr(methods, "read_base", read_base)
    monkeypatch.setattr(methods, "read_transformer_config", lambda _: pipe.transformer.config)
    monkeypatch.setattr(methods, "read_data", lambda *_: dataclasses.replace(data))
    monkeypatch.setattr(Recognizer, "load", lambda _: recognizer)
    monkeypatch.setattr(method_spec, "prepare", lambda *_, **__: None)
    monkeypatch.setattr(method_spec, "build", lambda *_: copy.deepcopy(method))
    monkeypatch.setattr(MethodStage, "validation_parts", no_validation)
    drawn = []
    monkeypatch.setattr(
        method_stage, "sample_on_policy", lambda *arguments: (drawn.append(arguments), sample_on_policy(*arguments))[1]
    )
    recipe = recipe_of(tmp_path)
    whole = train_method(recipe, tmp_path / "whole", tmp_path, method_spec)
    with monkeypatch.context() as once:
        once.setattr(methods, "train", partial(methods.train, stop_after_steps=1))
        with pytest.raises(InterruptedRunError):
            train_method(recipe, tmp_path / "parted", tmp_path, method_spec)
    parted = train_method(recipe, tmp_path / "parted", tmp_path, method_spec)
    assert read == ["guided", "base"] * 3
    name = "diffusion_pytorch_model.safetensors"
    before, after, again = (load_file(folder / name) for folder in (tmp_path / "guidance_teacher", whole, parted))
    assert any(not torch.equal(before[key].half(), after[key].half()) for key in before)
    for key, value in after.items():
        assert torch.equal(value, again[key]), key
    assert len(drawn) == 4  # Two steps, twice.


@pytest.mark.parametrize("apart", ["magic_mirror"], indirect=True)
def test_a_teacher_keeps_its_numbers_of_embeddings_whole(apart):
    pipe, method, _ = apart
    method.standardize_embeddings(torch.randn(64, 128) * 0.1 + 0.123456)
    teacher = MethodGuidance(pipe, method, layers=[0], dtype=torch.bfloat16).denoisers[0].module
    assert teacher.base[1].transformer_blocks[0].base.attn1.to_v.weight.dtype == torch.bfloat16
    assert torch.equal(teacher.method.embedding_mean, method.embedding_mean)
