"""Files of tensors as they break: cut, empty, of another kind, or full of NaN. Every one ends in a `WeightsError`."""

import collections
import json
import pickle
import struct

import numpy as np
import pytest
import torch
from safetensors.torch import save_file

from likeness.errors import CheckpointError, WeightsError
from likeness.weights.tensors import read_arrays, read_metadata, read_pickle, read_tensors

STATE = {"a": torch.arange(6.0).reshape(2, 3), "b": torch.tensor([1, 2])}


@pytest.fixture
def path(tmp_path):
    save_file(STATE, tmp_path / "x.safetensors", metadata={"format": "pt"})
    return tmp_path / "x.safetensors"


def test_tensors_and_arrays_come_back(path):
    assert torch.equal(read_tensors(path)["a"], STATE["a"])
    assert np.array_equal(read_arrays(path)["b"], [1, 2])
    assert list(read_tensors(path, only=lambda name: name == "b")) == ["b"]
    assert read_metadata(path) == {"format": "pt"}


@pytest.mark.parametrize("read", [read_tensors, read_arrays, read_metadata])
@pytest.mark.parametrize("kept", [0, 4, 8, 40, -1])
def test_a_cut_file_is_named_with_the_remedy_wherever_it_was_cut(path, read, kept):
    path.write_bytes(path.read_bytes()[:kept])
    with pytest.raises(WeightsError, match=r"x\.safetensors.*Do this\.$"):
        read(path, remedy="Do this.")


def damaged(header, data=b""):
    content = json.dumps(header).encode()
    return struct.pack("<Q", len(content)) + content + data


@pytest.mark.parametrize(
    "content",
    [
        b"not a header at all",
        struct.pack("<Q", 1 << 60),
        damaged([]),
        damaged({"a": {}}),
        damaged({"a": {"dtype": "F32", "shape": [2], "data_offsets": []}}),
        damaged({"a": {"dtype": "F32", "shape": 2, "data_offsets": [0, 8]}}, bytes(8)),
        damaged({"a": {"dtype": "F99", "shape": [2], "data_offsets": [0, 8]}}, bytes(8)),
        damaged({"a": {"dtype": "F32", "shape": [3], "data_offsets": [0, 8]}}, bytes(8)),
    ],
)
def test_a_damaged_header_is_reported(tmp_path, content):
    (tmp_path / "x.safetensors").write_bytes(content)
    for read in (read_tensors, read_arrays):
        with pytest.raises(WeightsError, match=r"x\.safetensors"):
            read(tmp_path / "x.safetensors")


def test_a_missing_file_and_a_folder_are_reported(tmp_path):
    with pytest.raises(WeightsError, match="is missing"):
        read_tensors(tmp_path / "x.safetensors")
    with pytest.raises(WeightsError, match="no safetensors file"):
        read_tensors(tmp_path)


def test_a_pointer_of_git_lfs_is_called_one(tmp_path):
    (tmp_path / "x.safetensors").write_text("version https://git-lfs.github.com/spec/v1\noid sha256:0\nsize 1\n")
    with pytest.raises(WeightsError, match="Git LFS, not the file"):
        read_tensors(tmp_path / "x.safetensors")


@pytest.mark.parametrize("dtype", [torch.float32, torch.float16, torch.bfloat16, torch.float8_e4m3fn])
def test_numbers_that_are_not_finite_are_refused(tmp_path, dtype):
    values = torch.ones(4).to(dtype)
    values[2] = float("nan")
    save_file({"good": torch.ones(2, dtype=dtype), "bad": values}, tmp_path / "x.safetensors")
    with pytest.raises(WeightsError, match=r"not finite .* in bad"):
        read_tensors(tmp_path / "x.safetensors")
    assert read_tensors(tmp_path / "x.safetensors", is_finite=False).keys() == {"good", "bad"}


def test_infinity_is_refused_in_arrays_too_and_the_kind_of_error_can_be_chosen(tmp_path):
    save_file({"bad": torch.tensor([1.0, -float("inf")])}, tmp_path / "x.safetensors")
    with pytest.raises(CheckpointError, match="not finite"):
        read_arrays(tmp_path / "x.safetensors", error=CheckpointError)


@pytest.mark.parametrize("is_archive", [True, False])
def test_pickles_of_torch_are_read_in_both_of_its_formats(tmp_path, is_archive):
    torch.save(STATE, tmp_path / "x.bin", _use_new_zipfile_serialization=is_archive)
    assert torch.equal(read_pickle(tmp_path / "x.bin")["a"], STATE["a"])


def test_a_pickle_that_would_run_code_is_refused_and_does_not_run(tmp_path):
    class Evil:
        def __reduce__(self):
            return (exec, (f"open({str(tmp_path / 'ran')!r}, 'w')",))

    torch.save({"a": Evil()}, tmp_path / "x.bin")
    (tmp_path / "y.bin").write_bytes(pickle.dumps({"a": Evil()}))
    for name in ("x.bin", "y.bin"):
        with pytest.raises(WeightsError, match="could run any code"):
            read_pickle(tmp_path / name)
    assert not (tmp_path / "ran").exists()


@pytest.mark.parametrize("content", [b"", b"nothing", b"PK\x03\x04cut", b"version https://git-lfs"])
def test_a_damaged_pickle_is_reported(tmp_path, content):
    (tmp_path / "x.bin").write_bytes(content)
    with pytest.raises(WeightsError, match=r"x\.bin"):
        read_pickle(tmp_path / "x.bin")


def test_a_cut_pickle_and_one_without_a_dictionary_are_reported(tmp_path):
    torch.save(collections.OrderedDict(STATE), tmp_path / "x.bin")
    content = (tmp_path / "x.bin").read_bytes()
    for kept in (100, len(content) // 2, len(content) - 30):
        (tmp_path / "x.bin").write_bytes(content[:kept])
        with pytest.raises(WeightsError, match=r"x\.bin"):
            read_pickle(tmp_path / "x.bin")
    torch.save([1, 2], tmp_path / "y.bin")
    with pytest.raises(WeightsError, match="no dictionary"):
        read_pickle(tmp_path / "y.bin")
