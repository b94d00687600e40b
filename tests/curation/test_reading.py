import io
import json
import tarfile

import pyarrow
import pyarrow.parquet
import pytest
from toy_stages import write_pictures

from likeness.curation.reading.hashes import HashIndex
from likeness.curation.reading.sources import find_sources
from likeness.curation.settings import ReadSettings
from likeness.curation.stages.read import first_candidate, open_source
from likeness.errors import ConfigError


def find(tmp_path, **read):
    return find_sources(ReadSettings(**read), HashIndex(tmp_path / "ledger" / "index.sqlite"))


def write_list(path, rows):
    if path.suffix == ".txt":
        path.write_text("".join(f"{row['media']}\n" for row in rows))
    elif path.suffix == ".csv":
        cells = [",".join(f'"{value}"' for value in row.values()) for row in rows]
        path.write_text("\n".join([",".join(rows[0]), *cells]))
    elif path.suffix == ".jsonl":
        path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    else:
        pyarrow.parquet.write_table(pyarrow.Table.from_pylist(rows), path)
    return path


@pytest.mark.parametrize("suffix", [".txt", ".csv", ".jsonl", ".parquet"])
def test_lists_name_files_and_facts(tmp_path, suffix):
    raw = write_pictures(tmp_path, 2)
    rows = [
        {"media": "person0/000.png", "person": "Ann", "licence": "CC0", "caption": "a woman, smiling"},
        {"media": "person1/001.png", "person": "Bea", "licence": "", "caption": ""},
        {"media": "lost.png", "person": "Cis", "licence": "", "caption": ""},
    ]
    sources = find(tmp_path, lists=[write_list(raw / f"list{suffix}", rows)])
    facts = [found.source.facts for found in sources.used.values()]
    expected = [{"person": "Ann", "licence": "CC0", "caption": "a woman, smiling"}, {"person": "Bea"}]
    assert facts == ([{}, {}] if suffix == ".txt" else expected)
    assert [(one.name, one.reason) for one in sources.left_out] == [("lost.png", "the file cannot be read")]


def test_a_list_adds_facts_to_files_of_a_folder(tmp_path):
    raw = write_pictures(tmp_path / "raw", 2)
    rows = [{"media": "person0/000.png", "person": "Ann"}]
    sources = find(
        tmp_path,
        folders=[raw],
        lists=[write_list(raw / "list.csv", rows)],
        are_folders_people=True,
        facts={"source": "x"},
    )
    assert sorted(found.source.facts["person"] for found in sources.used.values()) == ["Ann", "person1"]
    assert {found.source.facts["caption"][:14] for found in sources.used.values()} == {"a woman number"}
    assert {found.source.facts["source"] for found in sources.used.values()} == {"x"}


def test_members_of_tar_files_are_sources(tmp_path):
    raw = write_pictures(tmp_path / "raw", 2)
    with tarfile.open(tmp_path / "00000.tar", "w") as archive:
        archive.add(raw / "person0" / "000.png", "0001.png")
        archive.add(raw / "person1" / "001.png", "0001.reference0.png")
        archive.add(raw / "person1" / "001.png", "../outside.png")
        for name, text in (("0001.txt", "a woman"), ("0001.json", '{"person": "Ann", "boxes": [[1, 2]]}')):
            entry = tarfile.TarInfo(name)
            entry.size = len(text)
            archive.addfile(entry, io.BytesIO(text.encode()))
    sources = find(tmp_path, shards=[tmp_path])
    assert [(found.name, found.source.facts) for found in sources.used.values()] == [
        ("00000.tar/0001.png", {"person": "Ann", "caption": "a woman"}),
        ("00000.tar/0001.reference0.png", {"person": "Ann"}),
    ]
    assert sources.left_out == []
    with open_source(next(iter(sources.used.values())).source) as view:
        assert first_candidate(view).facts["width_px"] == 32


def test_hashes_are_remembered_until_the_file_changes(tmp_path, monkeypatch):
    raw = write_pictures(tmp_path / "raw", 2)
    before = find(tmp_path, folders=[raw])
    read = []
    from likeness.curation.reading import hashes

    monkeypatch.setattr(hashes, "hash_file", lambda path: read.append(path.name) or "00" * 32)
    assert find(tmp_path, folders=[raw]).used == before.used
    (raw / "person0" / "000.png").write_bytes((raw / "person1" / "001.png").read_bytes() + b"0")
    find(tmp_path, folders=[raw])
    assert read == ["000.png"]


def test_a_damaged_index_is_begun_anew(tmp_path):
    raw = write_pictures(tmp_path / "raw", 2)
    before = find(tmp_path, folders=[raw])
    (tmp_path / "ledger" / "index.sqlite").write_bytes(b"no database" * 1000)
    assert find(tmp_path, folders=[raw]).used == before.used


def test_what_cannot_be_read_as_a_list_is_an_error(tmp_path):
    with pytest.raises(ConfigError, match="is not a folder"):
        find(tmp_path, folders=[tmp_path / "none"])
    (tmp_path / "list.jsonl").write_text('{"media": "a.png"}\n{"media"}\n')
    with pytest.raises(ConfigError, match=r"list\.jsonl:2 is not JSON"):
        find(tmp_path, lists=[tmp_path / "list.jsonl"])
    (tmp_path / "list.csv").write_text("file\na.png\n")
    with pytest.raises(ConfigError, match="`media` is None"):
        find(tmp_path, lists=[tmp_path / "list.csv"])
    (tmp_path / "list.xlsx").write_text("")
    with pytest.raises(ConfigError, match="is not a list by its suffix"):
        find(tmp_path, lists=[tmp_path / "list.xlsx"])
