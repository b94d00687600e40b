from typing import Any

import numpy as np
import pytest
from toy_stages import MODULES, STAGES, file_hashes, make_recipe, write_pictures

from likeness.curation.ledger import DamagedError, Ledger, content_key, global_key, normalize, source_key, stage_key
from likeness.curation.recipe import build_segments
from likeness.curation.run import curate
from likeness.curation.stage import Candidate, Source, make_id

SHA = "ab" * 32


def candidate(**facts):
    arrays = {"embedding": np.arange(4, dtype=np.float32)}
    return Candidate(id=make_id(SHA, 0, 1), source=SHA, facts=facts, arrays=arrays)


def stage_of(tmp_path, **settings):
    recipe = make_recipe(tmp_path, [{"name": "toy_brightness", **settings}])
    return build_segments(recipe, MODULES)[0].stages[0]


def test_keys_depend_on_bytes_facts_and_settings_and_not_on_the_place(tmp_path):
    source = Source(path=tmp_path / "a.png", sha256=SHA, kind="image", facts={"licence": "CC0"})
    moved = Source(path=tmp_path / "b.png", sha256=SHA, kind="image", facts={"licence": "CC0"})
    other = Source(path=tmp_path / "a.png", sha256=SHA, kind="image", facts={"licence": "MIT"})
    assert source_key(source) == source_key(moved) != source_key(other)
    plain, strict = stage_of(tmp_path), stage_of(tmp_path, min_brightness=5)
    assert stage_key("x", plain) == stage_key("x", stage_of(tmp_path)) != stage_key("x", strict)
    assert stage_key("x", plain) != stage_key("y", plain)


def test_keys_of_global_stages_depend_on_all_inputs_in_any_order(tmp_path):
    stage: Any = build_segments(make_recipe(tmp_path, STAGES[:2]), MODULES)[1].stages[0]
    assert global_key({"a": "1", "b": "2"}, stage) == global_key({"b": "2", "a": "1"}, stage)
    assert global_key({"a": "1", "b": "2"}, stage) != global_key({"a": "1", "b": "3"}, stage)


def test_results_are_read_as_they_were_written(tmp_path):
    ledger = Ledger(tmp_path)
    one = candidate(score=np.float32(0.5), missing=float("nan"), span=(1, 2), name="Ünï\u2028")
    two = candidate().split(3, 4, track="7").drop("toy", "too dark", 0.25)
    ledger.write(SHA, "key", [one, two])
    first, second = ledger.read(SHA, "key")
    assert first.facts == {"score": 0.5, "missing": None, "span": [1, 2], "name": "Ünï\u2028"}
    np.testing.assert_array_equal(first.arrays["embedding"], one.arrays["embedding"])
    assert (second.id, second.first_frame, second.num_frames) == (make_id(SHA, 3, 4, "7"), 3, 4)
    assert second.dropped == two.dropped
    assert content_key(normalize([one, two])) == content_key([first, second])
    assert content_key([first]) != content_key([second])


@pytest.mark.parametrize("suffix", [".jsonl", ".npz"])
@pytest.mark.parametrize("place", [0, -3])
def test_every_changed_byte_is_found(tmp_path, suffix, place):
    ledger = Ledger(tmp_path)
    ledger.write(SHA, "key", [candidate(score=1)])
    (path,) = tmp_path.rglob(f"*{suffix}")
    data = bytearray(path.read_bytes())
    data[place] ^= 1
    path.write_bytes(data)
    with pytest.raises(DamagedError):
        ledger.read(SHA, "key")


def test_facts_that_are_not_json_are_refused(tmp_path):
    with pytest.raises(TypeError, match="not JSON serializable"):
        Ledger(tmp_path).write(SHA, "key", [candidate(score=object())])
    bad = candidate()
    bad.arrays["names"] = np.array(["a", None])
    with pytest.raises(TypeError, match="the array `names`"):
        Ledger(tmp_path).write(SHA, "key", [bad])


@pytest.mark.parametrize("pattern", ["results/**/*.jsonl", "results/**/*.npz", "media/**/*.png", "globals/*.json"])
def test_damaged_results_are_made_again(tmp_path, pattern):
    folder = write_pictures(tmp_path / "raw")
    first = curate(make_recipe(folder, STAGES), tmp_path / "out", modules=MODULES)
    expected = file_hashes(first.folder)
    for path in (tmp_path / "out" / "ledger").glob(pattern):
        data = bytearray(path.read_bytes())
        data[len(data) // 2] ^= 1
        path.write_bytes(data)
    for path in first.folder.iterdir():
        path.unlink()
    again = curate(make_recipe(folder, STAGES), tmp_path / "out", modules=MODULES)
    assert file_hashes(again.folder) == expected
