import json
import multiprocessing
import resource

import pytest
import torch
from torch.testing import assert_close

from likeness.errors import CheckpointError
from likeness.training.precompute.store import Store, StoredRows


def fill(store, group="latents", count=6, start=0):
    keys = [f"{group}-{number}" for number in range(start, start + count)]
    values = torch.arange(start, start + count).float()[:, None].expand(-1, 4).clone()
    store.write(group, keys, {"latents": values})
    return keys


def test_items_are_read_in_the_order_that_is_asked_for(tmp_path):
    store = Store(tmp_path)
    keys = fill(store) + fill(store, start=6)
    found = Store(tmp_path).read("latents", [keys[7], keys[1], keys[7]], "latents")
    assert_close(found[:, 0], torch.tensor([7.0, 1.0, 7.0]))


def test_missing_items_are_listed_once_in_their_order(tmp_path):
    store = Store(tmp_path)
    fill(store, count=2)
    assert store.missing("latents", ["b", "latents-0", "a", "b"]) == ["b", "a"]
    with pytest.raises(CheckpointError, match="train precompute"):
        store.read("latents", ["a"], "latents")


def test_a_shard_without_its_record_does_not_exist(tmp_path):
    store = Store(tmp_path)
    keys = fill(store)
    for record in tmp_path.glob("latents/*.json"):
        record.unlink()
    assert Store(tmp_path).missing("latents", keys) == keys


@pytest.mark.parametrize("damage", ["flip", "truncate", "record"])
def test_verify_removes_damaged_shards_and_nothing_else(tmp_path, damage):
    store = Store(tmp_path)
    keys, others = fill(store), fill(store, group="text")
    (path,) = tmp_path.glob("latents/*.safetensors")
    data = bytearray(path.read_bytes())
    if damage == "flip":
        data[-3] ^= 1
        path.write_bytes(data)
    elif damage == "truncate":
        path.write_bytes(data[:-4])
    else:
        path.with_suffix(".json").write_text(json.dumps({"keys": keys}))
    assert store.verify() == [path]
    assert store.missing("latents", keys) == keys
    assert store.missing("text", others) == []


def test_a_truncated_shard_counts_as_missing_without_verify(tmp_path):
    keys = fill(Store(tmp_path))
    (path,) = tmp_path.glob("latents/*.safetensors")
    path.write_bytes(path.read_bytes()[:-1])
    assert Store(tmp_path).missing("latents", keys) == keys


def test_rows_by_number_slice_and_table(tmp_path):
    store = Store(tmp_path)
    rows = StoredRows(store, [("latents", key) for key in fill(store)], "latents")
    assert rows.shape == (6, 4)
    assert_close(rows[1:3][:, 0], torch.tensor([1.0, 2.0]))
    assert_close(rows[torch.tensor([[5, 0], [2, 2]])][..., 0], torch.tensor([[5.0, 0.0], [2.0, 2.0]]))


def test_rows_of_two_shapes_are_not_read_at_once(tmp_path):
    store = Store(tmp_path)
    places = [("a", fill(store, "a")[0]), ("b", fill(store, "b")[0])]
    with pytest.raises(CheckpointError, match="2 shapes"):
        StoredRows(store, places, "latents")[torch.tensor([0, 1])]


def read_everything(folder, keys, queue):
    store = Store(folder)
    for start in range(0, len(keys), 8):
        store.read("latents", keys[start : start + 8], "latents")
    queue.put(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss)


@pytest.mark.slow
def test_memory_of_a_reader_does_not_grow_with_the_set(tmp_path):
    context, peaks = multiprocessing.get_context("spawn"), []
    for count in (100, 10_000):
        store, keys = Store(tmp_path / str(count)), []
        for start in range(0, count, 100):
            part = [f"{count}-{start + number}" for number in range(100)]
            store.write("latents", part, {"latents": torch.randn(100, 5, 16, 8, 8).half()})
            keys += part
        queue = context.Queue()
        process = context.Process(target=read_everything, args=(tmp_path / str(count), keys, queue))
        process.start()
        peaks.append(queue.get())
        process.join()
    assert peaks[1] <= 1.1 * peaks[0]
