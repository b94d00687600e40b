import json
import time

import numpy as np
import pytest
from toy_stages import MODULES, STAGES, file_hashes, make_recipe, write_pictures

from likeness.curation.run import curate
from likeness.curation.verify import read_dropped, verify
from likeness.errors import ConfigError, LockedError
from likeness.files import lock
from likeness.media.video import write_video
from likeness.training.files.samples import read_samples


def test_samples_are_read_back_by_training(tmp_path):
    folder = write_pictures(tmp_path / "raw", 4)
    result = curate(make_recipe(folder, STAGES), tmp_path / "out", modules=MODULES)
    samples = read_samples(result.folder)
    assert len(samples) == 4 == result.manifest["counts"]["samples"]
    assert {sample.person for sample in samples} == {"person0", "person1"}
    assert all(sample.caption == "a woman stands in a park" and sample.class_word == "woman" for sample in samples)
    assert all(len(sample.references) == 1 and sample.licence == "CC0" for sample in samples)
    assert [one["samples"] for one in result.manifest["shards"]] == [3, 1]
    assert verify(tmp_path / "out").problems == ()


def test_videos_are_cut_scaled_and_resampled(tmp_path):
    raw = tmp_path / "raw"
    frames = np.random.default_rng(0).integers(0, 255, (12, 40, 64, 3), np.uint8)
    write_video(raw / "clip.mp4", frames, 12.0)
    (raw / "clip.txt").write_text("a man walks")
    recipe = make_recipe(raw, [], short_side_px=20, fps=6.0)
    result = curate(recipe, tmp_path / "out")
    (sample,) = read_samples(result.folder)
    from likeness.training.files.tar import opened

    with opened(sample.media) as path:
        from likeness.media.video import read_video

        written, fps = read_video(path)
    assert written.shape == (6, 20, 32, 3)
    assert fps == 6.0


def test_a_second_run_changes_and_computes_nothing(tmp_path):
    folder, log = write_pictures(tmp_path / "raw"), tmp_path / "log"
    stages = [{**stage, "log": str(log)} for stage in STAGES]
    first = curate(make_recipe(folder, stages), tmp_path / "out", modules=MODULES)
    calls, before = log.read_text(), file_hashes(first.folder)
    second = curate(make_recipe(folder, stages), tmp_path / "out", modules=MODULES)
    assert first.is_new
    assert not second.is_new
    assert log.read_text() == calls
    assert file_hashes(second.folder) == before
    assert calls.count("brightness") == calls.count("caption") == 4


@pytest.mark.slow
def test_a_second_run_is_a_hundred_times_faster(tmp_path):
    folder = write_pictures(tmp_path / "raw", 100)
    recipe = make_recipe(folder, [{**STAGES[0], "pause_s": 0.02}, *STAGES[1:]])
    times_s = []
    for _ in range(2):
        started_s = time.perf_counter()
        curate(recipe, tmp_path / "out", modules=MODULES)
        times_s.append(time.perf_counter() - started_s)
    assert times_s[0] > 100 * times_s[1]


def test_a_change_runs_only_later_stages(tmp_path):
    folder, log = write_pictures(tmp_path / "raw"), tmp_path / "log"
    first = [{**stage, "log": str(log)} for stage in STAGES]
    curate(make_recipe(folder, first), tmp_path / "out", modules=MODULES)
    log.unlink()
    changed = [*first[:2], {**first[2], "noun": "man"}]
    result = curate(make_recipe(folder, changed), tmp_path / "out", modules=MODULES)
    assert {line.split()[0] for line in log.read_text().splitlines()} == {"caption"}
    assert {sample.class_word for sample in read_samples(result.folder)} == {"man"}


def test_a_new_source_runs_alone(tmp_path):
    folder, log = write_pictures(tmp_path / "raw", 4), tmp_path / "log"
    stages = [{"name": "toy_brightness", "log": str(log)}, {"name": "toy_caption", "log": str(log)}]
    curate(make_recipe(folder, stages), tmp_path / "out", modules=MODULES)
    log.unlink()
    write_pictures(folder, 5)
    curate(make_recipe(folder, stages), tmp_path / "out", modules=MODULES)
    assert len(log.read_text().splitlines()) == 2


def test_everything_is_accounted_for(tmp_path):
    raw = write_pictures(tmp_path / "raw", 4)
    (raw / "person0" / "copy.png").write_bytes((raw / "person0" / "000.png").read_bytes())
    (raw / "broken.png").write_bytes((raw / "person0" / "000.png").read_bytes()[:60])
    (raw / "empty.mp4").touch()
    (raw / "notes.pdf").write_text("notes")
    stages = [{"name": "toy_brightness", "min_brightness": 50}, {"name": "toy_limit", "most": 2}]
    result = curate(make_recipe(raw, stages), tmp_path / "out", modules=MODULES)
    dropped = read_dropped(result.folder)
    assert sorted((row["stage"], row["reason"]) for row in dropped) == [
        ("read", "not a picture or a video"),
        ("read", "the file cannot be read"),
        ("read", "the file cannot be read"),
        ("read", "the same bytes as another file"),
        ("toy_brightness", "too dark"),
        ("toy_limit", "too many"),
    ]
    assert str(tmp_path) not in json.dumps(dropped)
    assert result.manifest["counts"]["samples"] == 2


def test_licences_and_consent_are_checked_before_any_work(tmp_path):
    folder, log = write_pictures(tmp_path / "raw", 2), tmp_path / "log"
    stages = [{"name": "toy_brightness", "log": str(log)}]
    first = curate(make_recipe(folder, stages, licences=["MIT"]), tmp_path / "a", modules=MODULES)
    second = curate(make_recipe(folder, stages, needs_consent=True), tmp_path / "b", modules=MODULES)
    assert not log.exists()
    assert first.manifest["dropped"] == {"read": {"its licence is not allowed": 2}}
    assert second.manifest["dropped"] == {"read": {"no consent is recorded": 2}}


def test_captions_that_training_refuses_are_dropped(tmp_path):
    folder = write_pictures(tmp_path / "raw", 3)
    (folder / "person0" / "000.txt").write_text("женщина улыбается")
    (folder / "person1" / "001.txt").unlink()
    (folder / "person0" / "002.json").write_text('{"class_word": "man"}')
    result = curate(make_recipe(folder, []), tmp_path / "out")
    assert result.manifest["dropped"]["write"] == {
        "it has no caption": 1,
        "its caption is not English text": 1,
        "its class word is not in the caption": 1,
    }


def test_one_driver_works_on_a_folder(tmp_path):
    recipe = make_recipe(write_pictures(tmp_path / "raw", 1), [])
    with lock(tmp_path / "out" / "ledger" / "lock"), pytest.raises(LockedError, match="is in use by process"):
        curate(recipe, tmp_path / "out")


def test_mistakes_in_a_recipe_are_named(tmp_path):
    with pytest.raises(ConfigError, match=r"there is no stage `toy_brightnes`\. Did you mean `toy_brightness`"):
        curate(make_recipe(tmp_path, [{"name": "toy_brightnes"}]), tmp_path / "out", modules=MODULES)
    recipe = make_recipe(tmp_path, [{"name": "toy_brightness", "min_brightnes": 1}])
    with pytest.raises(ConfigError, match=r"unknown setting `min_brightnes`\. Did you mean `min_brightness`"):
        curate(recipe, tmp_path / "out", modules=MODULES)
    with pytest.raises(ConfigError, match=r"`toy_caption` needs brightness.* Move `toy_brightness` before it"):
        curate(make_recipe(tmp_path, [STAGES[2], STAGES[0]]), tmp_path / "out", modules=MODULES)
    with pytest.raises(ConfigError, match=r"unknown setting `write.shard_sample`\. Did you mean `shard_samples`"):
        make_recipe(tmp_path, [], shard_sample=1)
