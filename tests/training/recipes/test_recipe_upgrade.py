"""Recipes and records with the names of an earlier version."""

import json
import tomllib
from pathlib import Path

import pytest
import torch

from likeness.errors import CheckpointError, ConfigError
from likeness.training import recipes
from likeness.training.engine import checkpoints
from likeness.training.recipes import resume, upgrade

OLD = Path(__file__).parent / "old_recipes"
RECIPES = Path(__file__).parents[3] / "recipes" / "tiny"
KINDS = {"mirror": "magic_mirror", "duos": "two_person", "distill": "recognizer"}


@pytest.mark.parametrize("path", sorted(OLD.glob("*.toml")), ids=lambda path: path.stem)
def test_a_recipe_of_an_earlier_version_is_read_as_todays_and_the_renamed_settings_are_listed(path, caplog):
    old = tomllib.loads(path.read_text())
    recipe = recipes.read(path).model_dump()
    for name in ("unseen", "pictures", "duos", "mentor", "across"):
        assert (f"`{name}` as" in caplog.text) == (name in old)
    assert recipe["kind"] == KINDS.get(old["kind"], old["kind"])
    assert recipe["validation"]["seed"] == old["unseen"]["seed"]
    for stage, before in zip(recipe["stages"], old["stages"], strict=True):
        assert stage["name"] == before["name"]  # Names of folders are the user's.
        assert stage.get("data") == {"pictures": "images"}.get(before.get("data"), before.get("data"))
        assert stage.get("teacher_scale", 0) == before.get("mentor_scale", 0)
        assert stage.get("on_policy_distillation_weight", 0) == before.get("rollout_mentor", 0)
        if "picture_every" in before:
            assert stage["image_every"] == before["picture_every"]
    assert recipe.get("cross_region_weight", 0) == old.get("across", 0)
    for now, before in (("guidance_teacher", "teacher"), ("teacher", "mentor")):
        assert recipe.get(now) == (Path(old[before]) if before in old else None)


@pytest.mark.parametrize("path", sorted(RECIPES.glob("*.toml")), ids=lambda path: path.stem)
def test_a_recipe_of_this_version_is_not_changed(path, caplog):
    values = tomllib.loads(path.read_text())
    assert upgrade.upgrade(values, where="x") == (values, [])
    recipes.read(path)
    assert not caplog.text


def test_overrides_of_either_version_apply_to_recipes_of_either(caplog):
    old, new = ["unseen.count=7", "stages.1.picture_every=3"], ["validation.count=7", "stages.1.image_every=3"]
    for folder in (OLD, RECIPES):
        read = [recipes.read(folder / "base.toml", overrides) for overrides in (old, new)]
        assert read[0] == read[1]
        assert (read[0].validation.count, read[0].stages[1].image_every) == (7, 3)
    caplog.clear()
    assert recipes.read(RECIPES / "base.toml", ['images.kind="pictures"']).images.kind == "images"
    assert '`images.kind = "pictures"` as "images"' in caplog.text


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"validation": {}}, "`validation` is set twice"),
        ({"stages": [{"picture_every": 1, "image_every": 1}]}, r"`stages\.0\.image_every` is set twice"),
        ({"teacher": "a", "guidance_teacher": "b"}, "`teacher` is ambiguous"),
        ({"teacher": "a", "stages": [{"teacher_scale": 1.0}]}, "`teacher` is ambiguous"),
    ],
)
def test_a_mixture_of_versions_that_could_mean_two_things_is_refused(changes, message):
    with pytest.raises(ConfigError, match=message):
        upgrade.upgrade({"kind": "mirror", "unseen": {}, **changes}, where="x")


def old_record() -> dict:
    """What an earlier version left in `recipe.json`."""
    images = {"kind": "pictures", "count": 4, "people": 4, "size_px": 32}
    settings = {
        "kind": "vae", "pictures": images, "clips": images | {"kind": "clips"}, "unseen": images | {"seed": 90},
        "stages": [{"name": "first", "data": "pictures", "batch": 2, "steps": 10, "picture_every": 6}],
    }  # fmt: skip
    return {"likeness_version": "0.0", "settings": settings, "inputs": {}, "data": {}, "complete": False}


def begin(folder, record):
    (folder / resume.RECORD_FILE).write_text(json.dumps(record))
    recipe = recipes.build(upgrade.upgrade(record["settings"], where="x")[0], where="x")
    state = {"seed": 0, "elapsed_s": 60.0, "settings": record["settings"]["stages"][0]}
    checkpoints.save(folder / "first" / "checkpoints", 10, {"model.vae": {"w": torch.ones(1)}}, state)
    return recipe


@pytest.mark.parametrize("data", [{}, {"pictures": "a", "clips": "b", "unseen": "c"}], ids=["none", "digests"])
def test_an_unfinished_run_of_an_earlier_version_is_refused_because_its_puppets_differ(tmp_path, data):
    recipe = begin(tmp_path, old_record() | {"data": data})
    with pytest.raises(CheckpointError, match="puppets of `images` are drawn in another way") as caught:
        resume.start_or_continue(recipe, tmp_path)
    assert "now it is" not in str(caught.value)  # No setting differs.


def test_a_complete_run_of_an_earlier_version_stays_complete_and_cannot_be_made_longer(tmp_path):
    recipe = begin(tmp_path, old_record() | {"complete": True})
    (tmp_path / "first" / "finished.safetensors").write_bytes(b"")
    (tmp_path / "model").mkdir()
    assert not resume.start_or_continue(recipe, tmp_path)
    longer = recipe.model_copy(update={"stages": (recipe.stages[0].model_copy(update={"steps": 20}),)})
    with pytest.raises(CheckpointError, match="drawn in another way"):
        resume.start_or_continue(longer, tmp_path)
    assert (tmp_path / "first" / "finished.safetensors").exists()


def test_folders_in_an_old_record_are_compared_under_their_new_names():
    record = old_record()
    record["settings"] |= {"kind": "mirror", "teacher": "a", "mentor": "b"}
    record["inputs"] = {"teacher": "1", "mentor": "2"}
    upgraded = upgrade.upgrade_record(record, where="x")
    assert upgraded["inputs"] == {"guidance_teacher": "1", "teacher": "2"}
    assert (upgraded["settings"]["guidance_teacher"], upgraded["settings"]["teacher"]) == ("a", "b")
