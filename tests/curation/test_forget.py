import io
import tarfile

import pytest
from toy_stages import MODULES, STAGES, file_hashes, make_recipe, write_pictures

from likeness.curation.forget import forget
from likeness.curation.run import curate
from likeness.curation.verify import read_dropped, verify
from likeness.curation.writing.shards import add_member
from likeness.errors import ConfigError
from likeness.training.files.samples import read_samples


def curated(tmp_path, count=6, people=3):
    folder = write_pictures(tmp_path / "raw", count, people=people)
    recipe = make_recipe(folder, STAGES)
    return recipe, curate(recipe, tmp_path / "out", modules=MODULES)


def mentions(folder, text):
    return [path for path in folder.rglob("*") if path.is_file() and text.encode() in path.read_bytes()]


def test_a_forgotten_person_is_gone_and_stays_away(tmp_path):
    recipe, result = curated(tmp_path)
    assert mentions(tmp_path / "out", "person1")
    removed = forget(tmp_path / "out", person="person1")
    assert (removed.sources, removed.samples, removed.references) == (2, 2, 0)
    assert mentions(tmp_path / "out", "person1") == []
    assert verify(tmp_path / "out").problems == ()
    assert {sample.person for sample in read_samples(result.folder)} == {"person0", "person2"}
    again = curate(recipe, tmp_path / "out", modules=MODULES)
    assert {sample.person for sample in read_samples(again.folder)} == {"person0", "person2"}
    assert mentions(tmp_path / "out" / "data", "person1") == []
    # A new picture of the person is refused as well, and a fresh run without the person gives the same shards.
    write_pictures(tmp_path / "raw", 9, people=3)
    later = curate(recipe, tmp_path / "out", modules=MODULES)
    assert {sample.person for sample in read_samples(later.folder)} == {"person0", "person2"}
    for path in (tmp_path / "raw" / "person1").iterdir():
        path.unlink()
    fresh = curate(recipe, tmp_path / "fresh", modules=MODULES)
    shards = {name: data for name, data in file_hashes(fresh.folder).items() if name.endswith((".tar", ".parquet"))}
    assert shards.items() <= file_hashes(later.folder).items()


def test_a_forgotten_source_takes_its_reference_pictures_along(tmp_path):
    recipe, result = curated(tmp_path)
    removed = forget(tmp_path / "out", source="person0/003.png")
    assert (removed.sources, removed.samples, removed.references) == (1, 1, 1)
    assert verify(tmp_path / "out").problems == ()
    samples = read_samples(result.folder)
    assert sorted(len(sample.references) for sample in samples) == [0, 1, 1, 1, 1]
    again = curate(recipe, tmp_path / "out", modules=MODULES)
    assert len(read_samples(again.folder)) == 5
    assert [row["reason"] for row in read_dropped(again.folder)] == ["forgotten"]
    # A copy of the file under another name is the same source.
    assert forget(tmp_path / "out", source=str(tmp_path / "raw" / "person0" / "003.png")).samples == 0


def test_what_was_never_used_cannot_be_forgotten(tmp_path):
    curated(tmp_path, 2, 2)
    with pytest.raises(ConfigError, match=r"of `person7`\. Check the name\. People: person0, person1"):
        forget(tmp_path / "out", person="person7")
    with pytest.raises(ConfigError, match="Name either a person or a source"):
        forget(tmp_path / "out")
    with pytest.raises(ConfigError, match="has no ledger"):
        forget(tmp_path / "raw", person="person0")


def test_a_damaged_record_of_who_is_forgotten_stops_a_run(tmp_path):
    recipe, _ = curated(tmp_path, 2, 2)
    forget(tmp_path / "out", person="person1")
    (tmp_path / "out" / "ledger" / "forgotten.json").write_text("{")
    with pytest.raises(ConfigError, match="Restore it from a copy"):
        curate(recipe, tmp_path / "out", modules=MODULES)


def test_verify_names_every_difference(tmp_path):
    _, result = curated(tmp_path)
    shard = result.folder / "00000.tar"
    whole = shard.read_bytes()
    changed = bytearray(whole)
    changed[600] ^= 1
    shard.write_bytes(changed)
    assert "00000.tar has other bytes than its SHA-256 says" in verify(tmp_path / "out").problems
    shard.write_bytes(whole[:-1])
    assert any("bytes, not" in problem for problem in verify(tmp_path / "out").problems)
    shard.write_bytes(b"")
    with tarfile.open(shard, "w") as archive:
        add_member(archive, "extra.txt", b"")
    problems = verify(result.folder).problems
    assert "00000.tar holds 1 samples, not 3" in problems
    assert "sample extra in 00000.tar has no .json" in problems
    assert sum("which is not there" in problem for problem in problems) >= 3
    shard.unlink()
    (result.folder / "new.tar").write_bytes(io.BytesIO().getvalue())
    problems = verify(tmp_path / "out").problems
    assert {"00000.tar is missing", "new.tar is not in the manifest"} <= set(problems)
    with pytest.raises(ConfigError, match=r"has no manifest\.json"):
        verify(tmp_path / "raw")
