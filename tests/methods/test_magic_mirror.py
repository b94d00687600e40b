import copy

import pytest
import torch
from diffusers import CogVideoXTransformer3DModel
from miniature import (
    CLEAN,
    PROMPT,
    TEXT_TOKENS,
    make_face,
    make_inputs,
    make_mirror,
    make_pipe,
    make_transformer,
    random_identity,
    sample,
)
from torch.testing import assert_close

from likeness.errors import ConfigError
from likeness.methods.magic_mirror import MagicMirror, MagicMirrorIdentity


@pytest.mark.parametrize("guidance_scale", [1.0, 6.0], ids=["unguided", "guided"])
def test_scale_zero_and_detached_are_the_stock_pipeline_bit_for_bit(pipe, guidance_scale):
    stock = sample(pipe, prompt=CLEAN, guidance_scale=guidance_scale)
    mirror = make_mirror(pipe.transformer).attach(pipe)
    assert torch.equal(sample(pipe, prompt=CLEAN, guidance_scale=guidance_scale), stock)  # no identity is on
    with mirror.identity([make_face()], scale=0.0):
        assert torch.equal(sample(pipe, **mirror.prompt(PROMPT), guidance_scale=guidance_scale), stock)
    with mirror.identity([make_face()]):
        adapted = sample(pipe, **mirror.prompt(PROMPT), guidance_scale=guidance_scale)
    assert not torch.equal(adapted, stock)
    assert adapted.isfinite().all()
    mirror.detach()
    assert torch.equal(sample(pipe, prompt=CLEAN, guidance_scale=guidance_scale), stock)


def test_a_batch_without_any_active_row_is_stock_bit_for_bit(transformer):
    inputs = make_inputs()
    stock = transformer(**inputs).sample
    mirror = make_mirror(transformer).attach(transformer)
    with mirror.conditioned(random_identity(mirror), active=torch.tensor([False, False])):
        assert torch.equal(transformer(**inputs).sample, stock)


def test_untrained_adapter_starts_near_the_base_and_exactly_there_without_the_face_branch(transformer):
    inputs = make_inputs()
    stock = transformer(**inputs).sample
    mirror = make_mirror(transformer, is_trained=False, has_face=False).attach(transformer)
    identity = random_identity(mirror)
    text = torch.randn(2, TEXT_TOKENS, 16)
    mask = torch.zeros(2, TEXT_TOKENS, dtype=torch.bool)
    mask[:, 1:3] = True
    assert torch.equal(mirror.fuse(text, mask, identity), text)
    with mirror.conditioned(identity):
        assert_close(transformer(**inputs).sample, stock, atol=1e-5, rtol=1e-5)


def test_only_even_layers_are_adapted(transformer):
    mirror = make_mirror(transformer).attach(transformer)
    assert list(mirror.layers) == ["0", "2"]
    assert [block.block_adapter is not None for block in transformer.transformer_blocks] == [True, False, True, False]


def test_every_new_modulation_predictor_and_v_start_at_zero(transformer):
    mirror = make_mirror(transformer, is_trained=False)
    for layer in mirror.layers.values():
        for linear in (layer.face_norm.linear_out, layer.conditioned_norm.linear_out):
            assert not linear.weight.any()
            assert not linear.bias.any()
        assert not layer.attention.to_v_face.weight.any()
        assert layer.attention.to_k_face.weight.any()


def test_round_trip_holds_no_weight_of_the_base(transformer, tmp_path):
    mirror = make_mirror(transformer, norm_factors="shift+gate").attach(transformer)
    mirror.standardize_embeddings(torch.randn(10, 128))
    mirror.save_pretrained(tmp_path)
    base = {parameter.data_ptr() for parameter in transformer.parameters()}
    base -= {parameter.data_ptr() for parameter in mirror.parameters()}
    assert not any(value.data_ptr() in base for value in mirror.state_dict().values())
    assert not any("base" in name or "transformer" in name for name in mirror.state_dict())

    again = MagicMirror.from_pretrained(tmp_path)
    assert again.config.norm_factors == "shift+gate"
    assert again.state_dict().keys() == mirror.state_dict().keys()
    for name, value in again.state_dict().items():
        assert torch.equal(value, mirror.state_dict()[name])


def test_transformer_saves_and_loads_stock_while_attached_and_after(transformer, tmp_path):
    stock = {name: value.clone() for name, value in transformer.state_dict().items()}
    mirror = make_mirror(transformer).attach(transformer)
    transformer.save_pretrained(tmp_path / "attached")
    transformer.load_state_dict(stock)
    mirror.detach()
    transformer.save_pretrained(tmp_path / "detached")
    for folder in ("attached", "detached"):
        again = CogVideoXTransformer3DModel.from_pretrained(tmp_path / folder).state_dict()
        assert again.keys() == stock.keys()
        assert all(torch.equal(value, stock[name]) for name, value in again.items())


def test_copy_leaves_the_transformer_behind(transformer):
    mirror = make_mirror(transformer).attach(transformer)
    twin = copy.deepcopy(mirror)
    assert all(torch.equal(a, b) for a, b in zip(twin.parameters(), mirror.parameters(), strict=True))
    twin.attach(make_transformer())  # it is not attached to anything


def gradients(transformer, mirror, active):
    mirror.zero_grad()
    identity = random_identity(mirror, batch=3)
    inputs = make_inputs(batch=3)
    mask = torch.zeros(3, TEXT_TOKENS, dtype=torch.bool)
    mask[:2, 1:3] = True
    inputs["encoder_hidden_states"] = mirror.fuse(inputs["encoder_hidden_states"], mask, identity)
    with mirror.conditioned(identity, active=active):
        prediction = transformer(**inputs).sample
    prediction.square().mean().backward()  # outside the context, as a training loop may do
    return {name: parameter.grad.clone() for name, parameter in mirror.named_parameters() if parameter.grad is not None}


@pytest.mark.parametrize("active", [None, torch.tensor([True, False, True])], ids=["all rows", "some rows"])
def test_gradient_checkpointing_gives_the_same_gradients(transformer, active):
    mirror = make_mirror(transformer).attach(transformer)
    transformer.train()
    plain = gradients(transformer, mirror, active)
    transformer.enable_gradient_checkpointing()
    checkpointed = gradients(transformer, mirror, active)
    assert plain.keys() == checkpointed.keys()
    for name, value in plain.items():
        assert_close(checkpointed[name], value, msg=name)


def test_every_parameter_learns_except_the_frozen_ones(transformer):
    mirror = make_mirror(transformer, frozen=("face_encoder",)).attach(transformer)
    trainable = mirror.trainable_parameters()
    names = {name for name, _ in mirror.named_parameters() if not name.startswith("face_encoder.")}
    assert len(trainable) == len(names)
    assert gradients(transformer, mirror, None).keys() == names


def test_each_row_has_its_own_identity(transformer):
    mirror = make_mirror(transformer).attach(transformer)
    identity, inputs = random_identity(mirror), make_inputs()
    with mirror.conditioned(identity):
        together = transformer(**inputs).sample
    for row in range(2):
        alone = MagicMirrorIdentity(
            id_tokens=identity.id_tokens[row : row + 1], face_tokens=identity.face_tokens[row : row + 1]
        )
        one = {name: value[row : row + 1] if torch.is_tensor(value) else value for name, value in inputs.items()}
        with mirror.conditioned(alone):
            assert_close(transformer(**one).sample, together[row : row + 1], rtol=1e-4, atol=1e-5)


def test_guidance_in_one_pass_equals_two_passes_with_the_identity_in_the_conditional_one(pipe, mirror):
    inputs = make_inputs(batch=2)
    halves = [
        {name: value[row : row + 1] if torch.is_tensor(value) else value for name, value in inputs.items()}
        for row in range(2)
    ]
    identity = mirror.encode([make_face()])
    with torch.no_grad():
        unconditional = pipe.transformer(**halves[0]).sample
        with mirror.identity(identity):
            conditional = pipe.transformer(**halves[1]).sample
            together = pipe.transformer(**inputs).sample
        with mirror.identity(identity, branch="both"):
            both = pipe.transformer(**inputs).sample
    assert_close(together, torch.cat([unconditional, conditional]), rtol=1e-4, atol=1e-5)
    assert_close(both[1:], conditional, rtol=1e-4, atol=1e-5)
    assert not torch.allclose(both[:1], unconditional, rtol=1e-3, atol=1e-3)


def test_misuse_says_what_to_do(pipe, mirror):
    with pytest.raises(ConfigError, match="Call `prompt` inside"):
        mirror.prompt(PROMPT)
    with pytest.raises(ConfigError, match="attached already"):
        mirror.attach(pipe)
    with pytest.raises(ConfigError, match="Another method is attached"):
        make_mirror(pipe.transformer).attach(pipe)
    with pytest.raises(ConfigError, match="No reference face"):
        mirror.encode([])
    with pytest.raises(ConfigError, match="not attached"):
        make_mirror(pipe.transformer).detach()
    with pytest.raises(ConfigError, match="`num_layers` is 4, the transformer's is 6"):
        make_mirror(pipe.transformer).attach(make_transformer(num_layers=6))
    with mirror.identity([make_face()], scale=1.0), pytest.raises(ConfigError, match="batch of 3"):
        pipe.transformer(**make_inputs(batch=3))
    with pytest.raises(ConfigError, match="must be a finite number from 0"), mirror.identity([make_face()], scale=-1.0):
        pass
    pair = MagicMirrorIdentity.stack([mirror.encode([make_face()])] * 2)
    with mirror.identity(pair), pytest.raises(ConfigError, match="3 prompts were given for 2 identities"):
        mirror.prompt([PROMPT] * 3)
    with pytest.raises(ConfigError, match="equally many"):
        MagicMirrorIdentity.stack([mirror.encode([make_face()]), mirror.encode([make_face(), make_face()])])


def test_paper_configuration_counts_as_many_parameters_as_the_paper_says():
    with torch.device("meta"):
        mirror = MagicMirror(**MagicMirror.cogvideox_5b_config())
    count = {name: sum(p.numel() for p in child.parameters()) for name, child in mirror.named_children()}
    assert count["face_encoder"] == 303_179_776  # CLIP ViT-L/14
    assert count["identity_perceiver"] == 217_122_816  # PhotoMaker-V2
    assert list(mirror.layers) == [str(number) for number in range(0, 42, 2)]
    base_billion = 5.570 + 4.762 + 0.216
    assert sum(count.values()) / 1e9 + base_billion == pytest.approx(12.8, abs=0.15)


def test_ablations_build_without_their_parts(pipe):
    for changes in (
        {"has_norm": False},
        {"has_face": False},
        {"reinjects_face": True},
        {"norm_reads_time": False},
    ):
        mirror = make_mirror(pipe.transformer, **changes).attach(pipe)
        with mirror.identity([make_face()]):
            assert sample(pipe, **mirror.prompt(PROMPT)).isfinite().all()
        mirror.detach()


def test_pipeline_fixture_is_deterministic():
    assert torch.equal(sample(make_pipe(), prompt=CLEAN), sample(make_pipe(), prompt=CLEAN))
