import json
from dataclasses import replace

import numpy as np
import pytest
from numpy.testing import assert_array_equal
from PIL import Image

from likeness.errors import ConfigError, MediaError
from likeness.generation.outputs.save import read_clip
from likeness.media import read_image, read_video, write_video
from likeness.records import Clip, Similarity


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


def test_one_frame_becomes_a_picture_with_its_record(tmp_path):
    clip = replace(make_clip(64), frames=make_clip(64).frames[:1])
    path = clip.save(tmp_path / "clip.png")
    assert read_image(path).shape == (256, 256, 3)
    record = json.loads(path.with_suffix(".json").read_text())
    with Image.open(path) as picture:
        assert json.loads(picture.info["comment"]) == record
    assert record["num_frames"] == 1


def test_more_than_one_frame_becomes_no_picture(tmp_path):
    with pytest.raises(ConfigError, match="Use `--frames 1` for a picture"):
        make_clip(64).save(tmp_path / "clip.png")
    (tmp_path / "folder.png").mkdir()
    with pytest.raises(MediaError, match="it is a folder"):
        replace(make_clip(64), frames=make_clip(64).frames[:1]).save(tmp_path / "folder.png")


def test_a_saved_clip_is_read_back_with_its_figures(tmp_path):
    distances = np.array([0.25, np.nan], np.float32)
    similarity = Similarity(distances=distances, cosines=1 - distances, threshold=0.6)
    clip = replace(make_clip(256), similarity=similarity)
    again = read_clip(clip.save(tmp_path / "clip.mp4"))
    assert (again.prompt, again.settings, again.fps) == (clip.prompt, clip.settings, clip.fps)
    assert_array_equal(again.similarity.distances, distances)
    assert again.similarity.score == pytest.approx(similarity.score)
    assert np.abs(again.frames.astype(int) - clip.frames).max() <= 2


def test_a_foreign_video_is_no_clip(tmp_path):
    write_video(tmp_path / "holiday.mp4", make_clip(64).frames, 8.0)
    with pytest.raises(MediaError, match="was not made by likeness"):
        read_clip(tmp_path / "holiday.mp4")
