import pytest
import torch
from torch.testing import assert_close

from likeness.errors import ConfigError
from likeness.identity.convolution import ConvolutionFeatures
from likeness.identity.recognizer import Recognizer


def test_features_are_the_recognizers_before_its_narrowest_layers():
    torch.manual_seed(0)
    recognizer = Recognizer(128, (8, 16, 32, 40), 64)
    encoder = ConvolutionFeatures(32, depth=3, num_heads=1, image_size_px=64, patch_size_px=8)
    encoder.load_state_dict(
        {name: value for name, value in recognizer.state_dict().items() if name in encoder.state_dict()}
    )
    pixels = torch.rand(2, 3, 64, 64) * 2 - 1
    tokens = encoder(pixels).last
    assert tokens.shape == (2, 1 + 64, 32)
    assert_close(tokens[:, 1:].mT.unflatten(2, (8, 8)), recognizer.layers[:9](pixels))
    assert_close(tokens[:, 0], tokens[:, 1:].mean(dim=1))


@pytest.mark.parametrize(("width", "depth", "patch_size_px"), [(32, 2, 8), (32, 3, 12), (30, 3, 8)])
def test_sizes_that_do_not_fit_are_refused(width, depth, patch_size_px):
    with pytest.raises(ConfigError, match="take 3, 8 and 96"):
        ConvolutionFeatures(width, depth=depth, num_heads=1, image_size_px=64, patch_size_px=patch_size_px)
