"""The table of weights: every name, and what it promises."""

import re
from pathlib import Path

import pytest

from likeness import weights
from likeness.errors import WeightsError
from likeness.generation.loading.presets import PRESETS
from likeness.weights import MODELS, HubSource

NEEDED = {
    *("cogvideox-5b", "cogvideox-2b", "cogvideox1.5-5b", "photomaker-v2", "taecvx", "fantasyid"),
    *("antelopev2", "buffalo_l", "auraface", "sface", "yunet"),
    *("raft", "viclip", "inception"),
}
NAMES = list(MODELS)
DOCUMENT = Path(__file__).parents[2] / "docs" / "weights.md"


@pytest.fixture(autouse=True)
def home(monkeypatch, tmp_path):
    monkeypatch.setenv("LIKENESS_HOME", str(tmp_path))
    return tmp_path


def test_every_name_is_in_the_table():
    assert MODELS.keys() >= NEEDED
    assert all(name == item.name for name, item in MODELS.items())


@pytest.mark.parametrize("name", NAMES)
def test_every_entry_states_what_a_user_must_know(name, home):
    item = weights.entry(name)
    assert item.purpose
    assert item.licence
    assert item.preset in ("open", "research")
    assert item.size_bytes > 0 or name == "fantasyid"
    assert item.source is not None
    assert item.folder == home / "models" / name
    for file in item.files:
        assert file.path.is_relative_to(item.folder)
        assert file.sha256 is None or re.fullmatch("[0-9a-f]{64}", file.sha256)
        assert file.git_sha1 is None or re.fullmatch("[0-9a-f]{40}", file.git_sha1)


@pytest.mark.parametrize("name", NAMES)
def test_what_is_missing_names_its_command_last(name):
    with pytest.raises(WeightsError) as caught:
        weights.locate(name)
    assert f"`likeness models pull {name}" in str(caught.value).splitlines()[-1]


def test_nothing_that_forbids_commercial_use_is_open():
    open_licences = {item.licence for item in MODELS.values() if item.preset == "open"}
    assert open_licences == {"Apache-2.0", "MIT"}


def test_insightface_packs_lie_where_insightface_looks(home):
    # It reads `root/models/NAME`.
    assert weights.entry("antelopev2").folder == home / "models" / "antelopev2"


def test_hub_revisions_are_commits_where_they_are_known():
    pinned = [item.source.revision for item in MODELS.values() if isinstance(item.source, HubSource)]
    assert sum(bool(re.fullmatch("[0-9a-f]{40}", revision)) for revision in pinned) >= 4


@pytest.mark.parametrize("name", PRESETS)
def test_presets_name_weights_that_they_may_use(name):
    preset = PRESETS[name]
    item = weights.entry(preset.weights)
    assert weights.LICENCE_PRESETS.index(item.preset) <= weights.LICENCE_PRESETS.index(preset.name)
    assert preset.is_bundled == (item.source is None)


def test_home_follows_the_platform(monkeypatch, tmp_path):
    assert weights.home() == tmp_path
    monkeypatch.delenv("LIKENESS_HOME")
    monkeypatch.setattr(weights.sys, "platform", "linux")
    monkeypatch.setenv("XDG_CACHE_HOME", "/x")
    assert weights.home().as_posix() == "/x/likeness"
    monkeypatch.delenv("XDG_CACHE_HOME")
    assert weights.home().as_posix().endswith(".cache/likeness")
    monkeypatch.setattr(weights.sys, "platform", "darwin")
    assert weights.home().as_posix().endswith("Library/Caches/likeness")


@pytest.mark.parametrize("name", NAMES)
def test_the_document_lists_every_weight(name):
    (row,) = [line for line in DOCUMENT.read_text().splitlines() if line.startswith(f"| `{name}` |")]
    assert f"| {MODELS[name].preset} |" in row
    assert MODELS[name].licence in row
