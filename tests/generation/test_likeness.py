import json
from dataclasses import replace

import numpy as np
import pytest
from numpy.testing import assert_array_equal

from likeness.errors import ConfigError, FaceError, PromptError, WeightsError
from likeness.generation import GenerationRequest, Likeness
from likeness.generation.loading.presets import PRESETS
from likeness.media import read_metadata, read_video

PROMPT = "a woman img in a red sweater nods"
FAST = {"steps": 2, "frames": 9}
FEW = {"steps": 2, "frames": 1}
pytestmark = pytest.mark.usefixtures("small_frames")


def test_clip_has_the_asked_frames_and_says_how_it_was_made(either, face):
    clip = either.generate(PROMPT, face, seed=3, negative_prompt="the park", **FAST)
    assert clip.frames.shape == (9, 64, 64, 3)
    assert clip.frames.dtype == np.uint8
    settings = clip.settings
    assert (settings["seed"], settings["steps"], settings["preset"]) == (3, 2, "tiny")
    assert settings["method"] == type(either.method).__name__
    assert settings["negative_prompt"] == "the park"
    assert {"likeness", "torch", "diffusers", "transformers", "python"} <= settings["versions"].keys()
    assert {
        "adapter/diffusion_pytorch_model.safetensors",
        "backbone/vae/diffusion_pytorch_model.safetensors",
    } <= set(settings["weights_sha256"])
    assert len(settings["references"][0]["sha256"]) == 64
    assert len(clip.similarity.distances) == 9


@pytest.fixture(scope="module")
def clip(likeness, face_of):
    return likeness.generate(PROMPT, face_of(0), seed=5, **FAST)


def test_same_seed_gives_the_same_bytes_of_video(likeness, clip, face, tmp_path):
    again = likeness.generate(PROMPT, face, seed=5, **FAST)
    for name, made in (("one", clip), ("two", again)):
        made.save(tmp_path / name / "clip.mp4")
    one, two = (tmp_path / name / "clip.mp4" for name in ("one", "two"))
    assert one.read_bytes() == two.read_bytes()
    assert one.with_suffix(".json").read_bytes() == two.with_suffix(".json").read_bytes()


def test_another_seed_gives_another_video(likeness, face):
    one, two = (likeness.generate(PROMPT, face, seed=seed, **FEW).frames for seed in (0, 1))
    assert (one != two).any()


def test_the_scale_is_by_default_what_suits_the_method(either, monkeypatch):
    chosen, name = PRESETS["tiny"].identity_scales, type(either.method).__name__
    assert either.settings().identity_scale == chosen[name] != 1
    for scale in (0.3, 0.4):  # The preset's own may be alike.
        monkeypatch.setitem(chosen, name, scale)
        assert either.settings().identity_scale == scale
    monkeypatch.delitem(chosen, name)
    assert either.settings().identity_scale == 1
    assert either.settings(identity_scale=0.0).identity_scale == 0


def test_scale_zero_does_not_see_the_face(either, face_of):
    one, two = (either.generate(PROMPT, face_of(seed), identity_scale=0, **FEW).frames for seed in (0, 1))
    assert_array_equal(one, two)


def test_the_face_changes_the_video(either, face_of):
    one, two = (either.generate(PROMPT, face_of(seed), **FEW).frames for seed in (0, 1))
    assert (one != two).any()


def test_a_reference_that_never_acts_is_the_stock_pipeline(either, face):
    stock = either.generate(PROMPT, face, identity_scale=0, steps=2, frames=1).frames
    # Neither of two steps lies wholly behind six tenths of them.
    late = either.generate(PROMPT, face, identity_start=0.6, steps=2, frames=1)
    assert_array_equal(late.frames, stock)
    assert late.settings["identity_start"] == 0.6


def test_controls_reach_the_method(either, face):
    usual = either.generate(PROMPT, face, **FEW).frames
    assert_array_equal(either.generate(PROMPT, face, identity_blocks=range(2), **FEW).frames, usual)
    assert (either.generate(PROMPT, face, identity_branch="both", **FEW).frames != usual).any()
    assert (either.generate(PROMPT, face, identity_end=0.5, **FEW).frames != usual).any()
    with pytest.raises(ConfigError, match="`blocks` names 7"):
        either.generate(PROMPT, face, identity_blocks="7", **FEW)


def test_a_batch_makes_what_single_calls_make(either, face_of):
    requests = [GenerationRequest(prompt=PROMPT, people=((face_of(s),),), seed=s) for s in (0, 1)]
    together = either.generate_many(requests, either.settings(**FAST), is_measured=False)
    for request, clip in zip(requests, together, strict=True):
        (alone,) = either.generate_many([request], either.settings(**FAST), is_measured=False)
        assert np.abs(alone.frames.astype(int) - clip.frames).max() <= 1


def test_a_second_reference_changes_the_video(either, face_of):
    both = [face_of(0), face_of(1)]
    assert (either.generate(PROMPT, both, **FEW).frames != either.generate(PROMPT, both[0], **FEW).frames).any()


def test_progress_counts_every_step(likeness, face):
    seen = []
    likeness.generate(PROMPT, face, on_step=lambda done, total: seen.append((done, total)), **FEW)
    assert seen == [(1, 2), (2, 2)]


def test_record_lies_beside_the_video_and_inside_it(clip, tmp_path):
    path = clip.save(tmp_path / "clip.mp4")
    beside = json.loads(path.with_suffix(".json").read_text())
    assert read_metadata(path) == beside
    assert beside["prompt"] == PROMPT
    assert beside["enlarged"] == 4
    assert beside["similarity"]["face_rate"] <= 1
    frames, fps = read_video(path)
    assert frames.shape == (9, 256, 256, 3)
    assert fps == 8


@pytest.mark.parametrize(
    ("settings", "words"),
    [
        ({"frames": 16}, "Try 17"),
        ({"steps": 0}, "`steps` is 0"),
        ({"guidance": 0.5}, "`guidance` is 0.5"),
        ({"identity_scale": -1}, "`identity_scale` is -1"),
    ],
)
def test_settings_out_of_range_are_refused(likeness, face, settings, words):
    with pytest.raises(ConfigError, match=words):
        likeness.generate(PROMPT, face, **settings)


def test_no_face_is_refused(likeness):
    with pytest.raises(ConfigError, match="at least one picture"):
        likeness.generate(PROMPT, [])


def test_references_of_another_engine_are_refused_before_any_step(likeness, face):
    steps = []
    with pytest.raises(FaceError, match="do not compare"):
        likeness.generate(PROMPT, replace(face, engine="other"), on_step=lambda *now: steps.append(now), **FAST)
    assert not steps


def test_prompt_without_trigger_is_refused_with_a_better_one(likeness, face):
    with pytest.raises(PromptError, match='Try: "a woman img in a red sweater nods"'):
        likeness.generate("a woman in a red sweater nods", face)


def test_unknown_names_are_refused_with_a_guess():
    with pytest.raises(ConfigError, match="Did you mean `tiny`"):
        Likeness.load("tinny")
    with pytest.raises(ConfigError, match="Did you mean `magic_mirror`"):
        Likeness.load("tiny", "magic_miror")


def test_absent_adapter_is_reported(checkpoint, tmp_path):
    with pytest.raises(WeightsError, match="No adapter"):
        Likeness.load(backbone=checkpoint, adapter=tmp_path / "nothing")


def test_absent_adapter_is_reported_before_a_backbone_is_fetched(monkeypatch):
    fetched = []
    monkeypatch.setattr("likeness.generation.likeness.load_pipeline", lambda *a, **_: fetched.append(a))
    with pytest.raises(WeightsError, match="No adapter"):
        Likeness.load("research")
    assert not fetched


def test_damaged_adapter_is_reported(checkpoint, tmp_path):
    for name in ("config.json", "diffusion_pytorch_model.safetensors"):
        content = (checkpoint / "magic_mirror" / name).read_bytes()
        (tmp_path / name).write_bytes(content[: len(content) // 2] if name.endswith("safetensors") else content)
    with pytest.raises(WeightsError, match="Copy or pull it again"):
        Likeness.load(backbone=checkpoint, adapter=tmp_path)
