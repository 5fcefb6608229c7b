"""Batches for training and evaluation: they depend on the configuration and the step alone."""

import dataclasses
import os
import threading
import time

import numpy as np
import pytest

from imagenet_repro.config import CenterCrop
from imagenet_repro.data import crops
from imagenet_repro.data.loader import chain_batches, eval_batches, train_batches
from imagenet_repro.data.prefetch import prefetch_to_device
from imagenet_repro.errors import UserError
from tests.data.memory_split import (
    CROP,
    DATA,
    SIZE,
    assert_same,
    image,
    joined,
    make_split,
    repeated,
    run_script,
    train,
)


def test_batches_are_as_documented():
    (batch,) = train(make_split(20), num_steps=1)
    kinds = {name: (array.dtype.name, array.shape) for name, array in batch.items()}
    assert kinds == {
        "image": ("uint8", (8, SIZE, SIZE, 3)),
        "label": ("int32", (8,)),
        "epoch": ("int32", (8,)),
        "index": ("int32", (8,)),
        "weight": ("float32", (8,)),
        "replaced": ("int32", (8,)),
        "id": ("str32", (8,)),
        "size": ("int32", (8, 2)),
        "tokens": ("int32", (8, 0)),
    }
    assert (batch["weight"] == 1).all()
    assert (batch["replaced"] == -1).all()
    np.testing.assert_array_equal(batch["label"], batch["index"] % 5)


def test_crops_follow_from_seed_epoch_and_index():
    for batch in train(make_split(20), num_steps=4):
        for result, epoch, index in zip(batch["image"], batch["epoch"], batch["index"], strict=True):
            rng = np.random.Generator(np.random.Philox(key=(3 << 32 | int(epoch), int(index))))
            np.testing.assert_array_equal(result, crops.crop(image(index), CROP, SIZE, rng))


def test_evaluation_repeats_nothing():
    (batch,) = eval_batches(make_split(6), repeated(3), CenterCrop(), batch_size=8)
    assert batch["index"].tolist() == [0, 1, 2, 3, 4, 5, -1, -1]


def test_a_batch_of_repeats_of_one_image_is_refused():
    with pytest.raises(UserError, match=r"data.repeats = 3 needs batches of at least 6 images, not 5"):
        train_batches(make_split(4), repeated(3), CROP, batch_size=5, seed=0)


def test_chained_batches_are_one_run_and_a_part_may_have_another_image_size():
    split, small = make_split(20), dataclasses.replace(DATA, image_size=8)
    complete = train(split, num_steps=6)

    def part(data, start_step, num_steps):
        return train_batches(split, data, CROP, batch_size=8, seed=3, start_step=start_step, num_steps=num_steps)

    parts = chain_batches([part(small, 0, 2), part(DATA, 2, 1), part(DATA, 3, 3)])
    actual = [host | {"image": image} for host, image in prefetch_to_device(parts, lambda batch: batch["image"])]
    assert [batch["image"].shape[1] for batch in actual] == [8, 8, SIZE, SIZE, SIZE, SIZE]
    assert_same(actual[2:], complete[2:])
    for one, other in zip(actual[:2], train(split, small, num_steps=2), strict=True):
        assert_same([one], [other])


def test_chained_batches_are_all_closed_when_they_end_early():
    before = set(threading.enumerate())
    parts = [train_batches(make_split(20), DATA, CROP, batch_size=8, seed=3, start_step=s) for s in (0, 100)]
    batches = prefetch_to_device(chain_batches(parts), lambda batch: None)
    next(batches)
    batches.close()
    deadline = time.monotonic() + 300
    while not before >= set(threading.enumerate()):
        assert time.monotonic() < deadline, "reading threads outlive the iterator"
        time.sleep(0.05)


@pytest.mark.parametrize("threads", [1, 4, 16])
def test_the_number_of_threads_changes_nothing(threads):
    assert_same(train(make_split(20)), train(make_split(20), dataclasses.replace(DATA, threads=threads)))


@pytest.mark.parametrize(("workers", "steps"), [(1, 4), (2, 5)])
def test_the_number_of_worker_processes_changes_nothing(workers, steps):
    data = dataclasses.replace(DATA, workers=workers)
    split = make_split(20, bad=(4,))
    assert_same(train(split, num_steps=steps, start_step=1), train(split, data, num_steps=steps, start_step=1))


LENT = """
import os
from multiprocessing import shared_memory
import jax
import numpy as np
from imagenet_repro.config import Data, InceptionCrop
from imagenet_repro.data.loader import train_batches
from imagenet_repro.data.prefetch import prefetch_to_device
from tests.data.memory_split import make_split

SIZE = 96  # so that a batch is large enough for shared memory
shared_memory._SHM_NAME_PREFIX = os.environ["SEGMENTS"]  # other tests may use shared memory at the same time


def segments():
    return sum(name.startswith(os.environ["SEGMENTS"][1:]) for name in os.listdir("/dev/shm"))


def read(workers):
    data = Data(image_size=SIZE, threads=1, workers=workers)
    return train_batches(make_split(8), data, InceptionCrop(), batch_size=4, seed=0, num_steps=12)


if __name__ == "__main__":
    expected = list(read(0))
    jax.default_backend = lambda: "gpu"  # lends shared memory, which JAX's arrays on a CPU keep: the hardest case
    kept = []
    for host, array in prefetch_to_device(read(2), lambda batch: jax.device_put(batch["image"])):
        assert "image" not in host
        kept.append(array)  # alive while the workers fill the next batches
    for batch, array in zip(expected, kept, strict=True):
        np.testing.assert_array_equal(array, batch["image"])
    print(segments() > 0)
"""


@pytest.mark.skipif(not os.path.isdir("/dev/shm"), reason="needs /dev/shm")
def test_lent_batches_keep_their_contents_and_are_freed_with_their_last_array(tmp_path, monkeypatch):
    """Worker processes write new batches while the arrays of all earlier ones are alive."""
    prefix = f"{os.getpid() % 10**7}_"
    monkeypatch.setenv("SEGMENTS", f"/{prefix}")
    process = run_script(tmp_path / "lent.py", LENT)
    assert process.communicate(timeout=600)[0].split() == ["True"]
    assert process.returncode == 0
    assert not [name for name in os.listdir("/dev/shm") if name.startswith(prefix)]


def test_a_later_start_gives_the_rest_of_the_run():
    complete = train(make_split(20), num_steps=9)
    for start in (1, 4, 8):
        assert_same(complete[start:], train(make_split(20), start_step=start, num_steps=9 - start))


def test_a_start_after_a_million_steps_is_immediate():
    (batch,) = train(make_split(20), start_step=10**6, num_steps=1)
    assert (batch["epoch"] == 8 * 10**6 // 20).all()


@pytest.mark.parametrize("batch_size", [6, 22, 26])
def test_hosts_divide_the_batch_of_a_single_host(batch_size):
    complete = train(make_split(20), batch_size=batch_size, num_steps=3)
    shares = [
        train(make_split(20), batch_size=batch_size, num_steps=3, process_index=i, process_count=2) for i in (0, 1)
    ]
    merged = [{name: np.concatenate([a[name], b[name]]) for name in a} for a, b in zip(*shares, strict=True)]
    assert_same(complete, merged)


def test_a_batch_that_hosts_cannot_divide_is_refused():
    with pytest.raises(UserError, match="8 images cannot be shared equally by 3 processes"):
        train_batches(make_split(4), DATA, CROP, batch_size=8, seed=0, process_count=3)


def test_without_a_number_of_steps_batches_are_endless():
    batches = train_batches(make_split(3), DATA, CROP, batch_size=4, seed=0)
    assert [len(next(batches)["label"]) for _ in range(5)] == [4] * 5
    batches.close()


@pytest.mark.parametrize("count", [1, 7, 8, 20])
@pytest.mark.parametrize("processes", [1, 2, 4])
def test_evaluation_scores_every_image_once(count, processes):
    split = make_split(count)
    shares = [
        list(eval_batches(split, DATA, CenterCrop(), batch_size=8, process_index=i, process_count=processes))
        for i in range(processes)
    ]
    assert {len(share) for share in shares} == {-(-count // 8)}
    batches = [batch for share in shares for batch in share]
    assert {len(batch["label"]) for batch in batches} == {8 // processes}
    real = joined(batches, "weight") == 1
    indices, labels = joined(batches, "index"), joined(batches, "label")
    assert sorted(indices[real]) == list(range(count))
    np.testing.assert_array_equal(labels[real], indices[real] % 5)
    assert (indices[~real] == -1).all()
    assert (labels[~real] == 0).all()
    assert not joined(batches, "image")[~real].any()
    for result, index in zip(joined(batches, "image")[real], indices[real], strict=True):
        rng = np.random.default_rng(0)
        np.testing.assert_array_equal(result, crops.crop(image(index), CenterCrop(), SIZE, rng))


def test_evaluation_may_have_another_image_size():
    data = dataclasses.replace(DATA, eval_image_size=8)
    (batch,) = eval_batches(make_split(3), data, CenterCrop(), batch_size=4)
    assert batch["image"].shape == (4, 8, 8, 3)


SUSPENDED = """
from imagenet_repro.config import Data, InceptionCrop
from imagenet_repro.data.loader import train_batches
from imagenet_repro.data.prefetch import prefetch_to_device
from tests.data.memory_split import make_split

if __name__ == "__main__":
    data = Data(image_size=16, threads=1, workers=1)
    batches = train_batches(make_split(8), data, InceptionCrop(), batch_size=4, seed=0)
    pairs = prefetch_to_device(batches, len)
    kept = next(pairs)
    raise SystemExit(7)
"""


def test_a_program_may_end_while_batches_are_open(tmp_path):
    process = run_script(tmp_path / "suspended.py", SUSPENDED)
    assert process.communicate(timeout=600) == ("", "")
    assert process.returncode == 7
