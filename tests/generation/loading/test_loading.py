import json
import shutil
from types import SimpleNamespace

import pytest
import torch
from safetensors.torch import load_file, save_file

from likeness.errors import ConfigError, WeightsError
from likeness.generation.likeness import Likeness
from likeness.generation.loading.load import load_adapter, verify_weights
from likeness.generation.loading.presets import PRESETS, find_preset
from likeness.generation.loading.resolve_weights import locate_backbone
from likeness.methods.fantasy_id import FantasyID
from likeness.weights import write_checksums

FILE = "diffusion_pytorch_model.safetensors"


@pytest.fixture
def adapter(checkpoint, tmp_path):
    folder = tmp_path / "magic_mirror"
    shutil.copytree(checkpoint / "magic_mirror", folder)
    return folder


def rewrite(folder, change):
    state = load_file(folder / FILE)
    change(state)
    save_file(state, folder / FILE, metadata={"format": "pt"})
    return state


def test_an_adapter_comes_back_as_it_was_saved(adapter):
    state = load_file(adapter / FILE)
    loaded = load_adapter(adapter).state_dict()
    assert loaded.keys() == state.keys()
    assert all(torch.equal(loaded[name], state[name]) for name in state)


def test_an_adapter_of_another_method_is_refused_with_the_option(checkpoint):
    with pytest.raises(WeightsError, match=r"is of FantasyID, not of MagicMirror\. Use `--method fantasy_id`"):
        load_adapter(checkpoint / "fantasy_id")
    assert type(load_adapter(checkpoint / "fantasy_id", "fantasy_id")).__name__ == "FantasyID"


def test_a_method_that_is_not_there_names_the_recipe_that_trains_it(tmp_path):
    with pytest.raises(WeightsError, match=r"likeness train recipes/tiny/fantasy_id\.toml"):
        load_adapter(tmp_path / "fantasy_id", "fantasy_id")


def test_a_class_of_ones_own_needs_the_folder_of_its_weights(checkpoint):
    with pytest.raises(ConfigError, match=r"Likeness\.load\(method=FantasyID, adapter=\.\.\.\)"):
        Likeness.load(method=FantasyID, backbone=checkpoint)
    likeness = Likeness.load(method=FantasyID, backbone=checkpoint, adapter=checkpoint / "fantasy_id")
    assert isinstance(likeness.method, FantasyID)


def test_a_sharded_adapter_loads_too(adapter):
    mirror = load_adapter(adapter)
    (adapter / FILE).unlink()
    mirror.save_pretrained(adapter, max_shard_size="50KB")
    assert not (adapter / FILE).exists()
    loaded = load_adapter(adapter).state_dict()
    assert all(torch.equal(loaded[name], tensor) for name, tensor in mirror.state_dict().items())


def test_all_that_is_wrong_with_an_adapter_is_in_one_error(adapter):
    write_checksums(adapter)

    def change(state):
        del state["embedding_mean"]
        state["stranger"] = torch.zeros(1)
        state["embedding_std"] = torch.zeros(3)
        state["fuse_module.layer_norm.bias"] = state["fuse_module.layer_norm.bias"] + 1

    rewrite(adapter, change)
    with pytest.raises(WeightsError) as caught:
        load_adapter(adapter)
    message = str(caught.value)
    assert "missing (1): embedding_mean" in message
    assert "extra (1): stranger" in message
    assert "embedding_std is 3 instead of 128" in message
    assert "fuse_module.layer_norm.bias" in message.split("altered")[1]


def test_an_altered_tensor_is_named_where_checksums_are_known(adapter):
    write_checksums(adapter)
    load_adapter(adapter)
    rewrite(adapter, lambda state: state["face_perceiver.query"].add_(1))
    with pytest.raises(WeightsError, match=r"altered \(1\): face_perceiver.query"):
        load_adapter(adapter)


def test_a_cut_or_absent_file_is_an_error_with_a_remedy(adapter):
    whole = (adapter / FILE).read_bytes()
    (adapter / FILE).write_bytes(whole[:-10])
    with pytest.raises(WeightsError, match="its header speaks of"):
        load_adapter(adapter)
    (adapter / FILE).unlink()
    with pytest.raises(WeightsError, match=r"is missing\. Copy or pull"):
        load_adapter(adapter)


def test_settings_of_another_adapter_are_refused(adapter):
    config = json.loads((adapter / "config.json").read_text())
    (adapter / "config.json").write_text(json.dumps(config | {"face_tokens": 5}))
    with pytest.raises(WeightsError, match=r"face_perceiver.query is 4x32 instead of 5x32"):
        load_adapter(adapter)


@pytest.mark.parametrize("content", ["[" * 100_000, "[]", "{", ""])
def test_settings_that_are_none_are_refused(adapter, content):
    (adapter / "config.json").write_text(content)
    with pytest.raises(WeightsError, match=r"cannot be read.*Copy or train it again"):
        load_adapter(adapter)


@pytest.mark.parametrize(("name", "command"), [("open", "cogvideox-2b"), ("research", "cogvideox-5b")])
def test_a_preset_without_its_weights_names_the_command(monkeypatch, tmp_path, adapter, name, command):
    monkeypatch.setenv("LIKENESS_HOME", str(tmp_path))
    for load in (lambda: locate_backbone(PRESETS[name]), lambda: Likeness.load(name, adapter=adapter)):
        with pytest.raises(WeightsError) as caught:
            load()
        assert f"likeness models pull {command}" in str(caught.value).splitlines()[-1]


def test_a_preset_finds_its_weights_in_the_home_folder(checkpoint, monkeypatch, tmp_path):
    folder = tmp_path / "models" / "cogvideox-2b"
    shutil.copytree(checkpoint, folder)
    (folder / "tokenizer" / "spiece.model").write_bytes(b"not read: the small tokenizer is of another kind")
    monkeypatch.setenv("LIKENESS_HOME", str(tmp_path))
    likeness = Likeness.load("open", device="cpu")
    assert likeness.preset.name == "open"
    assert likeness.pipeline.transformer.config.num_layers == 2


def test_an_adapter_of_nan_is_refused(adapter):
    def poison(state):
        name = next(name for name, tensor in state.items() if tensor.is_floating_point())
        state[name].fill_(float("nan"))

    rewrite(adapter, poison)
    (adapter.parent / "checksums.json").unlink(missing_ok=True)
    with pytest.raises(WeightsError, match="not finite"):
        load_adapter(adapter)


@pytest.mark.parametrize(
    ("preset", "method", "own_backbone", "names"),
    [
        ("tiny", "magic_mirror", False, ["tiny"]),
        ("open", "magic_mirror", False, ["cogvideox-2b"]),
        ("research", "fantasy_id", False, ["fantasyid", "fantasyid-mesh", "eva02-clip-l-336"]),
        ("tiny", "magic_mirror", True, []),
    ],
)
def test_verify_reads_all_weights_that_a_load_uses(preset, method, own_backbone, names, checkpoint, monkeypatch):
    verified, hashed = [], []
    entry = SimpleNamespace(files=())
    monkeypatch.setattr("likeness.weights.verify", lambda name: verified.append(name) or entry)
    monkeypatch.setattr("likeness.weights.entry", lambda _: entry)
    monkeypatch.setattr("likeness.generation.loading.load.store_sha256", lambda path, _: hashed.append(path))
    verify_weights(find_preset(preset), method, checkpoint if own_backbone else None, None)
    assert verified == names
    if own_backbone:
        assert set(hashed) == set(checkpoint.rglob("*.safetensors"))


def test_verify_stops_before_a_model_is_loaded(monkeypatch, tmp_path):
    monkeypatch.setenv("LIKENESS_HOME", str(tmp_path))
    monkeypatch.setattr("likeness.generation.likeness.load_adapter", lambda *_: pytest.fail("a model was loaded"))
    with pytest.raises(WeightsError, match="likeness models pull cogvideox-2b"):
        Likeness.load("open", adapter=tmp_path, verify=True)
