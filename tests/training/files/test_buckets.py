from collections import Counter

import numpy as np
import pytest

from likeness.errors import ConfigError, MediaError
from likeness.training.files.buckets import BatchOrder, Bucket, find_bucket, make_grid

IMAGE, WIDE, CLIP = Bucket(1, 64, 64), Bucket(1, 48, 80), Bucket(9, 64, 64)
BUCKETS = [IMAGE] * 7 + [WIDE] * 3 + [CLIP] * 5
GOLDEN = [(8, 9, 7), (12,), (5, 2, 1, 6), (10, 14, 11, 13), (0, 3, 4)]


def order(batch_size=4, seed=3, repeats=None):
    return BatchOrder(BUCKETS, batch_size=batch_size, seed=seed, repeats=repeats)


def epoch_of(batches, epoch=0):
    return [batches.batch(epoch, position) for position in range(len(batches))]


@pytest.mark.parametrize("batch_size", [1, 2, 4, 100])
@pytest.mark.parametrize("epoch", [0, 1, 7])
def test_every_sample_is_drawn_once_an_epoch_and_a_batch_has_one_bucket(batch_size, epoch):
    batches = epoch_of(order(batch_size), epoch)
    assert sorted(row for batch in batches for row in batch.rows) == list(range(len(BUCKETS)))
    assert all(BUCKETS[row] == batch.bucket for batch in batches for row in batch.rows)
    assert all(1 <= len(batch.rows) <= batch_size for batch in batches)
    assert [batch.position for batch in batches] == list(range(len(batches)))


def test_repeats_are_drawn_so_many_times():
    repeats = [row % 3 for row in range(len(BUCKETS))]
    drawn = Counter(row for batch in epoch_of(order(repeats=repeats)) for row in batch.rows)
    assert drawn == Counter({row: count for row, count in enumerate(repeats) if count})


def test_one_batch_of_a_bucket_at_most_is_smaller():
    sizes = {}
    for batch in epoch_of(order(batch_size=2)):
        sizes.setdefault(batch.bucket, []).append(len(batch.rows))
    assert {bucket: Counter(found) for bucket, found in sizes.items()} == {
        IMAGE: Counter({2: 3, 1: 1}),
        WIDE: Counter({2: 1, 1: 1}),
        CLIP: Counter({2: 2, 1: 1}),
    }


def test_the_order_is_a_function_of_seed_epoch_and_position():
    whole = list(zip(range(3 * len(order())), order().iterate(), strict=False))
    for done, found in whole:
        epoch, position = order().locate(done)
        assert next(order().iterate(epoch, position)) == found


def test_epochs_and_seeds_differ():
    rows = {tuple(batch.rows for batch in epoch_of(order(seed=seed), epoch)) for seed in (0, 1) for epoch in (0, 1)}
    assert len(rows) == 4


def test_other_rows_share_a_batch_in_each_epoch():
    groups = [{frozenset(batch.rows) for batch in epoch_of(order(), epoch)} for epoch in range(3)]
    assert groups[0] != groups[1] != groups[2] != groups[0]


def test_the_order_stays_what_it_was_when_this_was_written():
    # Resuming an old run depends on it.
    assert [batch.rows for batch in epoch_of(order())] == GOLDEN


@pytest.mark.parametrize("num_ranks", [1, 2, 3, 4, 8])
def test_any_number_of_processes_draws_the_same_rows_with_the_same_mean(num_ranks):
    loss = np.random.default_rng(0).normal(size=len(BUCKETS))
    for batch in epoch_of(order(batch_size=5)):
        shares = [batch.local_share(rank, num_ranks) for rank in range(num_ranks)]
        assert len({len(rows) for rows, _ in shares}) == 1
        drawn = [row for rows, weights in shares for row, weight in zip(rows, weights, strict=True) if weight]
        assert sorted(drawn) == sorted(batch.rows)
        total = sum(loss[row] * weight for rows, weights in shares for row, weight in zip(rows, weights, strict=True))
        assert total / len(batch.rows) == pytest.approx(loss[list(batch.rows)].mean())


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"batch_size": 0}, "batch_size"),
        ({"seed": -1}, "seed"),
        ({"repeats": [1]}, "repeats"),
        ({"repeats": [0] * 15}, "no s"),
    ],
)
def test_wrong_numbers_are_refused(changes, message):
    with pytest.raises(ConfigError, match=message):
        order(**changes)


@pytest.mark.parametrize("resolution_px", [64, 256, 480, 512, 768])
def test_grid_sizes_are_multiples_of_16_with_about_the_same_area(resolution_px):
    grid = make_grid(num_frames=49, resolution_px=resolution_px)
    assert grid.lengths == (1, 9, 17, 25, 33, 41, 49)
    for height_px, width_px in grid.sizes:
        assert height_px % 16 == width_px % 16 == 0
        assert height_px * width_px == pytest.approx(resolution_px**2, rel=16 / resolution_px * 2)
    assert (resolution_px, resolution_px) in grid.sizes
    assert {(width, height) for height, width in grid.sizes} == set(grid.sizes)


def test_a_base_that_takes_multiples_of_4_has_more_lengths():
    assert make_grid(num_frames=13, resolution_px=64, frame_step=4).lengths == (1, 5, 9, 13)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"num_frames": 48}, "Use 49"),
        ({"num_frames": 0}, "Use 1"),
        ({"size_px": (480, 720)}, "exactly one"),
        ({"resolution_px": None}, "exactly one"),
        ({"resolution_px": None, "size_px": (480, 721)}, "Use 480 x 720"),
        ({"resolution_px": 8}, "at least 16"),
    ],
)
def test_sizes_that_do_not_suit_the_base_are_refused_with_one_that_does(changes, message):
    with pytest.raises(ConfigError, match=message):
        make_grid(**{"num_frames": 49, "resolution_px": 480, **changes})


@pytest.mark.parametrize("aspect", np.geomspace(0.5, 2, 25).tolist())
def test_a_bucket_crops_at_most_a_tenth_of_one_side(aspect):
    grid = make_grid(num_frames=49, resolution_px=480)
    bucket = find_bucket(grid, frames=1, height_px=1000, width_px=round(1000 * aspect), is_video=False)
    assert 1 / 1.11 <= bucket.aspect / aspect <= 1.11


@pytest.mark.parametrize(("frames", "length"), [(9, 9), (16, 9), (17, 17), (48, 41), (49, 49), (500, 49)])
def test_a_video_gets_the_longest_length_that_it_fills(frames, length):
    grid = make_grid(num_frames=49, size_px=(480, 720))
    assert find_bucket(grid, frames=frames, height_px=100, width_px=900, is_video=True) == Bucket(length, 480, 720)


def test_a_video_never_becomes_a_picture():
    grid = make_grid(num_frames=49, resolution_px=480)
    with pytest.raises(MediaError, match=r"8 frames.*at least 9"):
        find_bucket(grid, frames=8, height_px=100, width_px=100, is_video=True)
    with pytest.raises(MediaError, match="num_frames"):
        find_bucket(make_grid(num_frames=1, resolution_px=480), frames=99, height_px=100, width_px=100, is_video=True)
