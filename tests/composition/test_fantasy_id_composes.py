"""What diffusers offers works with FantasyID as with Magic Mirror: the same tests with another method."""

import sys
from pathlib import Path

import pytest
import torch
from composing.calls import CALLS
from composing.features import Feature, compile_blocks, deviation
from composing.subject import Subject

sys.path.insert(0, str(Path(__file__).parent))

import miniature
from test_caches import *  # noqa: F403
from test_calls import *  # noqa: F403
from test_fantasy_id import make_fantasy, octahedron
from test_features import *  # noqa: F403

from likeness.identity.mesh.spirals import MeshTopology

pytestmark = [
    pytest.mark.slow,
    pytest.mark.filterwarnings("ignore:(?s).*(meshgrid|indexing argument)"),
    pytest.mark.filterwarnings("ignore::DeprecationWarning"),  # torch's own, where it compiles
]
# These look into Magic Mirror by name; test_fantasy_id.py has checkpointing, copies and backends.
for name in (
    "sequential_offload_lets_go_of_the_adapter",
    "checkpointing_goes_with_lora",
    "a_chosen_backend_runs_all_attention",
    "agrees_with_the_plain_run",
    "blocks_compile_one_by_one_without_a_graph_break",
):
    del globals()[f"test_{name}"]


OWN_CALLS = sorted(CALLS.keys() - {"own_embeddings_and_negative_prompt", "gradient_checkpointing"})


@pytest.mark.parametrize("name", OWN_CALLS)
def test_a_call_agrees_with_the_plain_run(subject, name):
    assert CALLS[name](subject) <= 1e-5


TOPOLOGY = MeshTopology.build(*octahedron(), spiral_length=5)


def random_head(_method, generator):
    return torch.from_numpy(TOPOLOGY.vertices[0])[None] + 0.1 * torch.randn(1, 66, 3, generator=generator)


@pytest.fixture
def subject():
    return Subject(
        pipe=miniature.make_pipe,
        method=lambda pipe: make_fantasy(pipe.transformer, TOPOLOGY),
        extra_conditioning=random_head,
        prompt=miniature.PROMPT,
        options={"height": 32, "width": 32, "num_frames": 9},
    )


def test_blocks_compile_without_a_graph_break(subject):
    feature = Feature(name="compile", turn_on=lambda pipe: compile_blocks(pipe, "eager"))
    assert deviation(subject, feature) <= 1e-5
    assert not torch._dynamo.utils.counters["graph_break"]
