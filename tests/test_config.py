import pytest

from likeness import config
from likeness.errors import ConfigError


class Optimizer(config.Settings):
    """Inner settings."""

    learning_rate: float = 1e-3
    warmup_steps: int = 10


class Recipe(config.Settings):
    """Outer settings."""

    name: str
    stages: tuple[Optimizer, ...] = ()
    optimizer: Optimizer = Optimizer()


def write(folder, text):
    path = folder / "recipe.toml"
    path.write_text(text)
    return path


def test_toml_becomes_frozen_settings(tmp_path):
    recipe = config.read(Recipe, write(tmp_path, 'name = "a"\n[optimizer]\nwarmup_steps = 3\n[[stages]]\n'))
    assert (recipe.name, recipe.optimizer.warmup_steps, len(recipe.stages)) == ("a", 3, 1)
    with pytest.raises(ValueError, match="frozen"):
        recipe.name = "b"


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (
            'name = "a"\n[optimizer]\nwarmup_step = 3',
            r"unknown setting `optimizer.warmup_step`. Did you mean `warmup_steps`",
        ),
        (
            'name = "a"\n[[stages]]\nlearning_rat = 3',
            r"`stages.0.learning_rat`. Did you mean `learning_rate`",
        ),
        ('name = "a"\nzzz = 3', r"Known settings: name, optimizer, stages"),
        ("", r"`name` is required"),
        ('name = "a"\noptimizer.warmup_steps = "many"', r"`optimizer.warmup_steps` is 'many'"),
        ("name = ", r"cannot be read as TOML"),
    ],
)
def test_a_wrong_setting_is_named_with_a_remedy(tmp_path, text, message):
    with pytest.raises(ConfigError, match=message):
        config.read(Recipe, write(tmp_path, text))


def test_overrides_reach_into_tables_and_lists(tmp_path):
    path = write(tmp_path, 'name = "a"\n[[stages]]\n')
    recipe = config.read(Recipe, path, ["optimizer.learning_rate=0.5", "stages.0.warmup_steps=7", "name=plain text"])
    assert (recipe.optimizer.learning_rate, recipe.stages[0].warmup_steps, recipe.name) == (
        0.5,
        7,
        "plain text",
    )


@pytest.mark.parametrize("override", ["name", "=3", "stages.4.warmup_steps=1", "name.x=1"])
def test_a_malformed_override_is_refused(tmp_path, override):
    with pytest.raises(ConfigError):
        config.read(Recipe, write(tmp_path, 'name = "a"\n[[stages]]\n'), [override])


def test_saved_settings_come_back_the_same(tmp_path):
    recipe = Recipe(name="a", stages=(Optimizer(warmup_steps=2),))
    config.save(recipe, tmp_path / "run" / "settings.json")
    assert config.load(Recipe, tmp_path / "run" / "settings.json") == recipe


def test_a_missing_recipe_is_named(tmp_path):
    with pytest.raises(ConfigError, match="does not exist"):
        config.read(Recipe, tmp_path / "absent.toml")
