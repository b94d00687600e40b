"""Two processes over gloo make the video of one."""

import pytest
from composing.processes import PROCESSES, context_parallel, over_processes

from likeness.adapters.diffusers.parallel import (
    disable_guidance_parallel,
    enable_context_parallel,
    enable_guidance_parallel,
)
from likeness.errors import ConfigError


@pytest.mark.parametrize("name", PROCESSES)
def test_two_processes_agree_with_one(even_subject, name):
    assert over_processes(even_subject, PROCESSES[name]) <= 1e-5


@pytest.mark.slow
def test_tokens_that_cannot_be_shared_evenly_are_shared_unevenly(subject):
    assert over_processes(subject, lambda pipe: context_parallel(pipe, ulysses_anything=True)) <= 1e-5


@pytest.mark.slow
def test_tokens_that_cannot_be_shared_evenly_are_refused_otherwise(subject):
    with pytest.raises(RuntimeError, match=r"3 face tokens.*ulysses_anything"):
        over_processes(subject, context_parallel)


@pytest.mark.slow
def test_a_cache_that_decides_by_its_tokens_is_refused(even_subject):
    from diffusers import FirstBlockCacheConfig

    def switch(pipe):
        context_parallel(pipe)
        pipe.transformer.enable_cache(FirstBlockCacheConfig())

    with pytest.raises(RuntimeError, match="split over processes"):
        over_processes(even_subject, switch)


@pytest.mark.slow
def test_guidance_parallel_can_be_taken_off(even_subject):
    def switch(pipe):
        enable_guidance_parallel(pipe)
        disable_guidance_parallel(pipe)

    assert over_processes(even_subject, switch) == 0


def test_one_process_gets_instructions_to_start_more(subject):
    from diffusers import ContextParallelConfig

    pipe = subject.pipe()
    subject.method(pipe).attach(pipe)
    with pytest.raises(ConfigError, match="torchrun"):
        enable_guidance_parallel(pipe)
    with pytest.raises(ConfigError, match="torchrun"):
        enable_context_parallel(pipe.transformer, ContextParallelConfig(ulysses_degree=2))
