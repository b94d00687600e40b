"""Sliders and sources of a face's shape while clips are made."""

import json
import sys
from pathlib import Path

import numpy as np
import pytest

from likeness.cli import main
from likeness.errors import ConfigError
from likeness.faces import find_faces
from likeness.generation import Likeness
from likeness.identity.face_shape.puppet import PuppetShape
from likeness.identity.face_shape.sliders import SHAPE_NUMBERS, FaceShape
from likeness.media import resize
from likeness.puppets import sample_image, sample_person

sys.path.insert(0, str(Path(__file__).parents[2] / "benchmarks"))

from sliders import IN_FRAMES, draw_sheet, measure_frames, rises, slide

PROMPT = "a woman img in a red sweater nods"
QUICK = {"steps": 1, "frames": 1}


@pytest.fixture(scope="module")
def fantasy(checkpoint):
    return Likeness.load(backbone=checkpoint, method="fantasy_id")


def test_a_slider_changes_the_clip_and_zero_does_not(fantasy, face):
    plain = fantasy.generate(PROMPT, face, **QUICK)
    same = fantasy.generate(PROMPT, face, face_shape=FaceShape(), **QUICK)
    moved = fantasy.generate(PROMPT, face, face_shape=FaceShape(jaw=3), **QUICK)
    assert np.array_equal(plain.frames, same.frames)
    assert not np.array_equal(plain.frames, moved.frames)
    assert moved.settings["face_shape"]["jaw"] == 3
    json.dumps(moved.to_dict())
    assert fantasy.method.shape_source is None


def test_a_named_source_is_read_and_the_methods_own_stays(fantasy, face):
    own = PuppetShape(3)
    fantasy.method.shape_source = own
    try:
        mine = fantasy.generate(PROMPT, face, **QUICK)
        named = fantasy.generate(PROMPT, face, shape="puppet:3", **QUICK)
        other = fantasy.generate(PROMPT, face, shape="puppet:4", **QUICK)
        assert fantasy.method.shape_source is own
    finally:
        fantasy.method.shape_source = None
    assert np.array_equal(mine.frames, named.frames)
    assert not np.array_equal(mine.frames, other.frames)


def test_a_method_without_shapes_refuses_them(likeness, face):
    with pytest.raises(ConfigError, match="MagicMirror reads no shape"):
        likeness.generate(PROMPT, face, face_shape=FaceShape(nose=1), **QUICK)
    with pytest.raises(ConfigError, match="`shape` is 'learned'"):
        likeness.generate(PROMPT, face, shape="learned", **QUICK)
    with pytest.raises(ConfigError, match="MagicMirror reads no shape"):
        slide(likeness, PROMPT, [face], "jaw")


def test_the_sheet_shows_every_setting_of_every_person(fantasy, face_of):
    people = []
    for number in (0, 1):
        steps = slide(fantasy, PROMPT, [face_of(number)], "eyes", settings=(-2.0, 2.0), **QUICK)
        assert rises([step.on_vertices for step in steps]) == 1
        assert [step.deviations for step in steps] == [-2, 2]
        people.append((face_of(number), steps))
    sheet = draw_sheet(people, cell_px=32)
    assert sheet.shape == (4 * 36 + 4, 150 + 3 * 36 + 4, 3)
    with pytest.raises(ConfigError, match="No slider is called `ears`"):
        slide(fantasy, PROMPT, [face_of(0)], "ears")


def test_frames_are_measured_as_their_landmarks_say():
    clip = sample_image(51, person=sample_person(11), size_px=128)
    frame = resize(clip.frames[0], 384, 384)
    assert find_faces(frame)
    points = clip.landmarks[0]
    along = points[3] - points[0]
    below = points[4] - (points[0] + points[3]) / 2
    down = (along[0] * below[1] - along[1] * below[0]) / (along @ along)
    assert measure_frames(frame[None], "nose") == pytest.approx(float(down), abs=0.12)
    assert np.isnan(measure_frames(np.zeros((1, 64, 64, 3), np.uint8), "nose"))
    assert np.isnan(measure_frames(frame[None], "chin"))
    assert set(IN_FRAMES) == set(SHAPE_NUMBERS) - {"chin"}


def test_the_command_line_has_the_sliders(checkpoint, tmp_path, capsys, monkeypatch, face):
    monkeypatch.setattr("likeness.generation.inputs.references._read_picture", lambda *_: [face])
    (tmp_path / "face.png").write_bytes(b"not read here")
    words = [
        "generate",
        PROMPT,
        "--face",
        str(tmp_path / "face.png"),
        "--backbone",
        str(checkpoint),
        "--steps",
        "1",
    ]
    words += ["--frames", "1", "--method", "fantasy_id", "-o", str(tmp_path / "me.png")]
    assert main([*words, "--jaw", "2", "--eyes", "-1.5", "--shape", "puppet:3"]) == 0
    record = json.loads((tmp_path / "me.json").read_text())["settings"]
    assert record["shape"] == "puppet:3"
    assert {name: value for name, value in record["face_shape"].items() if value} == {"jaw": 2, "eyes": -1.5}
    assert main([*words, "--jaw", "4"]) == 2
    assert "--jaw" in capsys.readouterr().err
