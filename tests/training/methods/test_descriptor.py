"""The stage in which FantasyID's descriptor learns to read a person."""

import json

import numpy as np
import pytest
import torch

from likeness.methods.fantasy_id import FantasyID
from likeness.puppets import sample_person
from likeness.puppets.people.anatomy import SHAPE_NUMBERS
from likeness.training.data.datasets import ShardedDataset
from likeness.training.data.pairs import TrainingData
from likeness.training.data.render_puppets import PEOPLE_SEED, PuppetSettings
from likeness.training.methods.descriptor import DescriptorSettings, DescriptorStage, puppet_attributes
from likeness.training.methods.fantasy_id import FantasyIDRecipe, FantasyIDTrainingSpec

PEOPLE, LOOKS = 12, 2
SETTINGS = PuppetSettings(kind="faces", count=PEOPLE * LOOKS, people=PEOPLE, seed=5)

pytestmark = pytest.mark.usefixtures("without_curves")


def make_faces() -> ShardedDataset:
    rng = np.random.default_rng(0)
    facts = [{"person": row % PEOPLE} for row in range(PEOPLE * LOOKS)]
    tones = rng.integers(0, 255, (PEOPLE, 1, 1, 3))[[fact["person"] for fact in facts]]
    noise = rng.integers(-20, 20, (PEOPLE * LOOKS, 64, 64, 3))
    tensors = {
        "crop": torch.from_numpy(np.clip(tones + noise, 0, 255).astype(np.uint8)),
        "embedding": torch.from_numpy(rng.normal(size=(PEOPLE * LOOKS, 128))).half(),
        "landmarks": torch.randn(PEOPLE * LOOKS, 1, 5, 2),
    }
    return ShardedDataset(tensors, facts)


@pytest.fixture
def subject(topology_of):
    torch.manual_seed(0)
    method = FantasyID(
        width=32, num_layers=1, encoder_width=16, encoder_depth=1, encoder_heads=2, face_width=16, head_width=16,
        abstractor_hidden_width=16, num_vertices=(30, 8), vertex_widths=(16,), fusion_depth=1, context_width=16,
        injection_width=16,
    )  # fmt: skip
    method.set_topology(topology_of(30, 8))
    faces, heads = make_faces(), torch.randn(PEOPLE, 30, 3)
    splits = ("train", "validation")
    data = TrainingData(references=dict.fromkeys(splits, faces), targets={}, validation_targets={})
    data.vertices = dict.fromkeys(splits, lambda rows: heads[rows[:, 0] % PEOPLE])
    return method, data


def spec_of(**settings) -> FantasyIDTrainingSpec:
    descriptor = DescriptorSettings(batch=PEOPLE, checkpoint_minutes=9, **settings)
    return FantasyIDTrainingSpec(
        FantasyIDRecipe.model_construct(views=6, descriptor=descriptor, seed=0, faces=SETTINGS, validation=SETTINGS)
    )


def test_what_is_known_of_a_row_is_its_own_persons():
    faces = make_faces()
    known = puppet_attributes(SETTINGS, faces)
    person = sample_person(PEOPLE_SEED + 500_000 + 3)
    truth = [*person.numbers, *person.skin, *person.hair_color]
    assert known.shape == (PEOPLE * LOOKS, len(truth) + 128)
    for row in (3, 3 + PEOPLE):
        torch.testing.assert_close(known[row, : len(truth)], torch.tensor(truth, dtype=torch.float32))
        mean = faces["embedding"][[3, 3 + PEOPLE]].float().mean(dim=0)
        torch.testing.assert_close(known[row, len(truth) :], mean)


def test_a_descriptor_learns_to_predict_known_attributes(subject, tmp_path):
    method, data = subject
    method_spec = spec_of(steps=80, optimizer={"learning_rate": 5e-3, "warmup_steps": 5, "ema": 0.5})
    known = {split: puppet_attributes(SETTINGS, faces) for split, faces in data.references.items()}
    stage = DescriptorStage(method.descriptor, method_spec, method_spec.recipe.descriptor, data, known, 0)
    stage.loss(0)[0].backward()
    silent = [name for name, p in method.descriptor.named_parameters() if p.grad is None]
    assert not silent
    assert stage.validate(tmp_path / "before.png")["validation_r2"] < 0.1
    method_spec.train_first(method, data, tmp_path)
    lines = (tmp_path / "descriptor" / "log.jsonl").read_text().splitlines()
    figures = [json.loads(line) for line in lines if "validation_r2" in line]
    assert figures[-1]["validation_r2"] > 0.6
    assert next((tmp_path / "descriptor" / "sheets").glob("*.png")).stat().st_size > 100


def stage_of(subject, **settings) -> DescriptorStage:
    method, data = subject
    method_spec = spec_of(steps=1, **settings)
    known = {split: puppet_attributes(SETTINGS, faces) for split, faces in data.references.items()}
    torch.manual_seed(3)
    return DescriptorStage(method.descriptor, method_spec, method_spec.recipe.descriptor, data, known, 0)


def test_with_another_persons_head_the_target_is_that_heads_shape_and_no_embedding(subject):
    stage = stage_of(subject, shape_swap=1.0)
    given = {}

    def predict(split, rows, *, vertex_indices, **_):
        given.update(rows=rows, vertex_indices=vertex_indices)
        attributes = stage.attributes[split]
        predicted = attributes[rows].clone()
        predicted[:, :43] = attributes[vertex_indices][:, :43]
        predicted[:, -128:] = 1e3  # Has no weight.
        return predicted, predicted

    stage.predict = predict
    assert len(SHAPE_NUMBERS) == 43
    assert float(stage.loss(0)[0]) == 0
    assert torch.equal(given["vertex_indices"], given["rows"].roll(1))
    plain = stage_of(subject, shape_swap=0.0)
    plain.predict = lambda split, rows, **_: (plain.attributes[split][rows],) * 2
    assert float(plain.loss(0)[0]) == 0


def test_without_vertices_no_heads_are_swapped(subject):
    method, data = subject
    method = FantasyID.from_config(method.config, has_vertices=False)
    data.vertices = {}
    stage = stage_of((method, data), shape_swap=1.0)
    stage.predict = lambda split, rows, **_: (stage.attributes[split][rows],) * 2
    assert float(stage.loss(0)[0]) == 0


def test_faces_are_asked_before_the_fusion_where_that_has_a_weight(subject):
    losses = []
    for weight in (0.0, 0.5):
        stage = stage_of(subject, face_weight=weight)
        assert ("face_reader" in stage.modules) == bool(weight)
        torch.manual_seed(4)
        loss, figures = stage.loss(0)
        losses.append(float(loss.detach()))
    assert losses[1] == pytest.approx(losses[0] + 0.5 * figures["unexplained_by_face"], rel=1e-5)
    loss.backward()
    assert stage.face_head.weight.grad.abs().max() > 0


def test_a_finished_stage_is_read_and_not_trained_again(subject, tmp_path):
    method, data = subject
    method_spec = spec_of(steps=1)
    method_spec.train_first(method, data, tmp_path)
    trained = {name: value.clone() for name, value in method.descriptor.state_dict().items()}
    for parameter in method.descriptor.parameters():
        torch.nn.init.zeros_(parameter)
    method_spec.train_first(method, data, tmp_path)
    for name, value in method.descriptor.state_dict().items():
        torch.testing.assert_close(value, trained[name], msg=name)


def test_without_the_stage_nothing_is_trained(subject, tmp_path):
    method, data = subject
    FantasyIDTrainingSpec(FantasyIDRecipe.model_construct(views=6)).train_first(method, data, tmp_path)
    assert not list(tmp_path.iterdir())


def test_a_descriptor_that_was_brought_goes_on(subject, tmp_path):
    method, data = subject
    recipe = FantasyIDRecipe.model_construct(
        views=6,
        start=tmp_path,
        descriptor=DescriptorSettings(steps=1),
        faces=SETTINGS,
        validation=SETTINGS,
        seed=0,
    )
    before = {name: value.clone() for name, value in method.descriptor.named_parameters()}
    FantasyIDTrainingSpec(recipe).train_first(method, data, tmp_path / "run")
    assert any(not torch.equal(value, before[name]) for name, value in method.descriptor.named_parameters())
