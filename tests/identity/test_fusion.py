import math

import pytest
import torch
from torch.testing import assert_close

from likeness.errors import ConfigError
from likeness.identity.shape_fusion import FusionTransformer, ResConv1D


def naive_norm(norm, x):
    mean = x.mean(-1, keepdim=True)
    variance = (x - mean).square().mean(-1, keepdim=True)
    return (x - mean) / (variance + 1e-5).sqrt() * norm.weight + norm.bias


def naive_layer(layer, x):
    width = x.shape[-1]
    query, key, value = (naive_norm(layer.norm1, x) @ layer.to_qkv.weight.T).split(width, dim=-1)
    head = width // layer.num_heads
    heads = []
    for start in range(0, width, head):
        q, k, v = (part[..., start : start + head] for part in (query, key, value))
        heads.append(torch.softmax(q @ k.transpose(1, 2) / math.sqrt(head), dim=-1) @ v)
    x = x + torch.cat(heads, dim=-1) @ layer.to_out.weight.T + layer.to_out.bias
    first, _, last = layer.feed_forward
    hidden = naive_norm(layer.norm2, x) @ first.weight.T + first.bias
    hidden = hidden * 0.5 * (1 + torch.erf(hidden / math.sqrt(2)))
    return x + hidden @ last.weight.T + last.bias


def test_fusion_matches_equation_f5_step_by_step():
    torch.manual_seed(0)
    fusion = FusionTransformer(8, depth=2, num_heads=2).double()
    vertices, face = torch.randn(2, 5, 8).double(), torch.randn(2, 3, 8).double()
    x = torch.cat([vertices, face], dim=1)
    for layer in fusion.layers:
        x = naive_layer(layer, x)
    assert_close(fusion(vertices, face), x[:, :5])
    assert fusion(None, face).shape == (2, 3, 8)


def naive_conv(conv, x, stride):
    kernel = conv.weight.shape[-1]
    padded = torch.nn.functional.pad(x, (kernel // 2, kernel // 2))
    starts = range(0, padded.shape[-1] - kernel + 1, stride)
    steps = [torch.einsum("oik,bik->bo", conv.weight, padded[..., start : start + kernel]) for start in starts]
    return torch.stack(steps, dim=-1) + conv.bias[:, None]


def naive_normed(layer, x, stride):
    x = naive_conv(layer.conv1d, x, stride)
    groups = x.unflatten(1, (layer.group_norm.num_groups, -1))
    mean = groups.mean(dim=(2, 3), keepdim=True)
    variance = (groups - mean).square().mean(dim=(2, 3), keepdim=True)
    x = ((groups - mean) / (variance + 1e-5).sqrt()).flatten(1, 2)
    x = x * layer.group_norm.weight[:, None] + layer.group_norm.bias[:, None]
    return x * torch.tanh(torch.log1p(x.exp()))


@pytest.mark.parametrize(("strides", "length"), [((1, 1, 1, 1), 21), ((4, 4, 2, 2), 1)], ids=["kept", "strided"])
def test_residual_convolutions_match_equation_f6_as_loops(strides, length):
    torch.manual_seed(0)
    layer = ResConv1D(4, (4, 8, 8, 16), strides=strides, num_groups=2).double()
    tokens = torch.randn(2, 21, 4).double()
    x = tokens.transpose(1, 2)
    for block, stride in zip(layer.blocks, strides, strict=True):
        inner = naive_normed(block.conv_out, naive_normed(block.conv_in, x, stride), 1)
        x = inner + naive_conv(block.residual_conv, x, stride)
    assert_close(layer(tokens), x.transpose(1, 2))
    assert layer(tokens).shape == (2, length, 16)


def test_sizes_of_the_paper_and_of_the_released_code():
    with torch.device("meta"):
        fusion = FusionTransformer(128, depth=6, num_heads=4)
        kept = ResConv1D.to_width(128, 2048)
        strided = ResConv1D(128, (256, 512, 1024, 2048), strides=(4, 4, 2, 2))
    assert sum(parameter.numel() for parameter in fusion.parameters()) == 792_576
    counts = {sum(parameter.numel() for parameter in layer.parameters()) for layer in (kept, strided)}
    assert len(counts) == 1
    assert counts.pop() / 1e6 == pytest.approx(34.106, abs=5e-4)
    assert kept(torch.empty(1, 314, 128, device="meta")).shape == (1, 314, 2048)
    lengths, x = [], torch.empty(1, 128, 5023, device="meta")
    for block in strided.blocks:
        x = block(x)
        lengths.append(x.shape[-1])
    assert lengths == [1256, 314, 157, 79]


def test_widths_that_do_not_fit_are_refused():
    with pytest.raises(ConfigError, match="divisible by 8"):
        ResConv1D(4, (8, 8, 8, 12))
    with pytest.raises(ConfigError, match="do not divide"):
        FusionTransformer(9, depth=1, num_heads=2)
