from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
import torch
from torch.testing import assert_close

from likeness.backbones import tiny
from likeness.errors import CheckpointError, ConfigError
from likeness.training.data import render_puppets
from likeness.training.data.datasets import EpochSampler, ShardedDataset, to_float, to_uint8, unpack_mask
from likeness.training.data.latents import downsample_mask, load_latents
from likeness.training.engine.logging import TrainingLogger
from likeness.training.objectives.identity_loss import jitter_landmarks


def small(**changes) -> render_puppets.PuppetSettings:
    values = {"kind": "clips", "count": 3, "people": 2, "size_px": 32, "num_frames": 5, "shard": 2}
    return render_puppets.PuppetSettings(**{**values, **changes})


@pytest.fixture(scope="module")
def cache(tmp_path_factory):
    folder = tmp_path_factory.mktemp("cache")
    assert list(render_puppets.render_missing(small(), folder, processes=0))[-1] == (2, 2)
    return folder


def test_a_build_that_was_stopped_goes_on(cache):
    folder = render_puppets.folder(small(), cache)
    before = ShardedDataset.read(folder)["frames"]
    (folder / "00001.json").unlink()
    assert list(render_puppets.render_missing(small(), cache, processes=0)) == [(1, 2), (2, 2)]
    assert torch.equal(ShardedDataset.read(folder)["frames"], before)


def test_samples_hold_frames_masks_landmarks_and_facts(cache):
    shards = ShardedDataset.read(render_puppets.folder(small(), cache))
    assert shards["frames"].shape == (3, 5, 32, 32, 3)
    mask = unpack_mask(shards["mask"])
    assert mask.shape == (3, 5, 32, 32)
    assert 0.1 < mask.float().mean() < 0.9
    assert shards["landmarks"].shape == (3, 5, 5, 2)
    assert shards.group_rows("person") == {0: [0, 2], 1: [1]}
    assert "img" in shards.metadata[0]["prompt"]


@pytest.mark.parametrize("name", ["00001.safetensors", "00001.json"])
@pytest.mark.parametrize("damage", [lambda data: data[: len(data) // 2], lambda _: b"", lambda _: b"[]"])
def test_a_damaged_shard_is_reported_and_made_again(cache, name, damage):
    path = render_puppets.folder(small(), cache) / name
    whole = path.read_bytes()
    path.write_bytes(damage(whole))
    with pytest.raises(CheckpointError, match=r"Delete|samples"):
        ShardedDataset.read(path.parent, count=3)
    assert list(render_puppets.render_missing(small(), cache, processes=0)) == [(1, 2), (2, 2)]
    assert path.read_bytes() == whole


def test_builders_of_one_folder_take_turns_and_leave_nothing_else(tmp_path):
    settings = small(count=4, shard=1, num_frames=1)
    folder = render_puppets.folder(settings, tmp_path)
    folder.mkdir()
    (folder / "00000.partial").write_bytes(b"of an earlier version")
    with ThreadPoolExecutor(3) as pool:
        built = list(pool.map(lambda _: list(render_puppets.render_missing(settings, tmp_path, processes=0)), range(3)))
    assert [steps[-1] for steps in built] == [(4, 4)] * 3
    assert sorted(len(steps) for steps in built) == [1, 1, 5]  # One drew, the others found it done.
    assert len(list(folder.iterdir())) == 2 * 4 + 2  # and the settings and the lock


def test_other_settings_lie_elsewhere(cache):
    assert render_puppets.folder(small(), cache) != render_puppets.folder(small(seed=1), cache)


def test_no_shards_is_an_error(tmp_path):
    with pytest.raises(ConfigError, match="No shards"):
        ShardedDataset.read(tmp_path)


def test_clips_become_scaled_latents_and_masks_once(cache, tmp_path):
    torch.manual_seed(0)
    vae = tiny.build_vae(tiny.VaeSettings(widths=(4, 4, 4, 4), norm_num_groups=2))
    logger = TrainingLogger(tmp_path, "test")
    shards = load_latents(small(), vae, cache, logger)
    assert shards["latents"].shape == (3, 2, 16, 4, 4)
    assert shards["mask"].shape == (3, 2, 4, 4)
    frames = to_float(ShardedDataset.read(render_puppets.folder(small(), cache))["frames"]).transpose(1, 2)
    exact = vae.encode(frames).latent_dist.mode().transpose(1, 2) * vae.config.scaling_factor
    assert (shards["latents"].float() - exact).abs().max() < 0.05
    again = load_latents(small(), vae, cache, logger)
    assert torch.equal(again["latents"], shards["latents"])


def test_a_mask_on_the_first_frame_stays_on_the_first_latent():
    mask = torch.zeros(1, 5, 16, 16, dtype=torch.bool)
    mask[:, 0, :8, :8] = True
    small_mask = downsample_mask(mask)
    assert small_mask[0, 0].tolist() == [[1, 0], [0, 0]]
    assert not small_mask[0, 1].any()


def test_an_epoch_takes_every_row_once_and_the_order_follows_from_the_seed():
    order = EpochSampler(10, seed=1)
    rows = torch.cat([order.local_rows(step, 5) for step in range(4)]).tolist()
    assert sorted(rows[:10]) == sorted(rows[10:]) == list(range(10))
    assert rows[:10] != rows[10:]
    assert EpochSampler(10, seed=1).local_rows(3, 5).tolist() == rows[15:]
    assert EpochSampler(10, seed=2).local_rows(0, 10).tolist() != rows[:10]


def test_bytes_survive_the_way_to_floats_and_back():
    frames = np.arange(256, dtype=np.uint8).repeat(3).reshape(1, 1, 16, 16, 3)
    assert np.array_equal(to_uint8(to_float(torch.from_numpy(frames))), frames)


def test_nudged_landmarks_keep_the_shape_of_the_face():
    torch.manual_seed(0)
    points = torch.tensor([[22.0, 30], [28, 30], [36, 30], [42, 30], [32, 38]]).expand(500, 5, 2)
    moved = jitter_landmarks(points, shift=0.05, scale=0.05)
    steps = (moved - points).mean(dim=1)
    assert_close(steps.std(dim=0), torch.full((2,), 0.05 * 20), rtol=0.1, atol=0.0)
    width = moved[:, 3, 0] - moved[:, 0, 0]
    assert_close(width.std(), torch.tensor(0.05 * 20), rtol=0.1, atol=0.0)
    assert_close((moved[:, 4, 1] - moved[:, 0, 1]) / width, torch.full((500,), 8 / 20))
