import pytest
import torch

from likeness import runtime
from likeness.errors import ConfigError, ResourceError


def test_auto_on_a_machine_without_gpu_is_float32_on_cpu():
    cpu = runtime.choose_device("cpu")
    assert runtime.choose_dtype("auto", cpu) is torch.float32
    assert runtime.choose_dtype("bfloat16", cpu) is torch.bfloat16


def test_unknown_names_are_refused():
    with pytest.raises(ConfigError, match="cuda:N"):
        runtime.choose_device("gpu please")
    with pytest.raises(ConfigError, match="float32"):
        runtime.choose_dtype("float8", torch.device("cpu"))


def test_a_device_that_is_not_there_is_a_resource_error():
    with pytest.raises(ResourceError, match="CUDA devices"):
        runtime.choose_device("cuda:99")


def test_the_same_seed_gives_the_same_numbers():
    first = torch.rand(3, generator=runtime.seed_everything(7)), torch.rand(3)
    second = torch.rand(3, generator=runtime.seed_everything(7)), torch.rand(3)
    assert torch.equal(first[0], second[0])
    assert torch.equal(first[1], second[1])


def test_the_machine_is_described():
    facts = runtime.describe_machine()
    assert facts["num_cores"] >= 1
    assert facts["memory_bytes"] > 0
