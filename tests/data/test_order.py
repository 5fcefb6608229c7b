"""The order of the training images, with and without repeats."""

import dataclasses
from collections import Counter

import numpy as np
import pytest

from imagenet_repro.data import crops
from tests.data.memory_split import CROP, SIZE, assert_same, image, joined, make_split, repeated, train


def test_every_epoch_has_every_image_once_in_another_order():
    """20 images in batches of 8: batches straddle epochs, and nothing is dropped."""
    batches = train(make_split(20), num_steps=10)
    epochs, indices = joined(batches, "epoch"), joined(batches, "index")
    np.testing.assert_array_equal(epochs, np.arange(80) // 20)
    orders = indices.reshape(4, 20)
    np.testing.assert_array_equal(np.sort(orders, axis=1), np.tile(np.arange(20), (4, 1)))
    assert len({tuple(order) for order in orders}) == 4
    assert tuple(orders[0]) != tuple(range(20))
    assert tuple(orders[0]) != tuple(joined(train(make_split(20), num_steps=3, seed=4), "index")[:20])


def test_orders_are_uniform():
    """Each of 5 images comes first equally often over 400 epochs."""
    batches = train(make_split(5), batch_size=500, num_steps=4)
    firsts = Counter(joined(batches, "index").reshape(400, 5)[:, 0].tolist())
    assert all(abs(firsts[index] - 80) < 5 * 80**0.5 for index in range(5))


@pytest.mark.parametrize(("repeats", "batch_size"), [(2, 8), (3, 12), (3, 8), (3, 10), (4, 26)])
def test_repeats_of_an_image_are_within_two_batches(repeats, batch_size):
    """The distinct images, in order, are those of a run without repeats; each comes `repeats` times."""
    count, distinct = 21, batch_size // repeats
    steps = 21 * repeats
    batches = train(make_split(count), repeated(repeats), batch_size=batch_size, num_steps=steps)
    seen = list(zip(joined(batches, "epoch").tolist(), joined(batches, "index").tolist(), strict=True))
    rounds = [seen[i : i + repeats * distinct] for i in range(0, len(seen), repeats * distinct)]
    plain = train(make_split(count), batch_size=1, num_steps=distinct * len(rounds))
    order = list(zip(joined(plain, "epoch").tolist(), joined(plain, "index").tolist(), strict=True))
    for number, images in enumerate(rounds[:-1]):
        expected = order[number * distinct : (number + 1) * distinct]
        for repeat in range(repeats):
            part = images[repeat * distinct : (repeat + 1) * distinct]
            assert part == [(epoch * repeats + repeat, index) for epoch, index in expected]
    assert len(set(seen)) == len(seen)  # no crop and no augmentation twice


def test_repeats_have_different_crops_and_are_not_neighbours():
    batches = train(make_split(20), repeated(3), batch_size=12, num_steps=5)
    for batch in batches:
        assert (batch["index"][::2] != batch["index"][1::2]).all()
        for result, epoch, index in zip(batch["image"], batch["epoch"], batch["index"], strict=True):
            rng = np.random.Generator(np.random.Philox(key=(3 << 32 | int(epoch), int(index))))
            np.testing.assert_array_equal(result, crops.crop(image(index), CROP, SIZE, rng))
        assert len({result.tobytes() for result in batch["image"]}) == 12


def test_repeats_do_not_depend_on_hosts_workers_or_the_first_step():
    data, split = repeated(3), make_split(20, bad=(4,))
    complete = train(split, data, batch_size=10, num_steps=7)
    assert_same(complete[2:], train(split, data, batch_size=10, start_step=2, num_steps=5))
    assert_same(complete, train(split, dataclasses.replace(data, threads=7), batch_size=10, num_steps=7))
    shares = [train(split, data, batch_size=10, num_steps=7, process_index=i, process_count=2) for i in (0, 1)]
    merged = [{name: np.concatenate([a[name], b[name]]) for name in a} for a, b in zip(*shares, strict=True)]
    assert_same(complete, merged)
    assert_same(complete[:3], train(split, dataclasses.replace(data, workers=1), batch_size=10, num_steps=3))
