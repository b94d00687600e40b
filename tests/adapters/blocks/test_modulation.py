import pytest
import torch
from diffusers.models.normalization import CogVideoXLayerNormZero
from torch.testing import assert_close

from likeness.adapters.blocks.modulation import ConditionedNorm, FaceModulation, modulate

WIDTH, TIME, IDENTITY = 6, 4, 3


def randomize(module):
    torch.manual_seed(1)
    for parameter in module.parameters():
        torch.nn.init.normal_(parameter)
    return module.double()


def silu(x):
    return x / (1 + torch.exp(-x))


def make_norm(**options) -> ConditionedNorm:
    torch.manual_seed(0)
    return ConditionedNorm(WIDTH, identity_width=IDENTITY, time_width=TIME, hidden_width=5, **options)


def test_face_modulation_is_equation_5_a_two_layer_mlp_with_six_factors():
    layer = randomize(FaceModulation(WIDTH, TIME))
    time = torch.randn(2, TIME).double()
    for row in range(2):
        hidden = layer.linear_in.weight @ silu(time[row]) + layer.linear_in.bias
        factors = layer.linear_out.weight @ silu(hidden) + layer.linear_out.bias
        attention, feed_forward = layer(time)
        assert_close(torch.cat([attention[row], feed_forward[row]]), factors)
    assert attention.shape == feed_forward.shape == (2, 3 * WIDTH)


def test_conditioned_norm_is_equation_6_with_twelve_factors():
    layer = randomize(make_norm())
    identity, time, shift = (torch.randn(2, width).double() for width in (IDENTITY, TIME, WIDTH))
    attention, feed_forward = layer(identity, time, shift)
    for row in range(2):
        x = torch.cat([identity[row], time[row], shift[row]])
        factors = layer.linear_out.weight @ silu(layer.linear_in.weight @ x + layer.linear_in.bias)
        factors = factors + layer.linear_out.bias
        assert_close(torch.cat([attention[row], feed_forward[row]]), factors)
    assert attention.shape == feed_forward.shape == (2, 6 * WIDTH)


def test_shift_and_gate_leave_every_scale_alone():
    layer = randomize(make_norm(factors="shift+gate"))
    parts = layer(*(torch.randn(2, width).double() for width in (IDENTITY, TIME, WIDTH)))
    for part in parts:
        shift, scale, gate, text_shift, text_scale, text_gate = part.chunk(6, dim=1)
        assert not scale.any()
        assert not text_scale.any()
        assert all(x.any() for x in (shift, gate, text_shift, text_gate))


def test_without_time_the_factors_are_constant_for_a_person():
    layer = randomize(make_norm(reads_time=False))
    identity = torch.randn(1, IDENTITY).double()
    first, second = (layer(identity, torch.randn(1, TIME).double(), torch.randn(1, WIDTH).double()) for _ in "ab")
    assert torch.equal(first[0], second[0])


@pytest.mark.parametrize("factors", ["shift+gate", "shift+scale+gate"])
def test_new_predictors_start_at_zero(factors):
    norm = make_norm(factors=factors)
    parts = [*norm(*(torch.randn(2, width) for width in (IDENTITY, TIME, WIDTH)))]
    parts += FaceModulation(WIDTH, TIME)(torch.randn(2, TIME))
    assert not any(part.any() for part in parts)


def test_no_gradient_goes_back_through_the_distribution_identifier():
    shift = torch.randn(1, WIDTH, requires_grad=True)
    identity = torch.randn(1, IDENTITY, requires_grad=True)
    layer = randomize(make_norm()).float()
    layer(identity, torch.randn(1, TIME), shift)[0].sum().backward()
    assert shift.grad is None
    assert identity.grad is not None


def test_matches_diffusers_norm_in_order_and_meaning_of_chunks():
    base = randomize(CogVideoXLayerNormZero(TIME, WIDTH))
    video, text, time = (torch.randn(2, *shape).double() for shape in ((5, WIDTH), (3, WIDTH), (TIME,)))
    shift, scale, gate, text_shift, text_scale, text_gate = base.linear(base.silu(time)).chunk(6, dim=1)
    expected = base(video, text, time)
    assert torch.equal(modulate(base.norm(video), shift, scale), expected[0])
    assert torch.equal(modulate(base.norm(text), text_shift, text_scale), expected[1])
    assert torch.equal(gate[:, None], expected[2])
    assert torch.equal(text_gate[:, None], expected[3])
