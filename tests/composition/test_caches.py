"""Caches that really skip: they do, the video stays near, and a detached method leaves the stock pipeline's cache."""

import pytest
import torch
from composing.calls import detached, identity_effect, skipping, skipping_stock
from composing.features import CACHES, cache_configs

BOUNDS = {
    "first_block_cache": 0.17,
    "taylorseer": 0.022,
    "magcache": 0.13,
    "pyramid_attention_broadcast": 0.09,
    "fastercache": 0.13,
}
"""Largest effect of a cache on an adapted video, relative to the effect of the identity. With random weights the latter
is more than twice the video's own size, and differs from method to method."""
pytestmark = pytest.mark.filterwarnings("ignore:(?s).*(meshgrid|indexing argument)")


@pytest.fixture(scope="module")
def effect():
    """The effect of the identity, computed once for each method."""
    return {}


@pytest.mark.parametrize("name", CACHES)
def test_it_skips_and_stays_near(subject, effect, name):
    apart, share = skipping(subject, name)
    if not effect:
        effect[""] = identity_effect(subject)
    assert 0 < apart <= BOUNDS[name] * effect[""]
    assert 0 < skipping_stock(subject, name) <= BOUNDS[name]
    assert share < 0.9


@pytest.mark.parametrize("name", CACHES)
def test_a_detached_method_leaves_the_stock_cache_bit_for_bit(subject, name):
    assert detached(subject, name) == 0


@pytest.mark.parametrize(
    "name",
    ["first_block_cache", *[pytest.param(name, marks=pytest.mark.slow) for name in CACHES[1:]]],
)
def test_a_window_of_steps_and_a_cache_go_together(subject, name):
    """An identity that begins or ends in between never gets cached values of other shapes."""
    pipe = subject.pipe()
    method = subject.method(pipe).attach(pipe)
    person = subject.identity(method)

    def sample():
        with method.identity(person, start=0.3, end=0.8):
            prompts = method.prompt(subject.prompt)
            generator = torch.Generator().manual_seed(0)
            return pipe(**prompts, **subject.options, num_inference_steps=4, generator=generator,
                        output_type="latent").frames  # fmt: skip

    plain = sample()
    pipe.transformer.enable_cache(cache_configs(pipe)[name])
    assert (sample() - plain).abs().max() <= 1e-5
    pipe.transformer.disable_cache()
    pipe.transformer.enable_cache(cache_configs(pipe, subject)[name])
    assert sample().isfinite().all()
