"""Who takes which parameter, and that Muon moves a kernel as it moves the matrix that the kernel is."""

import pytest
import torch
from torch import nn

from likeness.training.engine import checkpoints
from likeness.training.engine.optimizers import Float32Muon, Optimizers, OptimizerSettings, orthogonalize

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
    optimizers = Optimizers({"model": model}, SETTINGS)
    plain = type(optimizers.optimizers["muon"])(
        [matrix], lr=SETTINGS.muon_learning_rate, weight_decay=0.0, adjust_lr_fn="match_rms_adamw"
    )
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
        for group in optimizers.optimizers.get("muon", optimizers.optimizers["adamw"]).param_groups
        for p in group["params"]
    ]
    assert (torch.Size([6, 108]) in taken) == kernels
    assert torch.Size([4, 27]) not in taken
    assert [p.ndim for p in optimizers.optimizers["adamw"].param_groups[0]["params"]] == ([5] if kernels else [5, 5])


def test_kernels_go_on_from_what_was_saved():
    straight, resumed = convolutions(), convolutions()
    first = Optimizers({"model": straight}, SETTINGS)
    for seed in (1, 2):
        take_a_step(straight, first, seed)
    second = Optimizers({"model": resumed}, SETTINGS)
    take_a_step(resumed, second, 1)
    again = Optimizers({"model": resumed}, SETTINGS)
    for name, part in again.optimizers.items():
        checkpoints.unpack_optimizer(part, checkpoints.pack_optimizer(second.optimizers[name]))
    take_a_step(resumed, again, 2)
    assert torch.equal(straight.hidden.weight, resumed.hidden.weight)
    assert torch.equal(straight.conv_in.weight, resumed.conv_in.weight)


def test_wide_muon_goes_where_torchs_goes():
    begin = [torch.randn(shape, generator=torch.Generator().manual_seed(0)) for shape in ((8, 8), (24, 6), (5, 20))]
    ends, states = [], []
    for kind in (torch.optim.Muon, Float32Muon):
        parameters = [nn.Parameter(matrix.clone()) for matrix in begin]
        muon = kind(parameters, lr=1e-2, weight_decay=0.1, adjust_lr_fn="match_rms_adamw")
        generator = torch.Generator().manual_seed(1)
        for _ in range(4):
            for parameter in parameters:
                parameter.grad = torch.randn(parameter.shape, generator=generator)
            muon.step()
        ends.append(parameters)
        states.append(muon.state_dict()["state"])
    for start, theirs, ours in zip(begin, *ends, strict=True):
        assert (theirs - ours).norm() < 0.02 * (theirs - start).norm()  # It rounds to eight bits.
    for number, state in states[0].items():  # So that a run can go on on another machine.
        torch.testing.assert_close(states[1][number]["momentum_buffer"], state["momentum_buffer"])


@pytest.mark.parametrize("shape", [(6, 6), (12, 4), (4, 12)])
def test_orthogonalized_matrices_turn_and_hardly_stretch(shape):
    matrix = torch.randn(shape, generator=torch.Generator().manual_seed(0))
    settings = torch.optim.Muon([nn.Parameter(matrix)]).param_groups[0]
    turned = orthogonalize(matrix, settings["ns_coefficients"], settings["ns_steps"], settings["eps"])
    u, _, v = torch.linalg.svd(matrix, full_matrices=False)
    stretched = torch.linalg.svdvals(u.T @ turned @ v.T)
    assert 0.5 < stretched.min() <= stretched.max() < 1.3
    assert (u.T @ turned @ v.T - torch.diag((u.T @ turned @ v.T).diagonal())).abs().max() < 1e-4


@pytest.mark.parametrize(("is_able", "kind"), [(True, torch.optim.Muon), (False, Float32Muon)])
def test_muon_is_torchs_where_the_processor_multiplies_bfloat16(monkeypatch, is_able, kind):
    monkeypatch.setattr(torch.cpu, "_is_amx_tile_supported", lambda: is_able)
    monkeypatch.setattr(torch.cpu, "_is_avx512_bf16_supported", lambda: False)
    assert type(Optimizers({"model": nn.Linear(4, 4)}, SETTINGS).optimizers["muon"]) is kind
