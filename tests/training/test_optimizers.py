"""Who takes which parameter, and that Muon moves a kernel as it moves the matrix that the kernel is."""

import pytest
import torch
from torch import nn

from likeness.training import checkpoints
from likeness.training.optimizers import Optimizers, OptimizerSettings

SETTINGS = OptimizerSettings(kind="muon", kernels=True, warmup_steps=0, max_grad_norm=1e9)


def convolutions():
    torch.manual_seed(0)
    model = nn.Sequential()
    model.add_module("conv_in", nn.Conv3d(1, 4, 3, padding=1))
    model.add_module("hidden", nn.Conv3d(4, 6, 3, padding=1))
    return model


def take_a_step(model, optimizers, seed=1):
    torch.manual_seed(seed)
    model(torch.randn(2, 1, 3, 5, 5)).square().mean().backward()
    optimizers.gradients()
    optimizers.step(step=0, progress=0.0)


def test_a_kernel_moves_as_its_matrix_does():
    model = convolutions()
    matrix = nn.Parameter(model.hidden.weight.detach().flatten(1).clone())
    plain = torch.optim.Muon(
        [matrix], lr=SETTINGS.muon_learning_rate, weight_decay=0.0, adjust_lr_fn="match_rms_adamw"
    )
    optimizers = Optimizers({"model": model}, SETTINGS)
    for seed in (1, 2):
        torch.manual_seed(seed)
        model(torch.randn(2, 1, 3, 5, 5)).square().mean().backward()
        matrix.grad = model.hidden.weight.grad.flatten(1).clone()
        plain.step()
        optimizers.gradients()
        optimizers.step(step=0, progress=0.0)
        torch.testing.assert_close(model.hidden.weight.flatten(1), matrix, rtol=0, atol=1e-7)
        assert model.hidden.weight.grad is None


@pytest.mark.parametrize("kernels", [False, True])
def test_first_and_last_convolutions_are_not_muons(kernels):
    optimizers = Optimizers({"model": convolutions()}, SETTINGS.model_copy(update={"kernels": kernels}))
    taken = [
        p.shape
        for group in optimizers.parts.get("muon", optimizers.parts["adamw"]).param_groups
        for p in group["params"]
    ]
    assert (torch.Size([6, 108]) in taken) == kernels
    assert torch.Size([4, 27]) not in taken
    assert [p.ndim for p in optimizers.parts["adamw"].param_groups[0]["params"]] == (
        [5] if kernels else [5, 5]
    )


def test_kernels_go_on_from_what_was_saved():
    straight, resumed = convolutions(), convolutions()
    first = Optimizers({"model": straight}, SETTINGS)
    for seed in (1, 2):
        take_a_step(straight, first, seed)
    second = Optimizers({"model": resumed}, SETTINGS)
    take_a_step(resumed, second, 1)
    again = Optimizers({"model": resumed}, SETTINGS)
    for name, part in again.parts.items():
        checkpoints.unpack_optimizer(part, checkpoints.pack_optimizer(second.parts[name]))
    take_a_step(resumed, again, 2)
    assert torch.equal(straight.hidden.weight, resumed.hidden.weight)
    assert torch.equal(straight.conv_in.weight, resumed.conv_in.weight)
