"""The adapted block against Fig. 4 and Eqs. 5 to 7, written from the paper with loops, in float64."""

import math
from dataclasses import replace

import pytest
import torch
from diffusers.models.transformers.cogvideox_transformer_3d import CogVideoXBlock
from torch.testing import assert_close

from likeness.adapters.blocks.magic_mirror import FaceBlock, FaceLayer
from likeness.adapters.conditioning.condition import CONDITION_KEY, BatchLayout, FaceCondition
from likeness.adapters.conditioning.identity_settings import IdentitySettings
from likeness.errors import ConfigError

HEADS, HEAD_WIDTH, TIME, IDENTITY = 2, 4, 5, 3
WIDTH = HEADS * HEAD_WIDTH
TEXT, FACE, VIDEO = 3, 2, 4


def make_block(*, is_trained=True, **options) -> FaceBlock:
    torch.manual_seed(0)
    base = CogVideoXBlock(WIDTH, HEADS, HEAD_WIDTH, TIME, attention_bias=True)
    layer = FaceLayer(
        WIDTH, time_width=TIME, identity_width=IDENTITY, hidden_width=6, factors="shift+scale+gate", **options
    )
    block = FaceBlock(base, layer).double()
    for parameter in (*base.parameters(), *(layer.parameters() if is_trained else ())):
        torch.nn.init.normal_(parameter, std=0.5)
    return block.eval()


def make_inputs(batch=1):
    torch.manual_seed(2)
    angles = torch.rand(VIDEO, HEAD_WIDTH // 2).double().repeat_interleave(2, dim=1)
    shapes = [(VIDEO, WIDTH), (TEXT, WIDTH), (TIME,)]
    return *(torch.randn(batch, *shape).double() for shape in shapes), (angles.cos(), angles.sin())


def make_condition(batch=1, *, active=None, **settings) -> FaceCondition:
    torch.manual_seed(3)
    identity, face = torch.randn(batch, IDENTITY).double(), torch.randn(batch, FACE, WIDTH).double()
    layout = BatchLayout(num_identities=batch, text_tokens=TEXT, active=active)
    return FaceCondition(identity=identity, face=face, layout=layout, identity_settings=IdentitySettings(**settings))


def run(block, inputs, condition):
    kwargs = None if condition is None else {CONDITION_KEY: condition}
    return block(*inputs, kwargs)


def layer_norm(x, norm):
    return (x - x.mean()) / (((x - x.mean()) ** 2).mean() + norm.eps).sqrt() * norm.weight + norm.bias


def linear(x, layer):
    return layer.weight @ x if layer.bias is None else layer.weight @ x + layer.bias


def silu(x):
    return x / (1 + torch.exp(-x))


def rotate(x, cos, sin):
    """Turn each pair of channels by the angle of its position."""
    turned = torch.empty_like(x)
    for i in range(0, len(x), 2):
        turned[i] = x[i] * cos[i] - x[i + 1] * sin[i]
        turned[i + 1] = x[i + 1] * cos[i + 1] + x[i] * sin[i + 1]
    return turned


def attend(query, keys, values, weights=None):
    logits = torch.stack([query @ key / math.sqrt(HEAD_WIDTH) for key in keys])
    shares = logits.exp() if weights is None else logits.exp() * weights
    shares = shares / shares.sum()
    return sum(share * value for share, value in zip(shares, values, strict=True))


def naive_attention(block, tokens, face_tokens, rope, scale=1.0):
    """Eq. 7: T_SA over text, face and video, plus T_CA to x_face with the shared W_q; then the base's own output."""
    attn, added = block.base.attn1, block.block_adapter.attention
    outputs = [[] for _ in tokens]
    for head in range(HEADS):
        rows = slice(head * HEAD_WIDTH, (head + 1) * HEAD_WIDTH)
        queries = [layer_norm(linear(x, attn.to_q)[rows], attn.norm_q) for x in tokens]
        keys = [layer_norm(linear(x, attn.to_k)[rows], attn.norm_k) for x in tokens]
        values = [linear(x, attn.to_v)[rows] for x in tokens]
        face_keys = [layer_norm(linear(x, added.to_k_face)[rows], attn.norm_k) for x in face_tokens]
        face_values = [linear(x, added.to_v_face)[rows] for x in face_tokens]
        turned_queries, turned_keys = list(queries), list(keys)
        for position in range(VIDEO):
            where = TEXT + FACE + position
            turned_queries[where] = rotate(queries[where], rope[0][position], rope[1][position])
            turned_keys[where] = rotate(keys[where], rope[0][position], rope[1][position])
        weights = torch.ones(len(tokens)).double()
        weights[TEXT : TEXT + FACE] = scale
        for i in range(len(tokens)):
            joint = attend(turned_queries[i], turned_keys, values, weights)
            outputs[i].append(joint + scale * attend(queries[i], face_keys, face_values))
    return [linear(torch.cat(heads), attn.to_out[0]) for heads in outputs]


def naive_block(block, video, text, time, rope, condition, scale=1.0):
    base, layer = block.base, block.block_adapter
    shift = linear(silu(time), base.norm1.linear)[:WIDTH]  # mu1_vid
    hidden = silu(linear(torch.cat([condition.identity[0], time, shift]), layer.conditioned_norm.linear_in))
    added = linear(hidden, layer.conditioned_norm.linear_out) * scale  # Eq. 6
    m_face = linear(silu(linear(silu(time), layer.face_norm.linear_in)), layer.face_norm.linear_out)  # Eq. 5
    streams = [*text, *condition.face[0], *video]
    kinds = ["text"] * TEXT + ["face"] * FACE + ["video"] * VIDEO
    for n, norm in enumerate([base.norm1, base.norm2]):
        factors = linear(silu(time), norm.linear) + added[6 * WIDTH * n : 6 * WIDTH * (n + 1)]
        by_kind = {
            "video": factors[: 3 * WIDTH].split(WIDTH),
            "text": factors[3 * WIDTH :].split(WIDTH),
            "face": m_face[3 * WIDTH * n : 3 * WIDTH * (n + 1)].split(WIDTH),
        }
        modulated = []
        for x, kind in zip(streams, kinds, strict=True):
            mu, sigma, _ = by_kind[kind]
            modulated.append(layer_norm(x, norm.norm) * (1 + sigma) + mu)
        if n == 0:
            outputs = naive_attention(block, modulated, condition.face[0], rope, scale)
        else:
            gelu = torch.nn.GELU(approximate="tanh")
            outputs = [linear(gelu(linear(x, base.ff.net[0].proj)), base.ff.net[2]) for x in modulated]
        streams = [x + by_kind[kind][2] * y for x, kind, y in zip(streams, kinds, outputs, strict=True)]
    streams = torch.stack(streams)
    return streams[TEXT + FACE :], streams[: TEXT + FACE]


@pytest.mark.parametrize("scale", [1.0, 0.4])
@pytest.mark.parametrize(("has_rope", "tolerance"), [(False, 1e-10), (True, 1e-6)])  # diffusers rotates in float32
def test_block_matches_the_paper_written_as_loops(scale, has_rope, tolerance):
    block, condition = make_block(), make_condition(scale=scale)
    x, text, time, rope = make_inputs()
    still = (torch.ones_like(rope[0]), torch.zeros_like(rope[1]))
    with torch.no_grad():
        video, text_and_face = run(block, (x, text, time, rope if has_rope else None), condition)
        expected = naive_block(block, x[0], text[0], time[0], rope if has_rope else still, condition, scale)
    assert_close(video[0], expected[0], rtol=tolerance, atol=tolerance)
    assert_close(text_and_face[0], expected[1], rtol=tolerance, atol=tolerance)


def test_block_without_condition_is_the_base():
    block, inputs = make_block(), make_inputs()
    for output, expected in zip(run(block, inputs, None), block.base(*inputs), strict=True):
        assert torch.equal(output, expected)


def test_scale_near_zero_is_near_the_base():
    block, inputs = make_block(), make_inputs()
    video, text = run(block, inputs, make_condition(scale=1e-9))
    expected = block.base(*inputs)
    assert_close(video, expected[0], atol=1e-6, rtol=0)
    assert_close(text[:, :TEXT], expected[1], atol=1e-6, rtol=0)


def test_untrained_layer_differs_from_the_base_by_the_face_keys_alone():
    block, inputs = make_block(is_trained=False), make_inputs()
    block.block_adapter.attention.to_k_face.weight.data.normal_()  # V is zero, so K cannot matter
    condition = make_condition()
    first = run(block, inputs, condition)[0]
    block.block_adapter.attention.to_k_face.weight.data.normal_()
    assert torch.equal(run(block, inputs, condition)[0], first)
    without_face = make_block(is_trained=False, has_face=False)
    empty = replace(condition, face=condition.face[:, :0])
    assert_close(run(without_face, inputs, empty)[0], without_face.base(*inputs)[0])


def test_rows_without_identity_are_the_base_bit_for_bit():
    block, inputs = make_block(), make_inputs(batch=3)
    condition = make_condition(batch=3, active=(True, False, True))
    video, text = run(block, inputs, condition)
    stock = block.base(*(x[1:2] for x in inputs[:3]), inputs[3])
    assert torch.equal(video[1:2], stock[0])
    assert torch.equal(text[1:2, :TEXT], stock[1])
    for row in (0, 2):
        alone = condition.select([row])
        expected = run(block, (*(x[row : row + 1] for x in inputs[:3]), inputs[3]), alone)
        assert_close(video[row : row + 1], expected[0])
        assert_close(text[row : row + 1], expected[1])


def test_guidance_in_one_pass_conditions_the_second_half_or_both():
    block, inputs = make_block(), make_inputs(batch=4)
    condition = make_condition(batch=2)
    video, _ = run(block, inputs, condition)
    assert torch.equal(video[:2], block.base(*(x[:2] for x in inputs[:3]), inputs[3])[0])
    second = run(block, (*(x[2:] for x in inputs[:3]), inputs[3]), make_condition(batch=2))[0]
    assert_close(video[2:], second)
    both, _ = run(block, inputs, make_condition(batch=2, branch="both"))
    first = run(block, (*(x[:2] for x in inputs[:3]), inputs[3]), make_condition(batch=2))[0]
    assert_close(both, torch.cat([first, second]))


def test_batch_that_fits_no_identity_is_refused():
    with pytest.raises(ConfigError, match="batch of 3, but the identity is for 2: 2 or"):
        run(make_block(), make_inputs(batch=3), make_condition(batch=2))


def test_unadapted_block_lets_the_face_pass_untouched():
    base = make_block().base
    video, text, time, rope = make_inputs()
    condition = make_condition()
    face = torch.randn(1, FACE, WIDTH).double()
    output = run(FaceBlock(base, None), (video, torch.cat([text, face], 1), time, rope), condition)
    expected = base(video, text, time, rope)
    assert torch.equal(output[0], expected[0])
    assert torch.equal(output[1], torch.cat([expected[1], face], 1))


def test_reinjected_face_does_not_depend_on_earlier_layers():
    block = make_block()
    video, text, time, rope = make_inputs()
    condition, carried = make_condition(), torch.randn(1, FACE, WIDTH).double()
    inputs = (video, torch.cat([text, carried], 1), time, rope)
    persistent = run(block, inputs, condition)[0]
    block.reinjects_face = True
    assert_close(run(block, inputs, condition)[0], run(block, (video, text, time, rope), condition)[0])
    assert not torch.allclose(run(block, inputs, condition)[0], persistent)
