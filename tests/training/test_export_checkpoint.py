import json

import pytest

from likeness.errors import WeightsError
from likeness.training.export import export_checkpoint


@pytest.fixture
def runs(tmp_path):
    for name in ("base", "magic_mirror", "recognizer", "shape"):
        folder = tmp_path / "runs" / name / "model"
        folder.mkdir(parents=True)
        (folder / "config.json").write_text(json.dumps({"name": name}))
    return tmp_path / "runs"


def test_parts_lie_where_they_are_looked_for(runs, tmp_path):
    listing = export_checkpoint(runs, tmp_path / "tiny")
    assert json.loads((tmp_path / "tiny" / "config.json").read_text()) == {"name": "base"}
    assert json.loads((tmp_path / "tiny" / "magic_mirror" / "config.json").read_text()) == {"name": "magic_mirror"}
    files = json.loads(listing.read_text())["files"]
    parts = {"magic_mirror/config.json", "recognizer/config.json", "shape/config.json"}
    assert set(files) == {"config.json", *parts}


def test_what_was_there_is_replaced(runs, tmp_path):
    (tmp_path / "tiny").mkdir()
    (tmp_path / "tiny" / "old.txt").write_text("old")
    export_checkpoint(runs, tmp_path / "tiny")
    assert not (tmp_path / "tiny" / "old.txt").exists()


def test_an_unfinished_run_is_named_and_nothing_is_lost(runs, tmp_path):
    (tmp_path / "tiny").mkdir()
    (tmp_path / "tiny" / "old.txt").write_text("old")
    (runs / "recognizer" / "model" / "config.json").unlink()
    (runs / "recognizer" / "model").rmdir()
    with pytest.raises(WeightsError, match="recognizer"):
        export_checkpoint(runs, tmp_path / "tiny")
    assert (tmp_path / "tiny" / "old.txt").exists()


def test_what_knows_nothing_of_the_base_stays_where_it_was_not_trained_anew(runs, tmp_path):
    export_checkpoint(runs, tmp_path / "tiny")
    for name in ("shape", "magic_mirror"):
        (runs / name).rename(runs / f"old_{name}")
    with pytest.raises(WeightsError, match="magic_mirror") as caught:
        export_checkpoint(runs, tmp_path / "tiny")
    assert "shape" not in str(caught.value)
    (runs / "old_magic_mirror").rename(runs / "magic_mirror")
    export_checkpoint(runs, tmp_path / "tiny")
    assert json.loads((tmp_path / "tiny" / "shape" / "config.json").read_text()) == {"name": "shape"}


def test_fantasy_id_is_shipped_where_it_was_trained(runs, tmp_path):
    export_checkpoint(runs, tmp_path / "tiny")
    assert not (tmp_path / "tiny" / "fantasy_id").exists()
    model = runs / "fantasy_id" / "model"
    model.mkdir(parents=True)
    (model / "config.json").write_text("{}")
    listing = export_checkpoint(runs, tmp_path / "tiny")
    assert (tmp_path / "tiny" / "fantasy_id" / "config.json").is_file()
    assert "fantasy_id/config.json" in json.loads(listing.read_text())["files"]


def add(runs, name, over=None):
    folder = runs / name / "model"
    folder.mkdir(parents=True)
    (folder / "config.json").write_text(json.dumps({"name": name}))
    if over:
        (runs / name / "recipe.json").write_text(json.dumps({"settings": {"base": f"runs/{over}/model"}}))


def test_what_goes_on_from_a_run_replaces_it(runs, tmp_path):
    add(runs, "base_guided")
    add(runs, "magic_mirror_more", over="base_guided")
    export_checkpoint(runs, tmp_path / "tiny")
    for folder, name in ((".", "base_guided"), ("magic_mirror", "magic_mirror_more")):
        config = json.loads((tmp_path / "tiny" / folder / "config.json").read_text())
        assert config == {"name": name}


def test_an_adapter_over_another_base_is_refused_and_nothing_is_lost(runs, tmp_path):
    export_checkpoint(runs, tmp_path / "tiny")
    add(runs, "magic_mirror_more", over="base")
    export_checkpoint(runs, tmp_path / "tiny")
    add(runs, "base_guided")
    with pytest.raises(WeightsError, match=r"magic_mirror_more.* was trained over runs/base/model"):
        export_checkpoint(runs, tmp_path / "tiny")
    assert json.loads((tmp_path / "tiny" / "config.json").read_text()) == {"name": "base"}
