"""Batches that are put on the devices ahead of their use."""

import threading
import time

import jax
import pytest

from imagenet_repro.data import prefetch, workers
from imagenet_repro.data.prefetch import prefetch_to_device
from imagenet_repro.errors import LostProcessError, UserError


def numbers(count: int, fail_at: int = -1):
    for number in range(count):
        if number == fail_at:
            raise UserError("no more")
        yield {"label": number}


def test_prefetching_keeps_the_order_and_pairs_host_and_device_batches():
    pairs = list(prefetch_to_device(numbers(20), lambda batch: batch["label"] * 10))
    assert pairs == [({"label": n}, 10 * n) for n in range(20)]


@pytest.mark.parametrize("depth", [1, 2, 5])
def test_prefetching_runs_ahead_by_its_depth(depth):
    started = []
    pairs = prefetch_to_device(numbers(50), lambda batch: started.append(batch["label"]), depth=depth)
    next(pairs)
    deadline = time.monotonic() + 300
    while len(started) < depth + 1:
        assert time.monotonic() < deadline
        time.sleep(0.01)
    time.sleep(0.05)
    assert len(started) == depth + 1  # the one in use, and those prefetched
    pairs.close()


def test_the_loss_of_a_worker_ends_a_wait_for_a_batch_that_never_comes(monkeypatch):
    """A worker that is killed in the middle of handing over a batch leaves the thread waiting for the rest."""
    ends = threading.Event()

    def unfinished():
        ends.wait()
        yield {}

    monkeypatch.setattr(prefetch, "PATIENCE", 0.01)
    monkeypatch.setattr(workers, "lost_worker", lambda: LostProcessError("process 7 was ended"))
    with pytest.raises(LostProcessError, match="process 7 was ended"):
        next(pairs := prefetch_to_device(unfinished(), lambda batch: None))
    ends.set()
    pairs.close()


def test_an_error_of_the_batches_reaches_the_consumer_in_order():
    pairs = prefetch_to_device(numbers(20, fail_at=3), lambda batch: None)
    assert [next(pairs)[0]["label"] for _ in range(3)] == [0, 1, 2]
    with pytest.raises(UserError, match="no more"):
        next(pairs)


def test_an_error_of_the_transfer_reaches_the_consumer():
    def put(batch):
        raise MemoryError("device")

    with pytest.raises(MemoryError, match="device"):
        next(prefetch_to_device(numbers(20), put))


def test_a_batch_is_passed_on_without_its_images_once_they_are_on_the_devices(monkeypatch):
    waited = []
    monkeypatch.setattr(jax, "block_until_ready", lambda arrays: waited.append(arrays) or arrays)
    batches = (batch for batch in [{"image": 1, "label": 2}, {"codes": 3, "label": 4}])
    pairs = prefetch_to_device(batches, lambda batch: batch["label"] * 10)
    assert list(pairs) == [({"label": 2}, 20), ({"codes": 3, "label": 4}, 40)]
    assert waited == [20]  # only images may lie in shared memory


def test_closing_ends_the_thread_and_the_batches():
    before = set(threading.enumerate())
    closed = threading.Event()

    def batches():
        try:
            yield from numbers(100)
        finally:
            closed.set()

    pairs = prefetch_to_device(batches(), lambda batch: None)
    next(pairs)
    pairs.close()
    assert closed.is_set()
    assert before >= set(threading.enumerate())
