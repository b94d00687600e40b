import json

import pytest
import torch

from likeness.errors import CheckpointError, WeightsError
from likeness.training import recipes
from likeness.training.engine import checkpoints
from likeness.training.engine.loop import FINAL_WEIGHTS_FILE, StageState
from likeness.training.methods.settings import MethodStageSettings
from likeness.training.recipes import resume

SMALL = {"kind": "images", "count": 4, "people": 4, "size_px": 32}


def recipe(**changes):
    stage = {"data": "images", "batch": 2, "steps": 10}
    values = {
        "kind": "vae",
        "images": dict(SMALL),
        "clips": SMALL | {"kind": "clips", "num_frames": 9},
        "validation": SMALL | {"seed": 90},
        "stages": [stage | {"name": "first"}, stage | {"name": "second"}],
    }
    for name, value in changes.items():
        place, *path = values, *name.split("__")
        for part in path[:-1]:
            place = place[int(part) if part.isdigit() else part]
        place[path[-1]] = value
    return recipes.build(values, where="test")


def do(folder, settings, number, *, steps, ended=False):
    """Leave what training a stage leaves."""
    stage = settings.stages[number]
    state = {"seed": 0, "elapsed_s": 6.0 * steps, "settings": stage.model_dump(mode="json")}
    checkpoints.save(folder / stage.name / "checkpoints", steps, {"model.vae": {"w": torch.ones(1)}}, state)
    if ended:
        (folder / stage.name / FINAL_WEIGHTS_FILE).write_bytes(b"")


@pytest.fixture
def begun(tmp_path):
    """A run whose first stage has ended and whose second has not begun."""
    assert resume.start_or_continue(recipe(), tmp_path)
    do(tmp_path, recipe(), 0, steps=10, ended=True)
    return tmp_path


def recorded(folder):
    return json.loads((folder / resume.RECORD_FILE).read_text())["settings"]


def test_a_run_without_a_checkpoint_may_become_another(tmp_path):
    assert resume.start_or_continue(recipe(), tmp_path)
    assert resume.start_or_continue(recipe(images__seed=3, stages__0__steps=3), tmp_path)
    assert recorded(tmp_path)["images"]["seed"] == 3


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"images__seed": 3}, r"`images\.seed` was 0, now it is 3"),
        ({"images__people": 3}, r"`images\.people`"),
        ({"seed": 1}, "`seed` was 0"),
        ({"model": {"widths": [8, 8, 8, 8]}}, r"`model\.widths`"),
        ({"stages__0__optimizer": {"learning_rate": 0.5}}, r"`stages\.0\.optimizer\.learning_rate`"),
        ({"stages__0__name": "other"}, r"`stages\.0\.name`"),
        ({"stages": [{"name": "second", "data": "clips", "steps": 1}]}, r"`stages\.0\.name`"),
    ],
)
def test_what_weights_came_from_may_not_change_and_the_record_stays(begun, changes, message):
    with pytest.raises(CheckpointError, match=message):
        resume.start_or_continue(recipe(**changes), begun)
    assert recorded(begun) == recipe().model_dump(mode="json")


@pytest.mark.parametrize(
    "changes",
    [
        {"stages__1__steps": 3, "stages__1__optimizer": {"learning_rate": 0.5}},
        {"stages__0__checkpoint_steps": 7},
        {"stages": recipe().model_dump()["stages"][:1]},
    ],
)
def test_what_no_weight_came_from_may(begun, changes):
    assert resume.start_or_continue(recipe(**changes), begun)
    assert (begun / "first" / FINAL_WEIGHTS_FILE).exists()
    assert recorded(begun) == recipe(**changes).model_dump(mode="json")


def test_a_stage_that_has_ended_goes_on_when_it_is_made_longer(begun):
    assert resume.start_or_continue(recipe(stages__0__steps=20), begun)
    assert not (begun / "first" / FINAL_WEIGHTS_FILE).exists()


def test_a_stage_cannot_become_shorter_than_it_is(begun):
    with pytest.raises(CheckpointError, match="already done 10 steps"):
        resume.start_or_continue(recipe(stages__0__steps=9), begun)
    assert (begun / "first" / FINAL_WEIGHTS_FILE).exists()


def test_a_stage_that_another_went_on_from_cannot_become_longer(begun):
    do(begun, recipe(), 1, steps=2)
    with pytest.raises(CheckpointError, match="`second` has begun"):
        resume.start_or_continue(recipe(stages__0__steps=20), begun)
    assert resume.start_or_continue(recipe(stages__1__steps=20), begun)


def test_other_files_in_a_folder_that_a_recipe_names_are_seen_and_another_path_to_the_same_is_not(tmp_path):
    for name in ("here", "there"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "weights").write_bytes(b"1")
    run = tmp_path / "run"
    assert resume.start_or_continue(recipe(start=str(tmp_path / "here")), run)
    do(run, recipe(), 0, steps=1)
    assert resume.start_or_continue(recipe(start=str(tmp_path / "there")), run)
    (tmp_path / "there" / "weights").write_bytes(b"2")
    with pytest.raises(CheckpointError, match=r"`start`.*has other files"):
        resume.start_or_continue(recipe(start=str(tmp_path / "there")), run)
    with pytest.raises(CheckpointError, match=r"`start` was .*, now it is None"):
        resume.start_or_continue(recipe(), run)
    with pytest.raises(WeightsError, match=r"`start` is .*does not exist"):
        resume.start_or_continue(recipe(start=str(tmp_path / "nowhere")), run)


def test_puppets_drawn_in_another_way_are_seen(begun, monkeypatch):
    monkeypatch.setattr(
        "likeness.training.data.datasets.render_puppets.digest", lambda settings: f"other {settings.kind}"
    )
    with pytest.raises(CheckpointError, match="drawn in another way"):
        resume.start_or_continue(recipe(), begun)


def test_a_complete_run_has_nothing_left_to_do_until_it_is_made_longer(begun):
    do(begun, recipe(), 1, steps=10, ended=True)
    (begun / "model").mkdir()
    resume.mark_complete(begun)
    assert not resume.start_or_continue(recipe(), begun)
    assert resume.start_or_continue(recipe(stages__1__steps=11), begun)
    assert resume.start_or_continue(recipe(stages__1__steps=11), begun)


def test_a_complete_run_ends_a_stage_again_whose_final_weights_were_deleted(begun):
    do(begun, recipe(), 1, steps=10, ended=True)
    (begun / "model").mkdir()
    resume.mark_complete(begun)
    assert not resume.start_or_continue(recipe(), begun)
    (begun / "second" / FINAL_WEIGHTS_FILE).unlink()
    assert resume.start_or_continue(recipe(), begun)


@pytest.mark.parametrize("text", [None, "{", "[]", "\0"])
def test_checkpoints_whose_record_is_lost_or_damaged_are_not_gone_on_from(begun, text):
    (begun / resume.RECORD_FILE).unlink()
    if text is not None:
        (begun / resume.RECORD_FILE).write_text(text)
    with pytest.raises(CheckpointError, match=r"recipe\.json"):
        resume.start_or_continue(recipe(), begun)


def test_settings_that_came_with_a_later_version_had_their_defaults(begun):
    record = json.loads((begun / resume.RECORD_FILE).read_text())
    del record["settings"]["stages"][0]["sheet_minutes"], record["settings"]["model"]
    (begun / resume.RECORD_FILE).write_text(json.dumps({"settings": record["settings"]}))
    assert resume.start_or_continue(recipe(), begun)


def test_what_killed_processes_left_is_removed(begun):
    old = begun / "first" / "checkpoints" / "partial_00000007"
    old.mkdir()
    (begun / "first" / "finished.partial").write_bytes(b"")
    (begun / "first" / ".likeness-write-abc").mkdir()
    assert resume.start_or_continue(recipe(), begun)
    assert sorted(path.name for path in (begun / "first").rglob("*") if path.parent.name != "step_00000010") == [
        "checkpoints", FINAL_WEIGHTS_FILE, "step_00000010",
    ]  # fmt: skip


def test_a_checkpoint_from_before_a_setting_is_not_continued_with_another_meaning(tmp_path):
    earlier = {"name": "s", "steps": 1, "data": "clips"}

    def check(**changes):
        settings = MethodStageSettings(**earlier, **changes)
        state = StageState.__new__(StageState)
        state.settings, state.folder, state.seed = settings, tmp_path, 0
        state._check_settings({"seed": 0, "settings": earlier})

    check(**MethodStageSettings.LEGACY_VALUES)
    with pytest.raises(CheckpointError, match="identity_average all -> qualifying"):
        check()


def test_a_record_from_before_a_setting_gets_what_it_was():
    stage = {"name": "s", "steps": 1, "data": "clips", "identity_weight": 0.1}
    record = {
        "settings": {"kind": "magic_mirror", "stages": [dict(stage), {**stage, "identity_average": "qualifying"}]}
    }
    upgraded = resume._upgrade_record(record)["settings"]["stages"]
    assert [each["identity_average"] for each in upgraded] == ["all", "qualifying"]
    assert "identity_average" not in record["settings"]["stages"][0]
