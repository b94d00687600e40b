import pytest
import torch
from torch.nn.functional import conv2d
from torch.testing import assert_close

from likeness.errors import ConfigError
from likeness.identity.encoders.abstractor import Abstractor, Bottleneck


def make(**changes) -> Abstractor:
    torch.manual_seed(0)
    sizes = {
        "output_width": 10,
        "num_patches": 64,
        "output_side": 2,
        "hidden_width": 6,
        "depth": 2,
        **changes,
    }
    return Abstractor(8, **sizes).double()


def naive_norm(layer, x):
    mean = x.mean(dim=1, keepdim=True)
    variance = (x - mean).square().mean(dim=1, keepdim=True)
    normed = (x - mean) / (variance + 1e-5).sqrt()
    return normed * layer.weight[:, None, None] + layer.bias[:, None, None]


def swish(x):
    return x / (1 + (-x).exp())


def naive_bottleneck(block, x):
    shortcut = x
    if block.downsample is not None:
        shortcut = naive_norm(block.downsample.bn, conv2d(x, block.downsample.conv.weight))
    x = swish(naive_norm(block.conv1.bn, torch.einsum("oi,biyx->boyx", block.conv1.conv.weight[..., 0, 0], x)))
    padded = torch.nn.functional.pad(x, (1, 1, 1, 1))
    depthwise = torch.zeros_like(x)
    for y in range(3):
        for column in range(3):
            part = padded[..., y : y + x.shape[-2], column : column + x.shape[-1]]
            depthwise += block.conv2.conv.weight[:, 0, y, column][:, None, None] * part
    x = swish(naive_norm(block.conv2.bn, depthwise))
    squeezed = swish(x.flatten(2).mean(-1) @ block.se.fc1.weight[..., 0, 0].T + block.se.fc1.bias)
    gate = 1 / (1 + (-(squeezed @ block.se.fc2.weight[..., 0, 0].T + block.se.fc2.bias)).exp())
    x = x * gate[..., None, None]
    x = naive_norm(block.conv3.bn, torch.einsum("oi,biyx->boyx", block.conv3.conv.weight[..., 0, 0], x))
    return swish(x + shortcut)


@pytest.mark.parametrize("channels", [6, 8])
def test_bottleneck_matches_its_definition(channels):
    torch.manual_seed(1)
    block = Bottleneck(channels, 6).double()
    x = torch.randn(2, channels, 4, 4).double()
    assert_close(block(x), naive_bottleneck(block, x))


def test_abstractor_matches_equation_f2_step_by_step():
    layer = make()
    features = torch.randn(3, 64, 8).double()
    grid = (features + layer.pos_emb).view(3, 8, 8, 8).permute(0, 3, 1, 2)
    for block in layer.net[0]:
        grid = naive_bottleneck(block, grid)
    grid = grid.view(3, 6, 2, 4, 2, 4).mean(dim=(3, 5))  # four by four patches to one
    for block in layer.net[2]:
        grid = naive_bottleneck(block, grid)
    tokens = grid.permute(0, 2, 3, 1).reshape(3, 4, 6)
    first, _, last = layer.readout
    expected = swish(tokens @ first.weight.T + first.bias) @ last.weight.T + last.bias
    assert_close(layer(features), expected)


def test_without_neighbors_each_token_sees_the_patches_of_its_own_place():
    layer = make(depth=1)
    for block in (layer.net[0].b1, layer.net[2].b1):
        torch.nn.init.zeros_(block.se.fc2.weight)
        weight = block.conv2.conv.weight.data
        weight.copy_(weight * torch.zeros(3, 3).index_put_((torch.tensor(1), torch.tensor(1)), torch.tensor(1.0)))
    features = torch.randn(1, 64, 8).double().requires_grad_()
    for token, (top, left) in enumerate([(0, 0), (0, 4), (4, 0), (4, 4)]):
        (gradient,) = torch.autograd.grad(layer(features)[0, token].square().sum(), features)
        influence = gradient.square().sum(-1).view(8, 8)
        assert influence[top : top + 4, left : left + 4].all()
        assert influence.count_nonzero() == 16


def test_paper_size_counts_as_the_published_projector():
    with torch.device("meta"):
        layer = Abstractor(1024, output_width=1024, num_patches=576, output_side=6)
    assert sum(parameter.numel() for parameter in layer.parameters()) == 3_468_352
    shapes = {name: tuple(value.shape) for name, value in layer.state_dict().items()}
    assert shapes["net.0.b1.se.fc1.weight"] == (256, 256, 1, 1)
    assert shapes["net.0.b3.se.fc1.weight"] == (64, 256, 1, 1)
    assert shapes["net.0.b1.downsample.conv.weight"] == (256, 1024, 1, 1)
    assert shapes["net.2.b1.conv2.conv.weight"] == (256, 1, 3, 3)
    assert layer(torch.empty(2, 576, 1024, device="meta")).shape == (2, 36, 1024)


def test_patches_that_are_no_square_are_refused():
    with pytest.raises(ConfigError, match="square number"):
        make(num_patches=60)
