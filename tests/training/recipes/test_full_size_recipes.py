"""The recipes for CogVideoX-2B and 5B: what they say, and that each runs from files to a video."""

import tomllib

import full_size_recipes
import numpy as np
import pytest
import torch
from full_size_recipes import CAPTION, FULL_SIZE, PEOPLE, name_of, overrides_for

from likeness import Likeness
from likeness.methods.fantasy_id import FantasyID
from likeness.methods.magic_mirror import MagicMirror
from likeness.training import recipes, run

NAMES = [name_of(path) for path in FULL_SIZE]


@pytest.mark.parametrize("path", FULL_SIZE, ids=NAMES)
def test_a_full_size_recipe_is_valid_and_fits_a_card_by_its_switches(path):
    recipe = recipes.read(path)
    assert recipe.data.kind == "files"
    assert recipe.base_dtype == "bfloat16"
    for stage in recipe.stages:
        assert stage.gradient_checkpointing
        assert stage.micro_batch == (8 if stage.data == "images" else 1)


def test_the_recipes_have_the_numbers_of_the_papers():
    mirror, fantasy = (recipes.read(path) for path in sorted(FULL_SIZE, reverse=True) if "5b" in str(path))
    images, clips = mirror.stages
    assert (images.steps, images.batch, clips.steps, clips.batch) == (30_000, 64, 5_000, 8)
    assert {stage.optimizer.learning_rate for stage in mirror.stages} == {1e-5}
    assert {stage.optimizer.schedule for stage in mirror.stages} == {"cosine"}
    assert {stage.face_share for stage in mirror.stages} == {0.5}
    assert {stage.identity_weight for stage in mirror.stages} == {0.1}
    (stage,) = fantasy.stages
    assert (stage.steps, stage.batch, stage.optimizer.learning_rate) == (90_000, 16, 3e-6)
    assert (stage.text_drop, stage.optimizer.schedule) == (0.1, "cosine_with_restarts")
    assert (fantasy.data.references, fantasy.data.num_views, fantasy.shape) == ("views", 6, "beside")


@pytest.mark.parametrize("path", [path for path in FULL_SIZE if "2b" in str(path)], ids=lambda path: path.stem)
def test_recipes_for_2b_name_no_weights_with_a_research_licence(path):
    values = tomllib.loads(path.read_text())
    assert values["recognizer"] == "open"
    assert values.keys().isdisjoint({"photomaker", "mesh", "profile"})


def test_methods_of_2b_have_the_papers_sizes_where_nothing_pretrained_is_missing():
    sizes = {"num_attention_heads": 30, "attention_head_dim": 64, "num_layers": 30, "time_embed_dim": 512}
    config = torch.nn.Module()
    for key, value in (sizes | {"text_embed_dim": 4096}).items():
        setattr(config, key, value)
    by_name = {path.stem: recipes.read(path) for path in FULL_SIZE if "2b" in str(path)}
    with torch.device("meta"):
        mirror = by_name["magic_mirror"].training_spec().build(config, by_name["magic_mirror"].method)
        fantasy = by_name["fantasy_id"].training_spec().build(config, by_name["fantasy_id"].method)
    paper = MagicMirror.cogvideox_5b_config()
    changed = {key for key, value in paper.items() if mirror.config[key] != value}
    assert changed == {
        "width", "num_layers", "encoder", "encoder_width", "encoder_depth", "encoder_heads", "encoder_input", "frozen",
    }  # fmt: skip
    paper = FantasyID.cogvideox_5b_config()
    changed = {key for key, value in paper.items() if list_of(fantasy.config[key]) != list_of(value)}
    assert changed == {"width", "num_layers", "num_vertices"}


def list_of(value):
    return list(value) if isinstance(value, tuple) else value


@pytest.fixture(scope="module")
def files_on_disk(tmp_path_factory):
    folder = tmp_path_factory.mktemp("files")
    bases = {
        size: full_size_recipes.write_base(folder / f"base_{size}", has_rope=size == "5b") for size in ("2b", "5b")
    }
    return bases, full_size_recipes.write_data(folder / "data"), full_size_recipes.write_weights(folder / "weights")


@pytest.mark.slow
@pytest.mark.parametrize("path", FULL_SIZE, ids=NAMES)
def test_a_full_size_recipe_trains_from_files_to_an_adapter_that_generates(path, files_on_disk, tmp_path):
    bases, manifest, weights = files_on_disk
    base = bases[name_of(path).split("/")[0]]
    overrides = overrides_for(path, base, manifest, weights)
    target = run.train(path, overrides=overrides, output=tmp_path / "run", processes=1)
    stages = [stage.name for stage in recipes.read(path, overrides).stages]
    assert all((tmp_path / "run" / name / "finished.safetensors").is_file() for name in stages)
    assert all(list((tmp_path / "run" / name / "sheets").glob("*.png")) for name in stages)
    likeness = Likeness.load(method=path.stem, backbone=base, adapter=target, device="cpu")
    face = manifest.parent / PEOPLE[0] / "0.png"
    prompt = CAPTION.replace("woman", "woman img")
    if (
        name_of(path) == "5b/fantasy_id"
    ):  # `shape = "beside"` takes FLAME's 5,023 vertices alone; the mesh here has 258.
        likeness.method.shape_source = lambda faces: np.load(faces[0].source.removesuffix(".png") + ".npy")
    clip = likeness.generate(prompt, faces=[face], frames=9, steps=2)
    assert clip.frames.shape == (9, 64, 96, 3)
    plain = likeness.generate(prompt, faces=[face], frames=9, steps=2, identity_scale=0.0)
    assert (clip.frames != plain.frames).any()
