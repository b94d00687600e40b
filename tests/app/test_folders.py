"""What commands that create a folder leave behind when they are stopped, and what they never touch."""

import json

import pytest
from pydantic import ValidationError

from likeness.app import folders
from likeness.app.bench.manifest import Bench, BenchCase, BenchIdentity, run_folder
from likeness.app.folders import fill_folder, is_plain_name
from likeness.errors import ConfigError, LockedError

BAD_NAMES = [
    "",
    ".",
    "..",
    "../x",
    "/etc/x",
    "a/b",
    "a\\b",
    ".hidden",
    "a\nb",
    "a\x1b[2J",
    "a\x00",
    " a",
    "C:x",
    "x" * 201,
]


def create(parent, text="new"):
    with fill_folder(parent, "site", manifest="study.json") as draft:
        (draft / "site" / "media").mkdir()
        (draft / "site" / "media" / "v1.txt").write_text(text)
        (draft / "cases.json").write_text("cases")
        (draft / "study.json").write_text(text)


def stop_after(monkeypatch, count):
    """Every write after so many files ends as a kill would end it: nothing is cleaned up."""
    write, done = folders.write_bytes, []

    def once(path, data):
        if len(done) == count:
            raise KeyboardInterrupt
        done.append(path)
        write(path, data)

    monkeypatch.setattr(folders, "write_bytes", once)


def files_in(parent):
    return sorted(
        path.relative_to(parent).as_posix()
        for path in parent.rglob("*")
        if path.is_file() and path.name != ".create.lock"
    )


@pytest.mark.parametrize("count", [0, 1])
def test_what_a_killed_run_moved_is_replaced_by_the_next(tmp_path, monkeypatch, count):
    with monkeypatch.context() as patch:
        stop_after(patch, count)
        with pytest.raises(KeyboardInterrupt):
            create(tmp_path, "old")
    assert "site/media/v1.txt" in files_in(tmp_path)
    assert not (tmp_path / "study.json").exists()
    create(tmp_path)
    assert files_in(tmp_path) == ["cases.json", "site/media/v1.txt", "study.json"]
    assert (tmp_path / "site" / "media" / "v1.txt").read_text() == "new"
    with pytest.raises(ConfigError, match=r"already holds a study\.json"):
        create(tmp_path)


def test_a_list_of_moved_files_does_not_stay_in_a_complete_folder(tmp_path):
    create(tmp_path)
    (tmp_path / folders._UNFINISHED).write_text("{}")  # A run that was killed as its last act.
    with pytest.raises(ConfigError, match=r"already holds a study\.json"):
        create(tmp_path)
    assert files_in(tmp_path) == ["cases.json", "site/media/v1.txt", "study.json"]


@pytest.mark.parametrize("mine", ["site/mine.txt", "site/media/v1.txt"])
def test_what_a_user_put_into_an_unfinished_folder_stays(tmp_path, monkeypatch, mine):
    with monkeypatch.context() as patch:
        stop_after(patch, 0)
        with pytest.raises(KeyboardInterrupt):
            create(tmp_path)
    (tmp_path / mine).write_text("mine")
    before = files_in(tmp_path)
    with pytest.raises(ConfigError, match=r"left unfinished .* was added or changed since"):
        create(tmp_path)
    assert (tmp_path / mine).read_text() == "mine"
    assert files_in(tmp_path) == before


def test_a_link_in_the_place_of_an_unfinished_folder_is_not_followed(tmp_path, monkeypatch):
    parent, elsewhere = tmp_path / "study", tmp_path / "elsewhere"
    with monkeypatch.context() as patch:
        stop_after(patch, 0)
        with pytest.raises(KeyboardInterrupt):
            create(parent)
    (parent / "site").rename(elsewhere)
    (parent / "site").symlink_to(elsewhere)
    with pytest.raises(ConfigError, match="added or changed since"):
        create(parent)
    assert files_in(elsewhere) == ["media/v1.txt"]


def test_files_of_the_user_beside_it_are_not_replaced(tmp_path):
    (tmp_path / "cases.json").write_text("mine")
    with pytest.raises(ConfigError, match=r"cases\.json exists and would be overwritten"):
        create(tmp_path)
    assert files_in(tmp_path) == ["cases.json"]
    assert (tmp_path / "cases.json").read_text() == "mine"


def test_two_at_once_exclude_each_other(tmp_path):
    with fill_folder(tmp_path, "site", manifest="study.json") as draft:
        with pytest.raises(LockedError, match="is being filled by process"):
            create(tmp_path)
        (draft / "study.json").write_text("first")
    assert (tmp_path / "study.json").read_text() == "first"


@pytest.mark.parametrize("name", BAD_NAMES)
def test_what_is_no_plain_name_becomes_no_part_of_a_path(tmp_path, name):
    assert not is_plain_name(name)
    with pytest.raises(ConfigError, match="cannot be called"):
        run_folder(tmp_path, name)
    for make in (
        lambda: BenchCase(name=name, identity="anna", prompt="p", seed=0),
        lambda: BenchCase(name="anna_1", identity=name, prompt="p", seed=0),
        lambda: BenchIdentity(name=name, group="woman", references={"1.png": ""}),
        lambda: BenchIdentity(name="anna", group="woman", references={name: ""}),
    ):
        with pytest.raises(ValidationError):
            make()


@pytest.mark.parametrize("name", ["anna", "Zoë_1", "安娜", "a b", "anna.1"])
def test_names_of_people_are_plain(name):
    assert is_plain_name(name)


def test_a_benchmark_that_would_write_elsewhere_is_refused(tmp_path):
    target = tmp_path / "precious.mp4"
    target.write_bytes(b"mine")
    case = {"name": "../../../../precious", "identity": "anna", "prompt": "a woman img nods", "seed": 0}
    settings = {
        "protocol": "own", "title": "t", "source": "s", "is_complete": True, "cases": [case],
        "identities": [{"name": "anna", "group": "woman", "references": {"1.png": "0"}}],
    }  # fmt: skip
    (tmp_path / "bench").mkdir()
    (tmp_path / "bench" / "bench.json").write_text(json.dumps({"settings": settings}))
    with pytest.raises(ConfigError, match=r"cases\.0\.name.*becomes the name of a file"):
        Bench.load(tmp_path / "bench")
    twice = [{**case, "name": "anna_1"}, {**case, "name": "Anna_1"}]
    (tmp_path / "bench" / "bench.json").write_text(json.dumps({"settings": {**settings, "cases": twice}}))
    with pytest.raises(ConfigError, match="two videos are called 'anna_1'"):
        Bench.load(tmp_path / "bench")
    assert target.read_bytes() == b"mine"
