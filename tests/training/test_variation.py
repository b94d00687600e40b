import torch
from torch.testing import assert_close

from likeness.training.variation import VariationSettings, varied

STILL = VariationSettings(turn_deg=0, scale=0, shift=0, light=0)


def test_with_all_spreads_at_zero_pictures_are_as_they_were_or_mirrored():
    torch.manual_seed(0)
    pictures = torch.rand(16, 3, 12, 12) * 2 - 1
    seen = varied(pictures, STILL)
    is_mirrored = [
        bool((one - own.flip(-1)).abs().max() < 1e-5) for one, own in zip(seen, pictures, strict=True)
    ]
    assert 2 < sum(is_mirrored) < 14
    for one, own, mirrored in zip(seen, pictures, is_mirrored, strict=True):
        assert_close(one, own.flip(-1) if mirrored else own)


def test_each_spread_changes_pictures_and_colors_stay_in_range():
    pictures = torch.rand(8, 3, 12, 12) * 2 - 1
    for name in ("turn_deg", "scale", "shift", "light"):
        settings = STILL.model_copy(update={name: 20.0 if name == "turn_deg" else 0.5})
        torch.manual_seed(1)
        seen = varied(pictures, settings)
        torch.manual_seed(1)
        assert (seen - varied(pictures, STILL)).abs().mean() > 0.05, name
        assert seen.abs().max() <= 1
