import math

import pytest
import torch
from torch.testing import assert_close

from likeness.errors import PromptError
from likeness.identity.fuse import IdentityFuse, identity_token_indices


def make(text_width=6, identity_width=4) -> IdentityFuse:
    torch.manual_seed(0)
    return IdentityFuse(text_width, identity_width).double()


def trained(fuse: IdentityFuse) -> IdentityFuse:
    torch.nn.init.normal_(fuse.layer_norm.weight)
    torch.nn.init.normal_(fuse.layer_norm.bias)
    return fuse


def mask_of(*rows):
    return torch.tensor(rows, dtype=torch.bool)


def layer_norm(x, norm):
    return (x - x.mean()) / (((x - x.mean()) ** 2).mean() + norm.eps).sqrt() * norm.weight + norm.bias


def step(x, mlp):
    hidden = mlp.fc1.weight @ layer_norm(x, mlp.layernorm) + mlp.fc1.bias
    hidden = hidden * 0.5 * (1 + torch.erf(hidden / math.sqrt(2)))
    return mlp.fc2.weight @ hidden + mlp.fc2.bias


def test_matches_equation_4_written_as_loops():
    fuse = trained(make())
    text, identity = torch.randn(2, 5, 6).double(), torch.randn(2, 2, 4).double()
    mask = mask_of([0, 1, 1, 0, 0], [0, 0, 0, 1, 1])

    expected = text.clone()
    for row in range(2):
        token = 0
        for position in range(5):
            if mask[row, position]:
                word = text[row, position]
                x = step(torch.cat([word, identity[row, token]]), fuse.mlp1) + word
                x = step(x, fuse.mlp2) + x
                expected[row, position] = word + layer_norm(x, fuse.layer_norm)
                token += 1

    assert_close(fuse(text, mask, identity), expected, rtol=1e-12, atol=1e-12)


def test_untrained_fuse_leaves_the_text():
    fuse, text = make(), torch.randn(1, 3, 6).double()
    assert torch.equal(fuse(text, mask_of([0, 1, 1]), torch.randn(1, 2, 4).double()), text)


def test_input_is_never_changed():
    fuse, text = trained(make()), torch.randn(1, 3, 6).double()
    before = text.clone()
    assert not torch.equal(fuse(text, mask_of([0, 1, 1]), torch.randn(1, 2, 4).double()), text)
    assert torch.equal(text, before)


def test_scale_interpolates_between_text_and_fused_text():
    fuse, text, identity = trained(make()), torch.randn(1, 3, 6).double(), torch.randn(1, 2, 4).double()
    mask = mask_of([0, 1, 1])
    full, half = fuse(text, mask, identity), fuse(text, mask, identity, scale=0.5)
    assert_close(half, (text + full) / 2)
    assert fuse(text, mask, identity, scale=0.0) is text


def test_rows_are_independent_and_unmarked_rows_stay():
    fuse, text, identity = trained(make()), torch.randn(3, 4, 6).double(), torch.randn(3, 2, 4).double()
    mask = mask_of([0, 1, 1, 0], [0, 0, 0, 0], [1, 1, 1, 1])
    together = fuse(text, mask, identity)
    assert torch.equal(together[1], text[1])
    for row in (0, 2):
        alone = fuse(text[row : row + 1], mask[row : row + 1], identity[row : row + 1])
        assert_close(together[row], alone[0])


def test_copies_of_a_word_of_several_pieces_share_one_token_each():
    mask = mask_of([0, 1, 1, 1, 1, 1, 1, 0])  # a word of three pieces, written twice
    assert identity_token_indices(mask, 2)[0, 1:7].tolist() == [0, 0, 0, 1, 1, 1]


def test_mask_of_another_number_of_references_is_refused():
    with pytest.raises(PromptError, match="two positions for each"):
        make()(torch.randn(1, 4, 6).double(), mask_of([0, 1, 1, 0]), torch.randn(1, 4, 4).double())


def test_gradients_reach_both_inputs_and_start_at_the_gain():
    fuse = make()
    text, identity = torch.randn(1, 3, 6).double(), torch.randn(1, 2, 4).double()
    fuse(text, mask_of([0, 1, 1]), identity).square().sum().backward()
    assert fuse.layer_norm.weight.grad.any()
