import json
import re

import pytest
import torch
from safetensors.torch import load_file, save_file

from likeness.errors import WeightsError
from likeness.weights import write_checksums
from likeness.weights.files import component_problems, read_listing
from likeness.weights.strict import (
    find_altered,
    read_file_shapes,
    read_shapes,
    refuse_differences,
    shapes_of,
    tensor_checksums,
)

STATE = {"a.weight": torch.ones(2, 3), "b.weight": torch.zeros(4), "scale": torch.tensor(2.0)}


def test_shapes_are_read_without_the_tensors(tmp_path):
    save_file(STATE, tmp_path / "m.safetensors", metadata={"format": "pt"})
    assert read_shapes(tmp_path, "m") == {"a.weight": (2, 3), "b.weight": (4,), "scale": ()}


def test_all_that_is_wrong_is_in_one_error():
    found = {"a.weight": (3, 2), "c.weight": (1,), "scale": ()}
    with pytest.raises(WeightsError) as caught:
        refuse_differences(shapes_of(STATE), found, what="This", remedy="Do that.", altered=["scale"])
    assert str(caught.value).splitlines() == [
        "This does not hold the expected tensors:",
        "  missing (1): b.weight",
        "  extra (1): c.weight",
        "  misshapen (1): a.weight is 3x2 instead of 2x3",
        "  altered (1): scale",
        "Do that.",
    ]


def test_what_fits_is_let_through():
    rest = {name: tuple(tensor.shape) for name, tensor in STATE.items() if name != "scale"}
    refuse_differences(shapes_of(STATE), shapes_of(STATE), what="This", remedy="")
    refuse_differences(shapes_of(STATE), rest, what="This", remedy="", optional=["scale"])
    with pytest.raises(WeightsError, match=r"missing \(1\): scale"):
        refuse_differences(shapes_of(STATE), rest, what="This", remedy="")


def test_long_lists_are_cut():
    expected = {f"layer.{number}": (1,) for number in range(100)}
    with pytest.raises(WeightsError, match=r"missing \(100\): .* and 88 more"):
        refuse_differences(expected, {}, what="This", remedy="")


def shard(folder):
    save_file({"a.weight": STATE["a.weight"]}, folder / "m-1.safetensors")
    save_file({"b.weight": STATE["b.weight"]}, folder / "m-2.safetensors")
    places = {"a.weight": "m-1.safetensors", "b.weight": "m-2.safetensors"}
    (folder / "m.safetensors.index.json").write_text(json.dumps({"weight_map": places}))


def test_shards_are_one_set_of_tensors(tmp_path):
    shard(tmp_path)
    assert read_shapes(tmp_path, "m") == {"a.weight": (2, 3), "b.weight": (4,)}


def test_an_index_that_its_shards_contradict_is_refused(tmp_path):
    shard(tmp_path)
    save_file({"other": STATE["b.weight"]}, tmp_path / "m-2.safetensors")
    with pytest.raises(WeightsError, match=r"disagree on b.weight, other"):
        read_shapes(tmp_path, "m")


@pytest.mark.parametrize(
    "content", [b"[" * 100_000, b'{"a": "\xe9"}', b"[]", b'{"weight_map": {"a": 1}}', b'{"weight_map": [1]}']
)
def test_a_damaged_index_or_list_of_checksums_is_named(tmp_path, content):
    index, listing = tmp_path / "m.safetensors.index.json", tmp_path / "checksums.json"
    index.write_bytes(content)
    listing.write_bytes(content)
    with pytest.raises(WeightsError, match=r"m\.safetensors\.index\.json is damaged"):
        read_shapes(tmp_path, "m")
    assert [line.split(" is damaged")[0] for line in component_problems(tmp_path, "m")] == [str(index)]
    with pytest.raises(WeightsError, match=r"checksums\.json is damaged"):
        read_listing(tmp_path, "Copy it again.")


@pytest.mark.parametrize("cut", [4, 40, -1])
def test_a_cut_file_is_refused(tmp_path, cut):
    path = tmp_path / "m.safetensors"
    save_file(STATE, path)
    path.write_bytes(path.read_bytes()[:cut])
    with pytest.raises(WeightsError, match=r"no safetensors file|bytes, and its header"):
        read_file_shapes(path)


def test_an_altered_tensor_is_named(tmp_path):
    save_file(STATE, tmp_path / "m.safetensors")
    write_checksums(tmp_path)
    assert find_altered(tmp_path) == []
    save_file(STATE | {"b.weight": torch.tensor([0.0, 0, 0, 1])}, tmp_path / "m.safetensors")
    assert find_altered(tmp_path) == ["b.weight"]


def test_a_list_one_folder_up_counts(tmp_path):
    (tmp_path / "part").mkdir()
    save_file(STATE, tmp_path / "part" / "m.safetensors")
    (tmp_path / "other.txt").write_text("as it was")
    write_checksums(tmp_path)
    (tmp_path / "other.txt").write_text("as it is")
    assert find_altered(tmp_path / "part") == []
    assert find_altered(tmp_path) == ["other.txt"]


def test_equal_tensors_have_equal_checksums(tmp_path):
    save_file(STATE, tmp_path / "m.safetensors")
    save_file(load_file(tmp_path / "m.safetensors"), tmp_path / "n.safetensors", metadata={"x": "y"})
    assert tensor_checksums(tmp_path / "m.safetensors") == tensor_checksums(tmp_path / "n.safetensors")


@pytest.mark.parametrize("name", ["pytorch_model.bin", "model.fp16.safetensors"])
def test_weights_in_another_format_are_named_with_what_to_do(tmp_path, name):
    (tmp_path / name).write_bytes(b"")
    with pytest.raises(WeightsError, match=rf"holds {re.escape(name)} instead.*save_pretrained"):
        read_shapes(tmp_path, "model")
