"""FantasyID's lesson: where heads and face encoders come from, and the recipe that ships."""

from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import save_file
from torch.testing import assert_close

from likeness.errors import ConfigError, WeightsError
from likeness.identity.face_shape.network import ShapeNetwork, principal_shapes
from likeness.methods.fantasy_id import FantasyID
from likeness.training.data import Shards
from likeness.training.fantasy_id import FantasyLesson, FantasyRecipe, exact_heads, load_face_encoder
from likeness.training.render import PuppetSettings
from likeness.training.shape import heads_of


def test_heads_are_exact_or_what_a_network_reads_from_the_references(tmp_path):
    settings = PuppetSettings(kind="faces", count=4, people=2, size_px=64)
    crops = torch.from_numpy(np.random.default_rng(0).integers(0, 255, (4, 64, 64, 3), np.uint8))
    shards = Shards({"crop": crops}, [{"person": row % 2} for row in range(4)])
    heads = torch.from_numpy(heads_of(settings))
    faces = torch.tensor([[3, 1], [0, 2]])
    assert torch.equal(exact_heads(settings, shards)(faces), heads[[1, 0]])
    network = ShapeNetwork(num_components=2, widths=(8, 16, 16), hidden_width=8)
    mean, basis = principal_shapes(heads.numpy(), 2)
    network.set_basis(torch.from_numpy(mean), torch.from_numpy(basis))
    network.save(tmp_path)
    recipe = FantasyRecipe.model_construct(
        views=6, shape=tmp_path, faces=settings, unseen=settings, face_encoder=None
    )
    method = FantasyID(width=32, num_layers=1, num_vertices=(2562, 40), vertex_widths=(16,))
    data = {"faces": shards, "unseen": shards}
    FantasyLesson(recipe).prepare(method, data, is_new=False)
    read = ShapeNetwork.load(tmp_path).read
    expected = [read(crops[pair].numpy()) for pair in faces]  # As `generate` has them.
    assert_close(data["heads"]["faces"](faces).numpy(), np.stack(expected), atol=1e-5, rtol=0)


def test_a_face_encoder_is_taken_from_another_adapter_or_refused(tmp_path):
    encoder = torch.nn.Linear(2, 2)
    with pytest.raises(WeightsError, match="No adapter at"):
        load_face_encoder(encoder, tmp_path)
    wanted = {
        f"face_encoder.{name}": value.half() for name, value in torch.nn.Linear(2, 2).state_dict().items()
    }
    file = tmp_path / "diffusion_pytorch_model.safetensors"
    save_file(wanted | {"other.weight": torch.zeros(1)}, file)
    load_face_encoder(encoder, tmp_path)
    assert torch.equal(encoder.weight.half(), wanted["face_encoder.weight"])
    save_file({"face_encoder.weight": torch.zeros(3, 2)}, file)
    with pytest.raises(ConfigError, match="does not fit"):
        load_face_encoder(encoder, tmp_path)


def test_the_shipped_recipe_is_read_and_its_ablations_are_switches():
    from likeness.training import recipes

    path = Path(__file__).parents[2] / "recipes" / "tiny" / "fantasy_id.toml"
    switches = [
        'method.abstractor="queries"', "views=1", "method.has_vertices=false", "method.is_layer_aware=false",
    ]  # fmt: skip
    recipe = recipes.read(path, switches)
    assert recipe.views == 1
    method = FantasyID(width=32, num_layers=2, **recipe.method)
    assert method.descriptor.vertex_encoder is None
    assert type(method.descriptor.abstractor).__name__ == "FacePerceiver"
