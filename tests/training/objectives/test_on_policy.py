import pytest
import torch
from torch.testing import assert_close

from likeness.training.objectives.diffusion import noisy_and_velocity
from likeness.training.objectives.on_policy import roll_out, timestep_at_alpha_bar

ALPHA_BARS = torch.linspace(0.99, 0.01, 1000)


@pytest.mark.parametrize("steps", [1, 4])
def test_an_exact_denoiser_arrives_at_the_clip_with_its_first_noise(steps):
    torch.manual_seed(0)
    clean, noise = torch.randn(2, 3, 4, 5, 5, 5)
    begins, ends = torch.full((3,), 900), torch.tensor([100, 400, 900])
    noisy, _ = noisy_and_velocity(clean, noise, ALPHA_BARS[begins])
    seen = []

    def denoise(_, timesteps):
        seen.append(timesteps.tolist())
        return noisy_and_velocity(clean, noise, ALPHA_BARS[timesteps])[1]

    arrived = roll_out(denoise, noisy, begins, ends, ALPHA_BARS, steps=steps)
    assert_close(arrived, noisy_and_velocity(clean, noise, ALPHA_BARS[ends])[0])
    assert seen[0] == [900, 900, 900]
    assert len(seen) == steps
    assert all(mine[2] == 900 for mine in seen)  # Whoever is there already stays.


def test_every_step_gets_the_latents_of_the_one_before():
    latents_seen = []

    def denoise(latents, _):
        latents_seen.append(latents)
        return torch.ones_like(latents)

    roll_out(denoise, torch.zeros(1, 1, 1, 1, 1), torch.tensor([800]), torch.tensor([200]), ALPHA_BARS, steps=3)
    assert len({float(latents.sum()) for latents in latents_seen}) == 3


def test_the_timestep_of_a_share_of_signal():
    shares = torch.tensor([0.03, 0.5, 2.0])
    few, half, none = timestep_at_alpha_bar(shares, ALPHA_BARS).tolist()
    assert none == 0
    for step, share in ((few, 0.03), (half, 0.5)):
        assert ALPHA_BARS[step] >= share > ALPHA_BARS[step + 1]
