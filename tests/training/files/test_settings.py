import subprocess
import sys

import pytest

from likeness.config import build
from likeness.errors import ConfigError
from likeness.training.files.settings import FileDataSettings


def settings(**values):
    return build(FileDataSettings, {"kind": "files", "path": "people.jsonl", **values}, where="recipe")


def test_one_size_or_an_area_gives_the_grid():
    assert settings(height_px=480, width_px=720).grid().sizes == ((480, 720),)
    assert (480, 480) in settings(resolution_px=480).grid().sizes


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({}, "set either resolution_px, or height_px and width_px"),
        ({"resolution_px": 480, "height_px": 480, "width_px": 720}, "set either resolution_px"),
        ({"height_px": 480}, "go together"),
        ({"resolution_px": 480, "validation_path": "v", "validation_people": 2}, "set either validation_path"),
        ({"resolution_px": 480, "resolution": 3}, "Did you mean `resolution_px`"),
        ({"resolution_px": 480, "fps": 0}, "fps"),
        ({"resolution_px": 480, "references": "some"}, "references"),
        ({"resolution_px": 480, "kind": "puppets"}, "kind"),
    ],
)
def test_settings_that_do_not_go_together_are_refused(values, message):
    with pytest.raises(ConfigError, match=message):
        settings(**values)


def test_a_length_that_does_not_suit_the_base_is_refused_before_anything_is_read():
    with pytest.raises(ConfigError, match="Use 49"):
        settings(resolution_px=480, num_frames=50).grid()


def test_data_sets_are_read_without_a_deep_learning_framework():
    program = "import sys, likeness.training.files.samples, likeness.training.files.class_word\n"
    program += "import likeness.training.files.settings, likeness.training.files.buckets\nprint(*sys.modules)"
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert not {"torch", "diffusers", "transformers"} & set(done.stdout.split())
