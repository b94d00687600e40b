import torch
from torch import nn
from torch.testing import assert_close

from likeness.backbones.tiny import build_scheduler
from likeness.training.objectives import diffusion


def test_error_of_v_is_the_weighted_error_of_x0():
    torch.manual_seed(0)
    scheduler = build_scheduler()
    alphas_cumprod = scheduler.alphas_cumprod.double()
    clean, noise, guess = (torch.randn(8, 2, 3, 4, 4, dtype=torch.float64) for _ in range(3))
    alpha_bar = alphas_cumprod[torch.arange(100, 900, 100)]
    noisy, velocity = diffusion.noisy_and_velocity(clean, noise, alpha_bar)
    seen = diffusion.velocity_to_x0(noisy, guess, alpha_bar)
    weight = (1 / (1 - alpha_bar)).view(-1, 1, 1, 1, 1)
    assert_close((weight * (seen - clean).square()).mean(), (guess - velocity).square().mean(), rtol=1e-12, atol=0)


def test_noise_and_v_are_the_schedulers():
    scheduler = build_scheduler()
    clean, noise = torch.randn(2, 3, 4, 8, 8), torch.randn(2, 3, 4, 8, 8)
    steps = torch.tensor([30, 700])
    noisy, velocity = diffusion.noisy_and_velocity(clean, noise, scheduler.alphas_cumprod.float()[steps])
    assert_close(noisy, scheduler.add_noise(clean, noise, steps))
    assert_close(velocity, scheduler.get_velocity(clean, noise, steps))
    assert_close(diffusion.velocity_to_x0(noisy, velocity, scheduler.alphas_cumprod.float()[steps]), clean)


def test_the_last_step_is_pure_noise():
    assert build_scheduler().alphas_cumprod[-1] == 0


def test_a_cast_module_learns_in_float32():
    layer = nn.Linear(3, 2)
    output = diffusion.CastParameters(layer, torch.bfloat16)(torch.randn(4, 3).bfloat16())
    output.float().sum().backward()
    assert output.dtype == torch.bfloat16
    assert layer.weight.grad.dtype == torch.float32
    torch.backends.cuda.enable_flash_sdp(True)
