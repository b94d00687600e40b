"""The stage in which FantasyID's descriptor learns who is like whom."""

import numpy as np
import pytest
import torch

from likeness.identity.recognizer import Recognizer
from likeness.methods.fantasy_id import FantasyID
from likeness.training.data import Shards
from likeness.training.descriptor import (
    DescriptorSettings,
    DescriptorStage,
    person_embeddings,
    relation_error,
    relations,
)
from likeness.training.fantasy_id import FantasyLesson, FantasyRecipe

PEOPLE, LOOKS = 12, 2


def make_faces() -> Shards:
    rng = np.random.default_rng(0)
    facts = [{"person": row // LOOKS} for row in range(PEOPLE * LOOKS)]
    tones = np.repeat(rng.integers(0, 255, (PEOPLE, 1, 1, 3)), LOOKS, axis=0)
    noise = rng.integers(-20, 20, (PEOPLE * LOOKS, 64, 64, 3))
    tensors = {
        "crop": torch.from_numpy(np.clip(tones + noise, 0, 255).astype(np.uint8)),
        "embedding": torch.from_numpy(np.repeat(rng.normal(size=(PEOPLE, 128)), LOOKS, axis=0)).float(),
        "landmarks": torch.randn(PEOPLE * LOOKS, 1, 5, 2),
    }
    return Shards(tensors, facts)


@pytest.fixture
def subject(topology_of):
    torch.manual_seed(0)
    method = FantasyID(
        width=32, num_layers=1, encoder_width=16, encoder_depth=1, encoder_heads=2, face_width=16, head_width=16,
        abstractor_hidden_width=16, num_vertices=(30, 8), vertex_widths=(16,), fusion_depth=1, context_width=16,
        injection_width=16,
    )  # fmt: skip
    method.set_topology(topology_of(30, 8))
    faces = make_faces()
    heads = torch.randn(PEOPLE, 30, 3)
    data = {"faces": faces, "unseen": faces, "heads": {"faces": heads, "unseen": heads}}
    recognizer = Recognizer(128, (8, 8, 8), 32)
    recognizer.measure(faces["embedding"])
    return method, recognizer, data


def lesson_of(**settings) -> FantasyLesson:
    descriptor = DescriptorSettings(batch=PEOPLE, checkpoint_minutes=9, **settings)
    return FantasyLesson(FantasyRecipe.model_construct(views=6, descriptor=descriptor, seed=0))


def test_the_error_of_features_that_are_the_embeddings_turned_is_zero():
    wanted = torch.tensor([[1.0, 0, 0], [-1, 0, 0], [0, 2, 0], [0, -2, 0]])
    turned = wanted @ torch.linalg.qr(torch.randn(3, 3)).Q + 7
    assert relation_error(turned, wanted) < 1e-10


def test_the_error_by_hand():
    features = torch.tensor([[1.0, 0], [0, 1], [-1, -1]])  # The mean is zero.
    wanted = torch.tensor([[1.0, 0], [1, 0], [1, 0]])  # Everybody is the same: cosines of 1.
    cosines = [0, -(0.5**0.5), -(0.5**0.5)]
    expected = np.mean([(c - 1) ** 2 for c in cosines])
    assert relation_error(features, wanted) == pytest.approx(expected, abs=1e-6)


def test_a_persons_embedding_is_the_mean_of_their_pictures(subject):
    _, recognizer, data = subject
    faces = data["faces"]
    faces["embedding"][1] += 1
    own = recognizer.standardize(faces["embedding"])
    torch.testing.assert_close(person_embeddings(faces, recognizer)[0], (own[0] + own[1]) / 2)


def test_relations_become_those_of_embeddings(subject, tmp_path):
    method, recognizer, data = subject
    lesson = lesson_of(steps=60, optimizer={"learning_rate": 3e-3, "warmup_steps": 5, "ema": 0.5})
    stage = DescriptorStage(method.descriptor, lesson, recognizer, lesson.recipe.descriptor, data, 0)
    torch.manual_seed(0)
    before = stage.sheet(tmp_path / "before.png")
    stage.loss(0)[0].backward()
    silent = [name for name, p in method.descriptor.named_parameters() if p.requires_grad and p.grad is None]
    assert not silent
    lesson.begin(method, recognizer, data, tmp_path)
    after = stage.sheet(tmp_path / "after.png")
    assert after["unseen_relation"] < 0.5 * before["unseen_relation"]
    assert after["unseen_correlation"] > 0.8
    assert (tmp_path / "after.png").stat().st_size > 100


def test_a_finished_stage_is_read_and_not_trained_again(subject, tmp_path):
    method, recognizer, data = subject
    lesson = lesson_of(steps=1)
    lesson.begin(method, recognizer, data, tmp_path)
    trained = {name: value.clone() for name, value in method.descriptor.state_dict().items()}
    for parameter in method.descriptor.parameters():
        torch.nn.init.zeros_(parameter)
    lesson.begin(method, recognizer, data, tmp_path)
    for name, value in method.descriptor.state_dict().items():
        torch.testing.assert_close(value, trained[name], msg=name)


def test_without_the_stage_nothing_is_trained(subject, tmp_path):
    method, recognizer, data = subject
    FantasyLesson(FantasyRecipe.model_construct(views=6)).begin(method, recognizer, data, tmp_path)
    assert not list(tmp_path.iterdir())
    assert relations(torch.eye(3)).diagonal().allclose(torch.ones(3))
