from pathlib import Path

import pytest

from likeness.curation.recipe import build_segments, read_recipe
from likeness.errors import ConfigError

FOLDER = Path(__file__).parents[3] / "recipes" / "data"


@pytest.mark.parametrize("path", sorted(FOLDER.glob("*.toml")), ids=lambda path: path.stem)
def test_stages_of_the_recipes_stand_in_an_order_that_works(path):
    segments = build_segments(read_recipe(path))
    assert [segment.is_global for segment in segments].count(True) == 3
    assert {stage.name for segment in segments for stage in segment.stages} > {"guard", "tracks", "views", "captions"}


@pytest.mark.parametrize(
    ("override", "problem"),
    [("stages.0.max_stream=3", "Did you mean `max_streams`"), ("stages.1.detector=histogram", "detector")],
)
def test_settings_of_stages_are_checked_before_anything_is_read(override, problem):
    with pytest.raises(ConfigError, match=problem):
        build_segments(read_recipe(FOLDER / "folder.toml", [override]))
