import re
import subprocess
import sys
from pathlib import Path

import pytest

from likeness import curation
from likeness.curation import recipe
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


def test_every_stage_is_found_in_its_module():
    root = Path(next(iter(curation.__path__)))
    found = {
        name: ".".join(path.relative_to(root).with_suffix("").parts)
        for folder in ("stages", "people")
        for path in (root / folder).glob("*.py")
        for name in re.findall(r'^@register\("(\w+)"\)', path.read_text("utf-8"), re.MULTILINE)
    }
    assert found == recipe._MODULES


def test_a_finished_run_loads_no_other_stages_and_no_heavy_libraries():
    path = FOLDER / "folder.toml"
    program = (
        "import sys; from likeness.curation.run import curate; from likeness.curation.recipe import *; "
        f"build_segments(read_recipe({str(path)!r})); print(*sys.modules)"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    loaded = set(done.stdout.split())
    assert not loaded & {"torch", "transformers", "diffusers", "scipy", "hdbscan", "onnxruntime"}
    assert {name for name in loaded if name.startswith("likeness.curation.people.")} == {
        f"likeness.curation.people.{name}" for name in ("tracks", "tracker", "duplicates", "identities", "views")
    }
