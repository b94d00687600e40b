import pytest
import torch
from diffusers import CogVideoXDDIMScheduler

from likeness.backbones.tiny import build_scheduler
from likeness.errors import ConfigError
from likeness.generation.sampling.sample import check_steps


def sample(steps: int) -> float:
    """How far from the clip the solver ends with a model that is wrong by another hundredth in every step."""
    scheduler = build_scheduler()
    scheduler.set_timesteps(steps)
    clean = torch.randn(4, 8, generator=torch.Generator().manual_seed(0))
    random = torch.Generator().manual_seed(1)
    latents, before = torch.randn(4, 8, generator=random), None
    for place, timestep in enumerate(scheduler.timesteps):
        keep = scheduler.alphas_cumprod[timestep]
        seen = clean + 0.01 * (-1) ** place
        # No network was taught what lies before timestep 0.
        velocity = (keep.sqrt() * latents - seen) / (1 - keep).sqrt() if timestep >= 0 else clean
        back = scheduler.timesteps[place - 1] if place else None
        latents, before = scheduler.step(velocity, before, timestep, back, latents, generator=random, return_dict=False)
    return float((latents - clean).abs().max())


@pytest.mark.parametrize(
    ("steps", "near"),
    [(15, "14 or 16"), (24, "23 or 25"), (48, "47 or 49"), (61, "58 or 62"), (103, "100 or 106")],
)
def test_where_the_solver_goes_astray_the_number_is_refused(steps, near):
    with pytest.raises(ConfigError, match=rf"`steps` is {steps}, in which .* Take {near}"):
        check_steps(build_scheduler(), steps)
    assert sample(steps) > 0.03


@pytest.mark.parametrize("steps", [1, 2, 10, 14, 16, 20, 30, 50])
def test_where_it_comes_to_an_end_the_number_is_fine(steps):
    check_steps(build_scheduler(), steps)
    assert sample(steps) < 0.011


def test_the_nearest_good_numbers_are_named():
    for steps, near in ((18, "16 or 20"), (6, "5 or 8")):
        with pytest.raises(ConfigError, match=f"Take {near}"):
            check_steps(build_scheduler(), steps)


def test_another_solver_has_only_its_own_bad_numbers():
    ddim = CogVideoXDDIMScheduler.from_config(build_scheduler().config)
    check_steps(ddim, 15)
    with pytest.raises(ConfigError, match="Take 60 or 62"):
        check_steps(ddim, 61)
    check_steps(object(), 61)  # Of a scheduler that is not CogVideoX's nothing is known.
