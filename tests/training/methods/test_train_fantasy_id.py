"""FantasyID's training spec: where heads and face encoders come from, and the recipe that ships."""

from pathlib import Path

import numpy as np
import pytest
import torch
from torch.testing import assert_close

from likeness.errors import ConfigError, WeightsError
from likeness.identity.encoders.recognizer import Recognizer
from likeness.identity.encoders.vit import SmallVisionTransformer
from likeness.identity.face_shape.network import ShapeNetwork, principal_shapes
from likeness.methods.fantasy_id import FantasyID
from likeness.training import recipes
from likeness.training.base.shape_network import puppet_head_vertices
from likeness.training.data.datasets import ShardedDataset
from likeness.training.data.pairs import TrainingData
from likeness.training.data.render_puppets import PuppetSettings
from likeness.training.methods.fantasy_id import FantasyIDRecipe, FantasyIDTrainingSpec, exact_vertices, load_stem

SHIPPED = Path(__file__).parents[3] / "recipes" / "tiny" / "fantasy_id.toml"


def test_heads_are_exact_or_what_a_network_reads_from_the_references(tmp_path):
    settings = PuppetSettings(kind="faces", count=4, people=2, size_px=64)
    crops = torch.from_numpy(np.random.default_rng(0).integers(0, 255, (4, 64, 64, 3), np.uint8))
    shards = ShardedDataset({"crop": crops}, [{"person": row % 2} for row in range(4)])
    heads = torch.from_numpy(puppet_head_vertices(settings))
    faces = torch.tensor([[3, 1], [0, 2]])
    assert torch.equal(exact_vertices(settings, shards)(faces), heads[[1, 0]])
    network = ShapeNetwork(num_components=2, widths=(8, 16, 16), hidden_width=8)
    mean, basis = principal_shapes(heads.numpy(), 2)
    network.set_basis(torch.from_numpy(mean), torch.from_numpy(basis))
    network.save(tmp_path)
    recipe = FantasyIDRecipe.model_construct(views=6, shape=tmp_path, faces=settings, validation=settings, stem=None)
    method = FantasyID(width=32, num_layers=1, num_vertices=(2562, 40), vertex_widths=(16,))
    data = TrainingData(references={"train": shards, "validation": shards}, targets={}, validation_targets={})
    FantasyIDTrainingSpec(recipe).prepare(method, data, from_scratch=False)
    read = ShapeNetwork.load(tmp_path).read
    expected = [read(crops[pair].numpy()) for pair in faces]  # As `generate` has them.
    assert_close(data.vertices["train"](faces).numpy(), np.stack(expected), atol=1e-5, rtol=0)


def test_a_stem_begins_as_a_recognizers_convolutions_or_is_refused(tmp_path):
    def build(widths, patch_size_px):
        return SmallVisionTransformer(
            16, depth=1, num_heads=2, image_size_px=32, patch_size_px=patch_size_px, stem_widths=widths
        )

    with pytest.raises(WeightsError, match="No recognizer at"):
        load_stem(build((8, 12), 4), tmp_path)
    recognizer = Recognizer(8, (8, 12, 16), 32)
    recognizer.save(tmp_path)
    encoder, pixels = build((8, 12), 4), torch.rand(2, 3, 32, 32) * 2 - 1
    load_stem(encoder, tmp_path)
    wanted = Recognizer.load(tmp_path).layers[:5](pixels)
    assert wanted.shape == (2, 12, 8, 8)
    assert torch.equal(encoder.patch_embed[:-1](pixels), wanted)
    for other in (build((), 4), build((8, 16), 4), torch.nn.Identity()):
        with pytest.raises(ConfigError, match="encoder_stem"):
            load_stem(other, tmp_path)


def test_a_stem_under_trained_weights_or_another_encoder_is_refused():
    with pytest.raises(ConfigError, match="`stem` initializes an adapter"):
        recipes.read(SHIPPED, ['start="runs/somewhere"'])
    with pytest.raises(ConfigError, match="encoder_stem"):
        FantasyID(width=32, num_layers=1, encoder="clip", encoder_stem=(8, 12))


def test_the_shipped_recipe_is_read_and_its_ablations_are_switches():
    switches = [
        'method.abstractor="queries"', "views=1", "method.has_vertices=false", "method.is_layer_aware=false",
    ]  # fmt: skip
    recipe = recipes.read(SHIPPED, switches)
    assert recipe.views == 1
    method = FantasyID(width=32, num_layers=2, **recipe.method)
    assert method.descriptor.vertex_encoder is None
    assert type(method.descriptor.abstractor).__name__ == "FacePerceiver"
