import json

import pytest
import torch
from torch.testing import assert_close

from likeness.backbones.tiny import VaeSettings, build_vae
from likeness.training.base import vae as training
from likeness.training.base.vae import VaeRecipe
from likeness.training.data.datasets import load_puppets
from likeness.training.engine.logging import TrainingLogger

SMALL = {"widths": [8, 8, 8, 8], "norm_num_groups": 2, "latent_channels": 4, "size_px": 32}

pytestmark = pytest.mark.usefixtures("without_curves")


@pytest.fixture(scope="module")
def recipe(tmp_path_factory):
    """One step of the decoder alone, from a VAE with a scaling factor of its own."""
    start = tmp_path_factory.mktemp("start")
    trained = build_vae(VaeSettings(**SMALL))
    trained.register_to_config(scaling_factor=0.123)
    trained.save_pretrained(start)
    renders = {"kind": "clips", "count": 2, "people": 2, "size_px": 32, "num_frames": 9, "shard": 2}
    return VaeRecipe.model_validate({
        "kind": "vae", "model": SMALL, "start": start,
        "images": renders | {"kind": "images"}, "clips": renders, "validation": renders | {"seed": 5},
        "stages": [{"name": "decoder", "data": "clips", "learns": "decoder", "num_frames": 9, "steps": 1, "batch": 1}],
    })  # fmt: skip


def test_a_sharpened_decoder_keeps_latents_and_their_scale(recipe, tmp_path):
    target = training.run(recipe, tmp_path / "run", tmp_path / "cache")
    assert json.loads((target / "config.json").read_text())["scaling_factor"] == 0.123
    before, after = (type(build_vae(recipe.model)).from_pretrained(folder) for folder in (recipe.start, target))
    changed = [
        name
        for name, value in after.state_dict().items()
        if not value.float().equal(before.state_dict()[name].half().float())
    ]
    assert changed
    assert all(name.startswith("decoder") for name in changed)


def test_latents_are_made_white_before_the_decoder_learns(recipe, tmp_path):
    stage = recipe.stages[0].model_copy(update={"latent_noise": 0.3})
    white = recipe.model_copy(update={"white_floor": 0.0, "stages": (stage,)})
    target = training.run(white, tmp_path / "run", tmp_path / "cache")
    vae = type(build_vae(recipe.model)).from_pretrained(target, torch_dtype=torch.float32)
    assert vae.config.scaling_factor == 1.0
    data = load_puppets(recipe.clips, tmp_path / "cache", TrainingLogger(tmp_path, "again"))
    pictures = load_puppets(recipe.images, tmp_path / "cache", TrainingLogger(tmp_path, "again"))
    mean, covariance = training.latent_statistics(vae, [pictures, data])
    assert_close(mean, torch.zeros(4), rtol=0, atol=0.1)
    assert_close(covariance, torch.eye(4), rtol=0, atol=0.1)
