import dataclasses
import io
import os
import signal
import subprocess
import sys
import threading
import time
from collections import Counter
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from imagenet_repro.config import CenterCrop, Data, InceptionCrop
from imagenet_repro.data import crops
from imagenet_repro.data.loader import BadRecords, eval_batches, in_turn, prefetch_to_device, readers, train_batches
from imagenet_repro.data.sources import Record, Split
from imagenet_repro.errors import UserError

SIZE = 16
DATA = Data(image_size=SIZE, threads=2, max_bad_share=0.2)
CROP = InceptionCrop()


def image(number: int) -> np.ndarray:
    return np.random.default_rng(number).integers(0, 256, (20 + number % 7, 24, 3), dtype=np.uint8)


def make_split(count: int, bad: tuple[int, ...] = ()) -> Split:
    records = []
    for number in range(count):
        buffer = io.BytesIO()
        Image.fromarray(image(number)).save(buffer, "PNG")
        encoded = buffer.getvalue()[:90] if number in bad else buffer.getvalue()
        records.append(Record(encoded, number % 5, f"img_{number:02d}"))
    return Split("memory", "train", "1.0.0", tuple("abcde"), count, records)


def train(split: Split, data: Data = DATA, **options) -> list[dict]:
    options = {"batch_size": 8, "seed": 3, "num_steps": 6} | options
    return list(train_batches(split, data, CROP, **options))


def assert_same(one: list[dict], other: list[dict]) -> None:
    assert len(one) == len(other)
    for a, b in zip(one, other, strict=True):
        assert a.keys() == b.keys()
        for name in a:
            np.testing.assert_array_equal(a[name], b[name], err_msg=name)


def joined(batches: list[dict], name: str) -> np.ndarray:
    return np.concatenate([batch[name] for batch in batches])


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
    }
    assert (batch["weight"] == 1).all()
    assert (batch["replaced"] == -1).all()
    np.testing.assert_array_equal(batch["label"], batch["index"] % 5)


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
    """Which image comes first, over 400 epochs of a split of 5."""
    batches = train(make_split(5), batch_size=500, num_steps=4)
    firsts = Counter(joined(batches, "index").reshape(400, 5)[:, 0].tolist())
    assert all(abs(firsts[index] - 80) < 5 * 80**0.5 for index in range(5))


def test_crops_follow_from_seed_epoch_and_index():
    for batch in train(make_split(20), num_steps=4):
        for result, epoch, index in zip(batch["image"], batch["epoch"], batch["index"], strict=True):
            rng = np.random.Generator(np.random.Philox(key=(3 << 32 | int(epoch), int(index))))
            np.testing.assert_array_equal(result, crops.crop(image(index), CROP, SIZE, rng))


def repeated(repeats: int) -> Data:
    return dataclasses.replace(DATA, repeats=repeats)


@pytest.mark.parametrize(("repeats", "batch_size"), [(2, 8), (3, 12), (3, 8), (3, 10), (4, 26)])
def test_repeats_come_within_two_batches_and_each_image_as_often(repeats, batch_size):
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


def test_a_repeat_has_a_crop_of_its_own_and_no_neighbour_of_its_kind():
    batches = train(make_split(20), repeated(3), batch_size=12, num_steps=5)
    for batch in batches:
        assert (batch["index"][::2] != batch["index"][1::2]).all()
        for result, epoch, index in zip(batch["image"], batch["epoch"], batch["index"], strict=True):
            rng = np.random.Generator(np.random.Philox(key=(3 << 32 | int(epoch), int(index))))
            np.testing.assert_array_equal(result, crops.crop(image(index), CROP, SIZE, rng))
        assert len({result.tobytes() for result in batch["image"]}) == 12


def test_repeats_do_not_depend_on_hosts_workers_or_where_a_run_goes_on():
    data, split = repeated(3), make_split(20, bad=(4,))
    whole = train(split, data, batch_size=10, num_steps=7)
    assert_same(whole[2:], train(split, data, batch_size=10, start_step=2, num_steps=5))
    assert_same(whole, train(split, dataclasses.replace(data, threads=7), batch_size=10, num_steps=7))
    shares = [train(split, data, batch_size=10, num_steps=7, process_index=i, process_count=2) for i in (0, 1)]
    merged = [{name: np.concatenate([a[name], b[name]]) for name in a} for a, b in zip(*shares, strict=True)]
    assert_same(whole, merged)
    assert_same(whole[:3], train(split, dataclasses.replace(data, workers=1), batch_size=10, num_steps=3))


def test_evaluation_repeats_nothing():
    (batch,) = eval_batches(make_split(6), repeated(3), CenterCrop(), batch_size=8)
    assert batch["index"].tolist() == [0, 1, 2, 3, 4, 5, -1, -1]


def test_a_batch_of_one_image_over_and_over_is_refused():
    with pytest.raises(UserError, match=r"data.repeats = 3 needs batches of at least 6 images, not 5"):
        train_batches(make_split(4), repeated(3), CROP, batch_size=5, seed=0)


def test_parts_in_turn_are_one_run_of_batches_and_a_part_may_have_a_size_of_its_own():
    split, small = make_split(20), dataclasses.replace(DATA, image_size=8)
    whole = train(split, num_steps=6)

    def part(data, start_step, num_steps):
        return train_batches(split, data, CROP, batch_size=8, seed=3, start_step=start_step, num_steps=num_steps)

    parts = in_turn([part(small, 0, 2), part(DATA, 2, 1), part(DATA, 3, 3)])
    found = [batch for batch, _ in prefetch_to_device(parts, lambda batch: None)]
    assert [batch["image"].shape[1] for batch in found] == [8, 8, SIZE, SIZE, SIZE, SIZE]
    assert_same(found[2:], whole[2:])
    for one, other in zip(found[:2], train(split, small, num_steps=2), strict=True):
        assert_same([one], [other])


def test_parts_in_turn_that_are_left_early_are_closed_all():
    before = threading.active_count()
    parts = [train_batches(make_split(20), DATA, CROP, batch_size=8, seed=3, start_step=s) for s in (0, 100)]
    batches = prefetch_to_device(in_turn(parts), lambda batch: None)
    next(batches)
    batches.close()
    deadline = time.monotonic() + 10
    while threading.active_count() > before and time.monotonic() < deadline:
        time.sleep(0.05)
    assert threading.active_count() <= before


@pytest.mark.parametrize("threads", [1, 4, 16])
def test_the_number_of_threads_changes_nothing(threads):
    assert_same(train(make_split(20)), train(make_split(20), dataclasses.replace(DATA, threads=threads)))


@pytest.mark.parametrize(("workers", "steps"), [(1, 4), (2, 5)])
def test_the_number_of_worker_processes_changes_nothing(workers, steps):
    data = dataclasses.replace(DATA, workers=workers)
    split = make_split(20, bad=(4,))
    assert_same(train(split, num_steps=steps, start_step=1), train(split, data, num_steps=steps, start_step=1))


def test_a_start_in_the_middle_is_the_rest_of_the_run():
    whole = train(make_split(20), num_steps=9)
    for start in (1, 4, 8):
        assert_same(whole[start:], train(make_split(20), start_step=start, num_steps=9 - start))


def test_a_start_after_a_million_steps_costs_nothing():
    (batch,) = train(make_split(20), start_step=10**6, num_steps=1)
    assert (batch["epoch"] == 8 * 10**6 // 20).all()


@pytest.mark.parametrize("batch_size", [6, 22, 26])
def test_hosts_share_the_batch_of_one(batch_size):
    whole = train(make_split(20), batch_size=batch_size, num_steps=3)
    shares = [
        train(make_split(20), batch_size=batch_size, num_steps=3, process_index=i, process_count=2) for i in (0, 1)
    ]
    merged = [{name: np.concatenate([a[name], b[name]]) for name in a} for a, b in zip(*shares, strict=True)]
    assert_same(whole, merged)


def test_a_batch_that_hosts_cannot_share_is_refused():
    with pytest.raises(UserError, match="8 images cannot be shared equally by 3 processes"):
        train_batches(make_split(4), DATA, CROP, batch_size=8, seed=0, process_count=3)


def test_without_a_number_of_steps_training_goes_on():
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
        rng = np.random.default_rng()
        np.testing.assert_array_equal(result, crops.crop(image(index), CenterCrop(), SIZE, rng))


def test_evaluation_may_have_a_size_of_its_own():
    data = dataclasses.replace(DATA, eval_image_size=8)
    (batch,) = eval_batches(make_split(3), data, CenterCrop(), batch_size=4)
    assert batch["image"].shape == (4, 8, 8, 3)


def test_an_undecodable_record_is_replaced_by_the_next():
    split = make_split(20, bad=(4, 5, 19))
    whole, broken = train(make_split(20), num_steps=10), train(split, num_steps=10)
    drawn, index, replaced = joined(whole, "index"), joined(broken, "index"), joined(broken, "replaced")
    stands_for = {4: 6, 5: 6, 19: 0}
    np.testing.assert_array_equal(index, [stands_for.get(i, i) for i in drawn.tolist()])
    np.testing.assert_array_equal(replaced, [i if i in stands_for else -1 for i in drawn.tolist()])
    np.testing.assert_array_equal(joined(broken, "label"), index % 5)
    assert (joined(broken, "weight") == 1).all()
    assert joined(broken, "image").any((1, 2, 3)).all()


def test_an_undecodable_record_of_evaluation_has_no_weight():
    (batch,) = eval_batches(make_split(6, bad=(2,)), DATA, CenterCrop(), batch_size=8)
    assert batch["weight"].tolist() == [1, 1, 0, 1, 1, 1, 0, 0]
    assert batch["replaced"].tolist() == [-1, -1, 2, -1, -1, -1, -1, -1]
    assert batch["index"].tolist() == [0, 1, 2, 3, 4, 5, -1, -1]
    assert batch["label"][2] == 2


def test_bad_records_are_counted_once_and_named():
    split = make_split(20, bad=(4, 5, 19))
    lines = []
    bad = BadRecords(split, DATA, report=lines.append)
    for batch in train(split, num_steps=10):
        bad.update(batch)
        bad.check()  # 3 of 20 are below a share of 0.2
    assert len(bad) == 3
    assert sorted(bad.names) == ["img_04", "img_05", "img_19"]
    assert len(lines) == 3
    assert all("cannot decode img_" in line and "PNG of 90 bytes" in line for line in lines)


def test_too_many_bad_records_stop_the_run():
    data = dataclasses.replace(DATA, max_bad_share=0.05)
    split = make_split(20, bad=(3, 9))
    bad = BadRecords(split, data)
    for batch in train(split, data, num_steps=3):
        bad.update(batch)
    with pytest.raises(UserError, match=r"2 of the 20 records .* data.max_bad_share allows 1") as caught:
        bad.check()
    assert "img_03: PNG of 90 bytes" in str(caught.value)
    assert "img_09: PNG of 90 bytes" in str(caught.value)


@pytest.mark.parametrize("workers", [0, 1])
def test_a_split_of_rubbish_stops_at_once(workers):
    data = dataclasses.replace(DATA, max_bad_share=0.2, workers=workers)
    with pytest.raises(UserError, match="5 of the 20 records"):
        train(make_split(20, bad=tuple(range(20))), data)


def test_a_share_of_zero_allows_no_bad_record():
    with pytest.raises(UserError, match=r"1 of the 20 records(?s:.*)img_04"):
        train(make_split(20, bad=(4,)), dataclasses.replace(DATA, max_bad_share=0.0), num_steps=10)


def test_readers_come_from_the_host_unless_named(monkeypatch):
    assert readers(Data(threads=3, workers=2)) == (3, 2)
    for cores, expected in ((1, (2, 0)), (2, (4, 0)), (16, (25, 0)), (96, (25, 6))):
        monkeypatch.setattr(os, "sched_getaffinity", lambda _, cores=cores: set(range(cores)))
        monkeypatch.setattr(os, "process_cpu_count", lambda cores=cores: cores, raising=False)
        assert readers(Data(threads=0, workers=-1)) == expected


def limit_shared_memory(monkeypatch, megabytes: int) -> None:
    free = os.statvfs_result((1, 2**20, megabytes, megabytes, megabytes, 0, 0, 0, 0, 0))
    monkeypatch.setattr(os, "statvfs", lambda path: free)
    monkeypatch.setattr(os.path, "isdir", lambda path: True)


def test_workers_that_shared_memory_cannot_serve_are_refused(monkeypatch):
    """A container has 64 MB of it; a process that runs out of it ends by SIGBUS."""
    limit_shared_memory(monkeypatch, 64)
    assert readers(Data(workers=2), batch_bytes=7 * 2**20)[1] == 2
    with pytest.raises(UserError, match=r"data.workers = 2: .* need 86 MB .* 67 MB free"):
        readers(Data(workers=2), batch_bytes=10 * 2**20 + 2**18)


def test_workers_chosen_from_the_host_give_way_to_threads(monkeypatch):
    limit_shared_memory(monkeypatch, 64)
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: set(range(32)))
    monkeypatch.setattr(os, "process_cpu_count", lambda: 32, raising=False)
    assert readers(Data(workers=-1), batch_bytes=2**20) == (25, 2)
    assert readers(Data(workers=-1), batch_bytes=2**30) == (49, 0)


def test_threads_end_with_the_iterator():
    before = threading.active_count()
    batches = train_batches(make_split(20), dataclasses.replace(DATA, threads=8), CROP, batch_size=8, seed=0)
    next(batches)
    batches.close()
    deadline = time.monotonic() + 20
    while threading.active_count() > before:
        assert time.monotonic() < deadline, "reading threads outlive the iterator"
        time.sleep(0.05)


ORPHAN = """
import multiprocessing, time
from imagenet_repro.config import Data, InceptionCrop
from imagenet_repro.data.loader import train_batches
from tests.data.test_loader import make_split

if __name__ == "__main__":
    data = Data(image_size=16, threads=1, workers=1)
    batches = train_batches(make_split(8), data, InceptionCrop(), batch_size=4, seed=0)
    next(batches)
    print(*(child.pid for child in multiprocessing.active_children()), flush=True)
    time.sleep(600)
"""


SUSPENDED = """
from imagenet_repro.config import Data, InceptionCrop
from imagenet_repro.data.loader import prefetch_to_device, train_batches
from tests.data.test_loader import make_split

if __name__ == "__main__":
    data = Data(image_size=16, threads=1, workers=1)
    batches = train_batches(make_split(8), data, InceptionCrop(), batch_size=4, seed=0)
    pairs = prefetch_to_device(batches, len)
    kept = next(pairs)
    raise SystemExit(7)
"""


def run_script(path: Path, text: str) -> subprocess.Popen:
    path.write_text(text)
    environment = os.environ | {"PYTHONPATH": str(Path(__file__).parents[2])}
    pipe = subprocess.PIPE
    return subprocess.Popen([sys.executable, path], stdout=pipe, stderr=pipe, text=True, env=environment)


def test_a_program_may_end_in_the_middle(tmp_path):
    process = run_script(tmp_path / "suspended.py", SUSPENDED)
    assert process.communicate(timeout=60) == ("", "")
    assert process.returncode == 7


def running(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except FileNotFoundError:
        return False


@pytest.mark.skipif(not Path("/proc/self/stat").exists(), reason="needs /proc")
def test_workers_end_when_training_is_killed_and_not_by_an_interrupt(tmp_path):
    with run_script(tmp_path / "orphan.py", ORPHAN) as process:
        workers = [int(pid) for pid in process.stdout.readline().split()]
        assert workers
        for pid in workers:
            os.kill(pid, signal.SIGINT)
        time.sleep(0.5)
        assert all(running(pid) for pid in workers)
        process.kill()
    deadline = time.monotonic() + 20
    while any(running(pid) for pid in workers):
        assert time.monotonic() < deadline, "reading processes outlive the training process"
        time.sleep(0.1)


def numbers(count: int, fail_at: int = -1):
    for number in range(count):
        if number == fail_at:
            raise UserError("no more")
        yield {"label": number}


def test_prefetching_keeps_the_order_and_pairs_both_sides():
    pairs = list(prefetch_to_device(numbers(20), lambda batch: batch["label"] * 10))
    assert pairs == [({"label": n}, 10 * n) for n in range(20)]


@pytest.mark.parametrize("depth", [1, 2, 5])
def test_prefetching_runs_ahead_by_its_depth(depth):
    started = []
    pairs = prefetch_to_device(numbers(50), lambda batch: started.append(batch["label"]), depth=depth)
    next(pairs)
    deadline = time.monotonic() + 10
    while len(started) < depth + 1:
        assert time.monotonic() < deadline
        time.sleep(0.01)
    time.sleep(0.05)
    assert len(started) == depth + 1  # the one in use, and those behind it
    pairs.close()


def test_what_the_batches_raise_reaches_the_consumer_in_its_place():
    pairs = prefetch_to_device(numbers(20, fail_at=3), lambda batch: None)
    assert [next(pairs)[0]["label"] for _ in range(3)] == [0, 1, 2]
    with pytest.raises(UserError, match="no more"):
        next(pairs)


def test_what_the_transfer_raises_reaches_the_consumer():
    def put(batch):
        raise MemoryError("device")

    with pytest.raises(MemoryError, match="device"):
        next(prefetch_to_device(numbers(20), put))


def test_closing_ends_the_thread_and_the_batches():
    before = threading.active_count()
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
    assert threading.active_count() == before
