import re
from pathlib import Path

import pytest

from likeness.errors import ConfigError
from likeness.training import recipes

RECIPES = Path(__file__).parents[3] / "recipes" / "tiny"


@pytest.mark.parametrize("path", sorted(RECIPES.glob("*.toml")), ids=lambda path: path.stem)
def test_the_recipes_that_ship_can_be_read(path):
    assert recipes.read(path).stages


def test_a_run_that_a_recipe_goes_on_from_is_that_of_another_recipe():
    """`likeness train` names a run by its recipe, so that recipes work one after the other as they are."""
    runs = {path.stem: re.findall(r'"runs/(\w+)/model', path.read_text()) for path in RECIPES.glob("*.toml")}
    assert sum(map(bool, runs.values())) >= 8, "most start from the weights of another"
    for recipe, names in runs.items():
        assert recipe not in names
        assert set(names) <= set(runs), recipe


def test_a_misspelt_setting_is_named_with_what_was_meant():
    with pytest.raises(ConfigError, match=r"image_every"):
        recipes.read(RECIPES / "base.toml", ["stages.1.image_evry=3"])


def test_an_override_reaches_into_a_stage():
    recipe = recipes.read(RECIPES / "vae.toml", ["stages.0.minutes=0.5", "model.widths=[8,8,8,8]"])
    assert recipe.stages[0].minutes == 0.5
    assert recipe.model.widths == (8, 8, 8, 8)


def test_a_stage_without_an_end_is_refused(tmp_path):
    recipe = (RECIPES / "vae.toml").read_text().replace("minutes", "# minutes")
    (tmp_path / "endless.toml").write_text(recipe)
    with pytest.raises(ConfigError, match="would never end"):
        recipes.read(tmp_path / "endless.toml")


def test_an_unknown_kind_and_a_missing_file_are_reported(tmp_path):
    (tmp_path / "odd.toml").write_text('kind = "odd"\n')
    with pytest.raises(ConfigError, match=r"'odd'.*vae, base"):
        recipes.read(tmp_path / "odd.toml")
    with pytest.raises(ConfigError, match="does not exist"):
        recipes.read(tmp_path / "none.toml")


@pytest.mark.parametrize("name", ["magic_mirror", "fantasy_id"])
def test_the_profile_paper_without_its_frozen_encoder_is_refused_when_the_recipe_is_read(name):
    needed = {"magic_mirror": "photomaker", "fantasy_id": "clip"}[name]
    with pytest.raises(ConfigError, match=f"the profile `paper`(.|\n)*`{needed}`"):
        recipes.read(RECIPES / f"{name}.toml", ['profile="paper"'])


def test_a_batch_that_micro_batches_do_not_divide_is_the_only_problem_that_is_named():
    with pytest.raises(ConfigError, match="micro-batches do not divide") as caught:
        recipes.read(RECIPES / "magic_mirror.toml", ["stages.0.accumulation=7", "stages.1.accumulation=7"])
    assert "at least 1 item" not in str(caught.value)
