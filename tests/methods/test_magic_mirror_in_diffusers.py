import pytest
import torch
from diffusers import FirstBlockCacheConfig, MagCacheConfig
from diffusers.hooks.group_offloading import _is_group_offload_enabled
from miniature import PROMPT, make_face, make_inputs, make_mirror, random_identity, sample

from likeness.adapters.diffusers.compatibility import suspended_group_offload
from likeness.backbones.attention import use_dispatch
from likeness.errors import ConfigError


@pytest.mark.parametrize(
    "config",
    [FirstBlockCacheConfig(threshold=1e9), MagCacheConfig(mag_ratios=torch.ones(4), num_inference_steps=4)],
    ids=["first block", "magnitude"],
)
def test_caches_of_diffusers_work_on_adapted_blocks(pipe, mirror, config):
    with mirror.identity([make_face()]):
        encoded = mirror.prompt(PROMPT)
        plain = sample(pipe, **encoded)
        pipe.transformer.enable_cache(config)
        with pytest.raises(ConfigError, match="disable_cache"):
            mirror.detach()
        cached = sample(pipe, **encoded)
        pipe.transformer.disable_cache()
        assert cached.isfinite().all()
        assert torch.equal(sample(pipe, **encoded), plain)


def test_first_block_cache_that_never_skips_changes_nothing(pipe, mirror):
    with mirror.identity([make_face()]):
        encoded = mirror.prompt(PROMPT)
        plain = sample(pipe, **encoded)
        pipe.transformer.enable_cache(FirstBlockCacheConfig(threshold=0.0))
        assert torch.equal(sample(pipe, **encoded), plain)


@pytest.mark.parametrize("kind", ["leaf_level", "block_level"])
def test_group_offload_of_diffusers_changes_nothing(transformer, kind):
    mirror = make_mirror(transformer).attach(transformer)
    identity, inputs = random_identity(mirror), make_inputs()
    with torch.no_grad(), mirror.conditioned(identity):
        plain = transformer(**inputs).sample
        transformer.enable_group_offload(
            onload_device=torch.device("cpu"),
            offload_type=kind,
            num_blocks_per_group=1 if kind == "block_level" else None,
        )
        assert torch.equal(transformer(**inputs).sample, plain)


def test_group_offload_is_enabled_again_where_replacing_the_blocks_fails(transformer):
    transformer.enable_group_offload(onload_device=torch.device("cpu"), offload_type="leaf_level")

    def replace_blocks() -> None:
        with suspended_group_offload(transformer):
            assert not _is_group_offload_enabled(transformer)
            raise ConfigError("no block")

    with pytest.raises(ConfigError, match="no block"):
        replace_blocks()
    assert _is_group_offload_enabled(transformer)


@pytest.mark.usefixtures("mirror")
def test_fused_projections_are_refused_instead_of_dropping_the_face(pipe):
    with pytest.raises(ValueError, match="not supported"):
        pipe.transformer.fuse_qkv_projections()


def test_attention_backend_reaches_the_adapted_layers(pipe, mirror):
    pipe.transformer.set_attention_backend("native")
    attentions = [module for layer in mirror.layers.values() for module in (layer.attention, layer.packed_attention)]
    assert all(attention.processor._attention_backend == "native" for attention in attentions)


@pytest.mark.parametrize("is_dispatched", [True, False])
def test_detach_restores_the_processors_that_attach_found(transformer, is_dispatched):
    if is_dispatched:
        use_dispatch(transformer)
    before = list(transformer.attn_processors.values())
    make_mirror(transformer).attach(transformer).detach()
    assert all(a is b for a, b in zip(transformer.attn_processors.values(), before, strict=True))
