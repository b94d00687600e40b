"""The sampling cache: the same videos, weights that are offloaded and restored, nothing computed twice."""

import pytest
import torch
from diffusers import FasterCacheConfig, FirstBlockCacheConfig
from miniature import (
    CLEAN,
    PROMPT,
    make_face,
    make_inputs,
    make_mirror,
    make_transformer,
    random_identity,
    sample,
)
from torch import nn
from torch.testing import assert_close

from likeness.adapters.sampling.precompute import CachedLinear, ModulationCache
from likeness.methods.magic_mirror import MagicMirrorIdentity


@pytest.fixture
def disable_cache(monkeypatch):
    """Disable the sampling cache: blocks compute everything, as in training."""

    def switch():
        monkeypatch.setattr(ModulationCache, "is_applicable", lambda _self: False)

    return switch


CONTROLS = [
    {},
    {"scale": 0.6},
    {"branch": "both"},
    {"blocks": [2]},
    {"start": 0.5},
    {"branch": "both", "scale": 1.5, "end": 0.5},
]


@pytest.mark.parametrize("controls", CONTROLS, ids=str)
@pytest.mark.parametrize("guidance_scale", [1.0, 6.0], ids=["unguided", "guided"])
@pytest.mark.parametrize("people", [1, 2])
def test_videos_agree_with_and_without_the_sampling_cache(
    pipe, mirror, disable_cache, controls, guidance_scale, people
):
    identity = MagicMirrorIdentity.stack([mirror.encode([make_face(seed)]) for seed in range(people)])

    def video():
        with mirror.identity(identity, **controls):
            return sample(pipe, **mirror.prompt([PROMPT] * people), guidance_scale=guidance_scale)

    cached = video()
    disable_cache()
    assert_close(cached, video(), rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("changes", [{"has_face": False}, {"has_norm": False}, {"reinjects_face": True},
                                     {"norm_reads_time": False}, {"norm_factors": "shift+gate"}], ids=str)  # fmt: skip
def test_variants_agree_with_and_without_the_sampling_cache(transformer, changes):
    mirror = make_mirror(transformer, **changes).attach(transformer)
    identity, inputs = random_identity(mirror, batch=1), make_inputs(batch=2)
    with mirror.conditioned(identity):
        plain = transformer(**inputs).sample.detach()
        with torch.no_grad():
            assert_close(transformer(**inputs).sample, plain, rtol=1e-5, atol=1e-5)
            again = transformer(**inputs).sample
        assert_close(again, plain, rtol=1e-5, atol=1e-5)


def test_rows_with_different_timesteps_are_never_mixed_up(transformer):
    mirror = make_mirror(transformer).attach(transformer)
    identity, inputs = random_identity(mirror), make_inputs()
    with mirror.conditioned(identity):
        for timestep in ([100, 100], [100, 900], [900, 100], [100, 100]):
            given = {**inputs, "timestep": torch.tensor(timestep)}
            with torch.no_grad():
                cached = transformer(**given).sample
            assert_close(cached, transformer(**given).sample.detach(), rtol=1e-5, atol=1e-5)


def test_each_identity_and_each_scale_has_tables_of_its_own(pipe, mirror):
    def video(seed, **controls):
        with mirror.identity([make_face(seed)], **controls):
            return sample(pipe, **mirror.prompt(PROMPT))

    first, second, weak = video(0), video(1), video(0, scale=0.5)
    assert not torch.allclose(first, second, atol=1e-3)
    assert not torch.allclose(first, weak, atol=1e-3)
    assert torch.equal(video(0), first)
    with mirror.identity([make_face(0)]):
        encoded = mirror.prompt(PROMPT)
        with mirror.identity([make_face(1)]):
            inner = sample(pipe, **mirror.prompt(PROMPT))
        assert torch.equal(sample(pipe, **encoded), first)
    assert torch.equal(inner, second)


def linears(pipe):
    return [
        norm.linear for block in pipe.transformer.transformer_blocks for norm in (block.base.norm1, block.base.norm2)
    ]


def test_weights_that_tables_replace_leave_while_sampling_and_come_back(pipe, mirror):
    before = {name: value.clone() for name, value in pipe.transformer.state_dict().items()}
    parameters = dict(pipe.transformer.named_parameters())
    seen = []

    def look(_pipe, _step, _timestep, tensors):
        sampling_cache = mirror._session.sampling_cache
        assert all(isinstance(linear, CachedLinear) for linear in linears(pipe))
        assert pipe.transformer.state_dict().keys() == before.keys()
        seen.append((sampling_cache.offloaded_bytes, sampling_cache.cached_bytes))
        return tensors

    with mirror.identity([make_face()]):
        encoded = mirror.prompt(PROMPT)
        sample(pipe, **encoded, callback_on_step_end=look)
        mirror.prompt(PROMPT)  # needs the weights again
        assert not mirror._session.sampling_cache.offloaded_bytes
        sample(pipe, **encoded, callback_on_step_end=look)
    released, tables = seen[0]
    owned = sum(parameter.numel() * 4 for parameter in mirror.parameters())
    norms = sum(parameter.numel() * 4 for linear in linears(pipe) for parameter in linear.parameters())
    assert released == owned + norms
    assert 0 < tables < norms
    assert len(set(seen)) == 1
    assert all(type(linear) is nn.Linear for linear in linears(pipe))
    assert all(parameters[name] is value for name, value in pipe.transformer.named_parameters())
    assert all(torch.equal(before[name], value) for name, value in pipe.transformer.state_dict().items())


def test_weights_come_back_after_an_exception(pipe, mirror):
    stock = sample(pipe, prompt=CLEAN)

    def fail(*_args):
        raise RuntimeError("stop")

    with pytest.raises(RuntimeError, match="stop"), mirror.identity([make_face()]):
        sample(pipe, **mirror.prompt(PROMPT), callback_on_step_end=fail)
    assert all(type(linear) is nn.Linear for linear in linears(pipe))
    assert torch.equal(sample(pipe, prompt=CLEAN), stock)
    mirror.detach()
    assert torch.equal(sample(pipe, prompt=CLEAN), stock)


def test_gradients_flow_after_sampling_in_the_same_context(pipe, mirror):
    identity = mirror.encode([make_face()])
    parameter = mirror.layers["0"].conditioned_norm.linear_out.weight.requires_grad_()
    with mirror.identity(identity):
        sample(pipe, **mirror.prompt(PROMPT))
        pipe.transformer(**make_inputs(batch=1)).sample.sum().backward()
    assert parameter.grad.any()


def test_no_factor_is_computed_inside_the_loop(pipe, mirror):
    calls = []
    for block in pipe.transformer.transformer_blocks:
        modules = [block.base.norm1.linear, block.base.norm2.linear]
        modules += [] if block.block_adapter is None else list(block.block_adapter.modules())
        for module in modules:
            module.register_forward_hook(lambda module, _args, _output: calls.append(module))
    per_step = []

    def look(_pipe, _step, _timestep, tensors):
        per_step.append([type(module).__name__ for module in calls])
        calls.clear()
        return tensors

    with mirror.identity([make_face()]):
        sample(pipe, **mirror.prompt(PROMPT), callback_on_step_end=look)
    assert "Linear" in per_step[0]
    assert set(per_step[1]) == {"PackedFaceAttention"}


@pytest.mark.filterwarnings("ignore:torch.meshgrid")  # diffusers' own call
def test_caches_that_halve_the_batch_find_the_conditional_rows(pipe, mirror):
    with mirror.identity([make_face()]):
        encoded = mirror.prompt(PROMPT)
        pipe.transformer.enable_cache(
            FasterCacheConfig(
                spatial_attention_block_skip_range=2, is_guidance_distilled=False,
                current_timestep_callback=lambda: int(pipe.current_timestep),
                tensor_format="BFCHW",
                unconditional_batch_skip_range=2, unconditional_batch_timestep_skip_range=(-1, 1000),
            )
        )  # fmt: skip
        assert sample(pipe, **encoded, num_inference_steps=4).isfinite().all()
        pipe.transformer.disable_cache()


def test_a_window_suits_the_first_block_cache(pipe, mirror):
    pipe.transformer.enable_cache(FirstBlockCacheConfig(threshold=1e9))
    with mirror.identity([make_face()], end=0.5):
        assert sample(pipe, **mirror.prompt(PROMPT)).isfinite().all()
    pipe.transformer.disable_cache()


def test_inference_mode_leaves_parameters_that_can_learn(pipe, mirror):
    with torch.inference_mode(), mirror.identity(mirror.encode([make_face()])):
        sample(pipe, **mirror.prompt(PROMPT))
    assert not any(parameter.is_inference() for parameter in (*mirror.parameters(), *pipe.transformer.parameters()))


def test_another_transformer_is_not_touched(pipe, mirror):
    other = make_transformer()
    with mirror.identity([make_face()]):
        sample(pipe, **mirror.prompt(PROMPT))
        assert not any(isinstance(module, CachedLinear) for module in other.modules())
