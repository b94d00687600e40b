import math

import pytest

from likeness.adapters.conditioning.identity_settings import IdentitySettings
from likeness.errors import ConfigError


@pytest.mark.parametrize("blocks", [range(10**15), range(0, 10**15, 2), range(-(10**15), 3)])
def test_a_range_beyond_the_transformer_is_refused_at_once(blocks):
    with pytest.raises(ConfigError, match="the transformer has blocks 0 to 41"):
        IdentitySettings(blocks=blocks).active_blocks(range(42), 42)


@pytest.mark.parametrize("scale", [math.nan, math.inf, -0.5])
def test_a_scale_that_is_no_finite_number_from_zero_is_refused(scale):
    with pytest.raises(ConfigError, match="finite number from 0"):
        IdentitySettings(scale=scale)
