import os

import pytest

from likeness.weights import hashes


@pytest.fixture
def large(monkeypatch, tmp_path):
    monkeypatch.setenv("LIKENESS_HOME", str(tmp_path / "home"))
    monkeypatch.setattr(hashes, "MAX_UNCACHED_BYTES", 10)
    (tmp_path / "x.safetensors").write_bytes(b"0123456789abcdef")
    return tmp_path / "x.safetensors"


@pytest.fixture
def reads(monkeypatch):
    seen = []
    read = hashes.sha256_of
    monkeypatch.setattr(hashes, "sha256_of", lambda path: seen.append(path) or read(path))
    return seen


def test_a_large_file_is_read_once(large, reads):
    first = hashes.cached_sha256(large)
    assert hashes.cached_sha256(large) == first
    assert reads == [large]


def test_a_touched_file_is_read_again(large, reads):
    first = hashes.cached_sha256(large)
    large.write_bytes(b"0123456789abcdeF")
    os.utime(large, ns=(1, 1))
    assert hashes.cached_sha256(large) != first
    assert len(reads) == 2


@pytest.mark.parametrize("content", ["", "[]", "{]", '{"x": 1}'])
def test_a_damaged_index_is_made_anew(large, content):
    first = hashes.cached_sha256(large)
    (hashes.cache_path()).write_text(content)
    assert hashes.cached_sha256(large) == first


def test_small_files_are_always_read_and_leave_nothing(large, reads):
    large.write_bytes(b"small")
    hashes.cached_sha256(large)
    hashes.cached_sha256(large)
    assert len(reads) == 2
    assert not hashes.cache_path().exists()
