import pytest

from likeness.backbones.load import CogVideoXPipeline, load_pipeline
from likeness.errors import WeightsError


@pytest.fixture
def hub(monkeypatch):
    """Stand in for diffusers' loading: what is asked, and what is cached."""
    asked, cached = [], set()

    class Loaded:
        def to(self, _device):
            return self

    def load(name, *, dtype, local_files_only=False):
        asked.append((name, local_files_only))
        assert dtype is not None
        if local_files_only and name not in cached:
            raise OSError(f"{name} is not cached")
        return Loaded()

    monkeypatch.setattr(CogVideoXPipeline, "from_pretrained", load)
    return asked, cached


def test_network_is_not_asked_for_what_is_cached(hub):
    asked, cached = hub
    cached.add("some/model")
    load_pipeline("some/model", device="cpu")
    assert asked == [("some/model", True)]


def test_network_is_asked_for_what_is_not_cached(hub):
    asked, _ = hub
    load_pipeline("some/model", device="cpu")
    assert asked == [("some/model", True), ("some/model", False)]


def test_network_is_never_asked_for_a_folder(hub, tmp_path):
    asked, _ = hub
    with pytest.raises(WeightsError, match="is not cached"):
        load_pipeline(tmp_path, device="cpu")
    assert asked == [(str(tmp_path), True)]
