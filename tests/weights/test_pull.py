import hashlib
import json
import zipfile
from pathlib import Path
from typing import Any, cast

import pytest

from likeness import weights
from likeness.errors import WeightsError
from likeness.weights import HubSource, UrlSource, WeightEntry, WeightFile, ZipSource
from likeness.weights.pull import pull

CONTENT = bytes(range(256)) * 40


def sha256(content):
    return hashlib.sha256(content).hexdigest()


def file(path, content=CONTENT, **changes):
    known = {"sha256": sha256(content), "size_bytes": len(content)}
    return WeightFile(path=Path(path), **(known | changes))


@pytest.fixture
def register(monkeypatch):
    def put(name="some", *, files, source, preset="open", **more):
        item = WeightEntry(name=name, preset=preset, licence="Some-1.0", files=tuple(files), source=source, **more)
        monkeypatch.setitem(weights.MODELS, name, item)
        return item

    return put


@pytest.fixture
def one_file(hub, register):
    hub.files["a.onnx"] = CONTENT
    register(files=[file("a.onnx")], source=UrlSource(url=f"{hub.url}/files/a.onnx"))
    return hub


@pytest.mark.usefixtures("one_file")
def test_pulled_weights_are_located_and_verified():
    calls = []
    pull("some", on_progress=lambda *args: calls.append(args))
    path = weights.locate("some")
    assert path == weights.home() / "models" / "some" / "a.onnx"
    assert path.read_bytes() == CONTENT
    assert calls[-1] == ("a.onnx", len(CONTENT), len(CONTENT))
    assert weights.verify("some").preset == "open"


@pytest.mark.usefixtures("one_file")
def test_missing_weights_name_the_command_that_brings_them():
    with pytest.raises(WeightsError, match=r"or run `likeness models pull some`\.$"):
        weights.locate("some")


def test_what_is_whole_is_not_fetched_again(one_file):
    pull("some")
    one_file.asked.clear()
    pull("some")
    assert not one_file.asked


def test_a_cut_connection_goes_on_where_it_broke(one_file, monkeypatch):
    monkeypatch.setattr("time.sleep", lambda _: None)
    one_file.cut_after_bytes = [4000]
    with pytest.raises(WeightsError, match="the same command resumes them"):
        pull("some")
    with pytest.raises(WeightsError, match="is missing"):
        weights.locate("some")
    one_file.is_down = False
    one_file.asked.clear()
    pull("some")
    assert one_file.asked == [("files/a.onnx", "bytes=4000-")]
    assert weights.locate("some").read_bytes() == CONTENT


def test_without_a_network_the_error_says_where_to_put_the_files(one_file):
    one_file.is_down = True
    with pytest.raises(WeightsError, match=r"put the files into .*models/some yourself.*--from FOLDER"):
        pull("some")


def test_a_server_without_ranges_sends_the_whole_file(one_file, monkeypatch):
    monkeypatch.setattr("time.sleep", lambda _: None)
    one_file.cut_after_bytes, one_file.ignores_ranges = [4000], True
    with pytest.raises(WeightsError):
        pull("some")
    one_file.is_down = False
    pull("some")
    assert weights.locate("some").read_bytes() == CONTENT


def test_an_altered_byte_is_refused_and_thrown_away(one_file):
    one_file.files["a.onnx"] = b"\xff" + CONTENT[1:]
    with pytest.raises(WeightsError, match=r"SHA-256 differs.*deleted"):
        pull("some")
    assert not [path for path in (weights.home() / "models" / "some").iterdir() if path.is_file()]
    one_file.files["a.onnx"] = CONTENT
    pull("some")


def test_a_file_of_another_length_is_refused(one_file):
    one_file.files["a.onnx"] = CONTENT + b"more"
    with pytest.raises(WeightsError):
        pull("some")
    with pytest.raises(WeightsError, match="is missing"):
        weights.locate("some")


def test_a_complete_partial_file_of_unknown_size_is_taken(hub, register):
    hub.files["a.onnx"] = CONTENT
    register(files=[file("a.onnx", size_bytes=None)], source=UrlSource(url=f"{hub.url}/files/a.onnx"))
    folder = weights.home() / "models" / "some"
    folder.mkdir(parents=True)
    (folder / ".a.onnx.part").write_bytes(CONTENT)
    pull("some")
    assert weights.locate("some").read_bytes() == CONTENT


def test_a_preset_refuses_less_free_weights(hub, register):
    register(files=[file("a.onnx")], source=UrlSource(url=f"{hub.url}/files/a.onnx"), preset="research")
    message = r"`open` does not allow `some`: its licence is Some-1.0.*pull some --preset research`"
    with pytest.raises(WeightsError, match=message):
        pull("some")
    with pytest.raises(WeightsError, match="is no preset"):
        pull("some", preset=cast(Any, "commercial"))
    assert not hub.asked


def test_what_ships_cannot_be_pulled():
    with pytest.raises(WeightsError, match="nothing to pull"):
        pull("tiny")


INDEX = json.dumps({"weight_map": {"a": "m-1.safetensors", "b": "m-2.safetensors"}}).encode()


@pytest.fixture
def repository(hub, register):
    """A sharded model with only its config in the table."""
    hub.files = {
        "config.json": b"{}",
        "part/m.safetensors.index.json": INDEX,
        "part/m-1.safetensors": CONTENT,
        "part/m-2.safetensors": CONTENT[::-1],
        "notes/readme.md": b"hello",
    }
    hub.large = {"part/m-1.safetensors", "part/m-2.safetensors"}
    register(
        files=[WeightFile(path=Path("config.json"))],
        source=HubSource(repository="org/model", patterns=("part/*",)),
        components=("part/m",),
    )
    return hub


def test_a_repository_comes_with_all_its_shards_and_nothing_else(repository):
    pull("some")
    folder = weights.locate("some")
    names = {path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file()}
    assert names == (repository.files.keys() - {"notes/readme.md"}) | {"checksums.json"}
    record = json.loads((folder / "checksums.json").read_text())
    assert record["revision"] == "0123456789abcdef0123456789abcdef01234567"
    assert record["files"]["part/m-1.safetensors"]["sha256"] == sha256(CONTENT)


@pytest.mark.usefixtures("repository")
def test_from_then_on_every_byte_of_a_repository_is_checked():
    pull("some")
    shard = weights.locate("some") / "part" / "m-2.safetensors"
    shard.write_bytes(CONTENT)
    with pytest.raises(WeightsError, match=r"m-2.safetensors is altered"):
        weights.verify("some")
    pull("some")  # The shard alone comes again.
    weights.verify("some")


@pytest.mark.parametrize("name", ["part/m-2.safetensors", "part/m.safetensors.index.json"])
def test_the_hubs_own_checksums_guard_the_download(repository, monkeypatch, name):
    rows = repository.siblings()
    monkeypatch.setattr(repository, "siblings", lambda: rows)
    repository.files[name] = b"#" + repository.files[name][1:]
    with pytest.raises(WeightsError, match=r"SHA-(256|1) differs"):
        pull("some")


@pytest.mark.usefixtures("repository")
def test_a_lost_shard_is_missed():
    pull("some")
    (weights.locate("some") / "checksums.json").unlink()
    (weights.locate("some") / "part" / "m-1.safetensors").unlink()
    with pytest.raises(WeightsError, match=r"m-1.safetensors is missing"):
        weights.locate("some")


def test_a_repository_without_a_needed_file_is_reported(repository):
    del repository.files["config.json"]
    with pytest.raises(WeightsError, match=r"org/model@main has no config.json"):
        pull("some")


def test_a_repository_cannot_write_outside_its_folder(repository, tmp_path):
    repository.files["part/../../../../evil"] = b"evil"
    with pytest.raises(WeightsError, match="outside"):
        pull("some")
    assert not list(tmp_path.rglob("evil"))


def test_files_placed_by_hand_need_no_network(repository):
    folder = weights.home() / "models" / "some"
    for name, content in repository.files.items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_bytes(content)
    assert weights.locate("some") == folder
    assert not repository.asked


@pytest.fixture
def pack(hub, register, tmp_path):
    archive = tmp_path / "pack.zip"
    with zipfile.ZipFile(archive, "w") as opened:
        opened.writestr("pack/a.onnx", CONTENT)
        opened.writestr("pack/b.onnx", CONTENT[::-1])
        opened.writestr("pack/../../c.onnx", b"not asked for")
    hub.files["pack.zip"] = archive.read_bytes()
    register(
        files=[file("a.onnx"), file("b.onnx", CONTENT[::-1])],
        source=ZipSource(url=f"{hub.url}/files/pack.zip", sha256=sha256(hub.files["pack.zip"])),
    )
    return archive


@pytest.mark.usefixtures("pack")
def test_an_archive_is_unpacked_and_thrown_away(hub):
    pull("some")
    folder = weights.locate("some")
    assert {path.name for path in folder.iterdir()} == {"a.onnx", "b.onnx", "checksums.json"}
    hub.asked.clear()
    pull("some")
    assert not hub.asked


@pytest.mark.usefixtures("pack")
def test_an_altered_archive_is_never_opened(hub):
    hub.files["pack.zip"] = b"#" + hub.files["pack.zip"][1:]
    with pytest.raises(WeightsError, match="SHA-256 differs"):
        pull("some")


@pytest.mark.parametrize("form", ["archive", "files"])
def test_a_folder_serves_instead_of_the_network(hub, pack, tmp_path, form):
    folder = tmp_path / "stick"
    folder.mkdir()
    if form == "archive":
        pack.rename(folder / "pack.zip")
    else:
        (folder / "a.onnx").write_bytes(CONTENT)
        (folder / "b.onnx").write_bytes(CONTENT[::-1])
    pull("some", folder=folder)
    assert weights.verify("some").size_bytes == 2 * len(CONTENT)
    assert not hub.asked
    assert any(folder.iterdir())


@pytest.mark.usefixtures("pack")
def test_a_folder_with_altered_or_missing_files_is_refused(tmp_path):
    (tmp_path / "stick").mkdir()
    (tmp_path / "stick" / "a.onnx").write_bytes(CONTENT[::-1])
    with pytest.raises(WeightsError, match=r"holds no b.onnx"):
        pull("some", folder=tmp_path / "stick")
    (tmp_path / "stick" / "b.onnx").write_bytes(CONTENT[::-1])
    with pytest.raises(WeightsError, match=r"a.onnx.part is altered"):
        pull("some", folder=tmp_path / "stick")


def test_a_folder_of_shards_comes_whole(repository, tmp_path):
    for name, content in repository.files.items():
        (tmp_path / "stick" / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / "stick" / name).write_bytes(content)
    pull("some", folder=tmp_path / "stick")
    assert len(weights.verify("some").files) == len(repository.files)
    assert not repository.asked


def test_what_weights_need_comes_along(hub, register):
    hub.files |= {"a.onnx": CONTENT, "b.onnx": CONTENT[:100]}
    register(files=[file("a.onnx")], source=UrlSource(url=f"{hub.url}/files/a.onnx"), needs=("other",))
    register("other", files=[file("b.onnx", CONTENT[:100])], source=UrlSource(url=f"{hub.url}/files/b.onnx"))
    pull("some")
    assert weights.locate("other").read_bytes() == CONTENT[:100]


def test_a_folder_with_patterns_is_copied_whole(hub, register, tmp_path):
    origin = tmp_path / "origin"
    (origin / "transformer").mkdir(parents=True)
    (origin / "model_index.json").write_text("{}")
    (origin / "transformer" / "part-1.bin").write_bytes(CONTENT)
    known = WeightFile(path=Path("model_index.json"))
    register(files=[known], source=HubSource(repository="someone/some", patterns=("*",)))
    pull("some", folder=origin)
    assert (weights.home() / "models" / "some" / "transformer" / "part-1.bin").read_bytes() == CONTENT
    assert not hub.asked


def test_a_folder_takes_what_else_is_needed_from_its_own_source(hub, register, tmp_path):
    hub.files["b.onnx"] = CONTENT[:100]
    register(files=[file("a.onnx")], source=UrlSource(url=f"{hub.url}/files/a.onnx"), needs=("other",))
    register("other", files=[file("b.onnx", CONTENT[:100])], source=UrlSource(url=f"{hub.url}/files/b.onnx"))
    (tmp_path / "stick").mkdir()
    (tmp_path / "stick" / "a.onnx").write_bytes(CONTENT)
    pull("some", folder=tmp_path / "stick")
    weights.verify("some")
    weights.verify("other")
    assert hub.asked == [("files/b.onnx", None)]


@pytest.mark.parametrize("lacks", ["the other", "a shard"])
def test_nothing_is_copied_where_something_cannot_be_had(repository, register, tmp_path, lacks):
    register("other", files=[file("b.onnx")], source=UrlSource(url=f"{repository.url}/files/b.onnx"))
    some = weights.MODELS["some"]
    register(files=some.files, source=some.source, components=some.components, needs=("other",))
    for name, content in repository.files.items():
        (tmp_path / "stick" / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / "stick" / name).write_bytes(content)
    if lacks == "a shard":
        (tmp_path / "stick" / "part" / "m-1.safetensors").unlink()
    with pytest.raises(WeightsError, match=r"b\.onnx cannot be had|m-1\.safetensors is missing"):
        pull("some", folder=tmp_path / "stick")
    assert not list((weights.home() / "models").rglob("m-2.safetensors"))


def test_a_hub_that_changed_is_compared_with_the_first_pull(repository):
    pull("some")
    (weights.locate("some") / "part" / "m-2.safetensors").unlink()
    repository.files["part/m-2.safetensors"] = CONTENT[1:] + b"#"
    with pytest.raises(WeightsError, match="SHA-256 differs"):
        pull("some")
