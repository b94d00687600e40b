import json
from dataclasses import fields, replace

import numpy as np
import pytest
from numpy.testing import assert_array_equal
from safetensors.numpy import save_file

from likeness.errors import CharacterError, ConfigError
from likeness.generation import Character
from likeness.generation.inputs.characters import character_names, find_character, remove_character

CONSENT = "Ana agreed by e-mail on 3 May 2026."


@pytest.fixture(autouse=True)
def home(tmp_path, monkeypatch):
    monkeypatch.setenv("LIKENESS_HOME", str(tmp_path / "home"))
    return tmp_path / "home"


@pytest.fixture
def ana(face_of):
    return Character.create("ana", [face_of(0), face_of(1)], consent=CONSENT)


def test_a_saved_character_comes_back_whole(ana, home):
    assert ana.save() == home / "characters" / "ana.safetensors"
    again = Character.load("ana")
    assert (again.name, again.consent, again.sha256) == ("ana", CONSENT, ana.sha256)
    for before, after in zip(ana.faces, again.faces, strict=True):
        for field in fields(before):
            if field.name in {"landmarks", "embedding", "crop"}:
                assert_array_equal(getattr(after, field.name), getattr(before, field.name))
            else:
                assert getattr(after, field.name) == getattr(before, field.name)


def test_the_same_character_gives_the_same_bytes(ana, tmp_path):
    one, two = (ana.save(tmp_path / f"{name}.safetensors").read_bytes() for name in ("one", "two"))
    assert one == two


def test_any_path_serves(ana, tmp_path):
    ana.save(tmp_path / "elsewhere.safetensors")
    assert Character.load(tmp_path / "elsewhere.safetensors").name == "ana"
    assert character_names() == []


def test_a_saved_character_is_not_overwritten_unasked(ana, face_of):
    ana.save()
    other = Character.create("ana", [face_of(2)], consent=CONSENT)
    with pytest.raises(ConfigError, match="`--replace`"):
        other.save()
    assert Character.load("ana").sha256 == ana.sha256
    other.save(replace=True)
    assert Character.load("ana").sha256 == other.sha256


def test_the_record_names_the_character_but_not_the_consent_note(ana):
    assert CONSENT not in json.dumps(ana.describe())
    assert ana.describe() == {"name": "ana", "sha256": ana.sha256}


@pytest.mark.parametrize("name", ["", "../ana", "a/b", ".ana", " ana", "ana ", "a" * 65, "-ana", "a\nb"])
def test_names_that_are_no_file_names_are_refused(name, face_of):
    with pytest.raises(ConfigError, match="cannot be called"):
        Character.create(name, [face_of(0)], consent=CONSENT)


@pytest.mark.parametrize("consent", ["", "   ", "\n"])
def test_an_empty_consent_note_is_refused(consent, face_of):
    with pytest.raises(ConfigError, match="consent note is empty"):
        Character.create("ana", [face_of(0)], consent=consent)


def test_no_picture_and_several_engines_are_refused(face_of):
    with pytest.raises(ConfigError, match="at least one picture"):
        Character.create("ana", [], consent=CONSENT)
    with pytest.raises(ConfigError, match="several engines"):
        Character.create("ana", [face_of(0), replace(face_of(1), engine="other")], consent=CONSENT)


def test_spread_is_the_largest_distance_of_two_references(ana, face_of):
    distance = np.linalg.norm(face_of(0).embedding - face_of(1).embedding)
    assert ana.max_distance == pytest.approx(distance)
    assert Character.create("solo", [face_of(0)], consent=CONSENT).max_distance == 0


def test_an_unknown_name_is_refused_with_a_guess(ana):
    with pytest.raises(ConfigError, match="None is saved yet"):
        find_character("anna")
    ana.save()
    with pytest.raises(ConfigError, match="Did you mean `ana`"):
        find_character("anna")


def test_removing_deletes_only_what_was_saved_by_name(ana, tmp_path):
    ana.save()
    elsewhere = ana.save(tmp_path / "elsewhere.safetensors")
    assert not remove_character("ana").exists()
    with pytest.raises(ConfigError, match="Delete the file itself"):
        remove_character(str(elsewhere))
    assert elsewhere.exists()
    with pytest.raises(ConfigError, match="No character"):
        remove_character("ana")


def test_every_kind_of_damage_is_reported(ana, tmp_path):
    path = ana.save(tmp_path / "ana.safetensors")
    whole = path.read_bytes()
    flipped = bytearray(whole)
    flipped[-5] ^= 1
    note = whole.replace(b"Ana agreed", b"Bob agreed")
    for content in (b"", whole[:100], whole[:-10], bytes(flipped), note, b"\xff" * 200, b"{}"):
        path.write_bytes(content)
        with pytest.raises(CharacterError, match="damaged"):
            Character.load(path)


def test_foreign_and_newer_files_are_reported(ana, tmp_path, monkeypatch):
    foreign = tmp_path / "weights.safetensors"
    save_file({"weight": np.zeros(3, np.float32)}, foreign)
    with pytest.raises(CharacterError, match="something else, not a character"):
        Character.load(foreign)
    monkeypatch.setattr("likeness.generation.inputs.characters.FORMAT_VERSION", 2)
    newer = ana.save(tmp_path / "newer.safetensors")
    monkeypatch.undo()
    with pytest.raises(CharacterError, match="Update likeness"):
        Character.load(newer)


def test_other_suffixes_and_huge_files_are_refused(ana, tmp_path, monkeypatch):
    with pytest.raises(ConfigError, match="Let its name end"):
        ana.save(tmp_path / "ana.pkl")
    path = ana.save(tmp_path / "ana.safetensors")
    monkeypatch.setattr("likeness.generation.inputs.characters.MAX_FILE_BYTES", 1000)
    with pytest.raises(CharacterError, match="It is no character file"):
        Character.load(path)
