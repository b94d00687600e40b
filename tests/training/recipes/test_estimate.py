import pytest

from likeness.errors import ConfigError
from likeness.training import recipes
from likeness.training.recipes import estimate

SMALL = {"kind": "images", "count": 4, "people": 4, "size_px": 32}
STAGE = {"name": "a", "data": "images", "batch": 4, "steps": 10}


def recipe(**changes):
    values = {
        "kind": "vae",
        "images": SMALL,
        "clips": SMALL | {"kind": "clips"},
        "validation": SMALL,
        "stages": [STAGE],
    }
    return recipes.build(values | changes, where="test")


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"images": SMALL | {"count": 10**12}}, r"the disk of .* are free"),
        ({"stages": [STAGE | {"batch": 10**12}]}, r"`stages\.0\.batch`.*memory"),
        ({"stages": [STAGE | {"steps": 10**15}]}, r"11,574,074\.1 days of training"),
        ({"stages": [STAGE | {"steps": None, "minutes": 1e12}]}, "days of training"),
        ({"stages": [STAGE | {"steps": None, "samples": 4 * 10**15}]}, r"11,574,074\.1 days of training"),
        ({"model": {"widths": [8, 8, 8, 10**7]}}, r"`model\.widths\.3`.*memory"),
        ({"stages": [STAGE, STAGE | {"name": "A"}]}, "`a` is there twice"),
    ],
)
def test_what_no_machine_could_do_is_refused_with_an_estimate(tmp_path, changes, message):
    with pytest.raises(ConfigError, match=message):
        estimate.check_resources(recipe(**changes), tmp_path / "not" / "there", processes=1)
    assert list(tmp_path.iterdir()) == []


def test_data_that_memory_cannot_hold_are_refused(tmp_path, monkeypatch):
    monkeypatch.setattr(estimate, "_memory_bytes", lambda: 2e9)
    monkeypatch.setattr(estimate.shutil, "disk_usage", lambda _: type("Usage", (), {"free": 1e12}))
    with pytest.raises(ConfigError, match=r"3\.07 GB of memory \(images 3\.07 GB"):
        estimate.check_resources(recipe(images=SMALL | {"count": 10**6}), tmp_path, processes=1)


def test_what_is_just_possible_passes(tmp_path, monkeypatch):
    needed = 1.2e9  # 300 MB for each process.
    monkeypatch.setattr(estimate, "_memory_bytes", lambda: needed)
    estimate.check_resources(recipe(), tmp_path, processes=4)
    monkeypatch.setattr(estimate, "_memory_bytes", lambda: needed - 1)
    with pytest.raises(ConfigError, match=r"4 processes need at least 1\.2 GB of memory"):
        estimate.check_resources(recipe(), tmp_path, processes=4)


def test_processes_without_a_sample_in_every_step_are_refused(tmp_path):
    """The mean of no sample is no number."""
    assert estimate.max_useful_processes(recipe(stages=[STAGE, STAGE | {"name": "b", "batch": 2}])) == 2
    assert estimate.max_useful_processes(recipe(stages=[STAGE | {"accumulation": 2}])) == 2  # Of every micro-batch.
    with pytest.raises(ConfigError, match="--processes 4"):
        estimate.check_resources(recipe(), tmp_path, processes=5)


@pytest.mark.parametrize(
    "changes",
    [
        {"images": SMALL | {"size_px": 0}},
        {"images": SMALL | {"size_px": 10**6}},
        {"images": SMALL | {"shard": 0}},
        {"clips": SMALL | {"num_frames": 0}},
        {"stages": [STAGE | {"minutes": float("inf")}]},
        {"stages": [STAGE | {"image_every": 0}]},
        {"images": SMALL | {"count": 10**400}},
        {"images": SMALL | {"count": "9" * 400}},
        {"stages": [STAGE | {"steps": 2**63}]},
        {"stages": [STAGE | {"batch": int("9" * 4000) ** 2}]},
        *(
            {"stages": [STAGE | {"name": name}]}
            for name in ("../../x", "/tmp/x", "a/b", "", ".", "model", "x" * 300, "a\0")
        ),
    ],
)
def test_settings_out_of_range_are_refused(changes):
    with pytest.raises(ConfigError):
        recipe(**changes)
