import json

import numpy as np
import pytest

from likeness.errors import ConfigError
from likeness.media import read_video
from likeness.records import Clip


def make_clip(side_px):
    frames = np.full((2, side_px, side_px, 3), 128, dtype=np.uint8)
    return Clip(frames=frames, fps=8.0, prompt="a man img", settings={"seed": 1})


@pytest.mark.parametrize(("side_px", "shown_px"), [(64, 256), (100, 300), (256, 256), (300, 300)])
def test_small_videos_are_enlarged_by_a_whole_number(tmp_path, side_px, shown_px):
    path = make_clip(side_px).save(tmp_path / "clip.mp4")
    assert read_video(path)[0].shape[1:3] == (shown_px, shown_px)
    assert json.loads(path.with_suffix(".json").read_text())["enlarged"] == shown_px // side_px


def test_enlarging_can_be_chosen(tmp_path):
    path = make_clip(64).save(tmp_path / "clip.mp4", enlarge=2)
    assert read_video(path)[0].shape[1:3] == (128, 128)


def test_shrinking_is_refused(tmp_path):
    with pytest.raises(ConfigError, match="`enlarge` is 0"):
        make_clip(64).save(tmp_path / "clip.mp4", enlarge=0)
