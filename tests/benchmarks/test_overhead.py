"""The counter against counts made by hand."""

import sys
from pathlib import Path

import pytest
import torch
import torch.nn.functional as F

ROOT = Path(__file__).parents[2]


@pytest.fixture
def overhead(monkeypatch):
    monkeypatch.syspath_prepend(str(ROOT / "benchmarks"))
    import overhead

    yield overhead
    for name in ("overhead", "claims"):
        sys.modules.pop(name)


def test_counts_products_bytes_and_operators_of_a_linear_layer(overhead):
    with torch.device("meta"):
        layer, x = torch.nn.Linear(8, 4), torch.empty(5, 8)
    cost = overhead.count(lambda: layer(x))
    assert (cost.flops, cost.operators) == (2 * 5 * 8 * 4, 1)
    assert cost.moved_bytes == 4 * (5 * 8 + 8 * 4 + 4 + 5 * 4)


def test_views_are_free_and_copies_are_not(overhead):
    x = torch.empty(6, 4, device="meta")
    assert overhead.count(lambda: x.view(4, 6).transpose(0, 1)[2:]).operators == 0
    cost = overhead.count(lambda: x.transpose(0, 1).contiguous())
    assert (cost.operators, cost.moved_bytes) == (1, 2 * 6 * 4 * 4)


def test_attention_is_one_operator_without_its_scores(overhead):
    query = torch.empty(1, 2, 50, 8, device="meta")
    key = torch.empty(1, 2, 3, 8, device="meta")
    cost = overhead.count(lambda: F.scaled_dot_product_attention(query, key, key))
    assert (cost.operators, cost.flops) == (1, 2 * 2 * 2 * 50 * 3 * 8)
    assert cost.moved_bytes == 4 * 2 * 8 * (50 + 3 + 3 + 50)


def test_shared_parameters_are_resident_once(overhead):
    layer = torch.nn.Linear(8, 4)
    assert overhead.resident_bytes(layer, torch.nn.Sequential(layer)) == 4 * (8 * 4 + 4)


@pytest.mark.slow
def test_overhead_of_the_5b_transformer_stays_within_its_goals(overhead, monkeypatch):
    monkeypatch.setattr(sys, "argv", ["overhead.py", "--quick"])
    assert overhead.main() == 0
