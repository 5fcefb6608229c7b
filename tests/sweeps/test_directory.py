"""A sweep's directory."""

import json
import multiprocessing
import os
import re
import shutil
import time

import pytest

from imagenet_repro.config.sweep import resolve_sweep
from imagenet_repro.errors import SaveError, UserError
from imagenet_repro.sweeps import directory as places
from imagenet_repro.sweeps.directory import SweepDirectory
from tests.sweeps import queue_processes, small_sweeps

ELSEWHERE = "postgresql+psycopg://me:***@host/sweeps"


@pytest.fixture
def place(tmp_path):
    return SweepDirectory(tmp_path / "sweep")


def settled(place, **changes):
    place.record(small_sweeps.sweep(**changes), place.default_storage)
    return json.loads((place.path / places.SWEEP).read_text())


def test_what_was_begun_is_read_back(place):
    assert not place.exists
    identity = settled(place)["identity"]
    assert place.exists
    assert (place.sweep(), place.identity(), place.storage()) == (
        small_sweeps.sweep(),
        identity,
        place.default_storage,
    )


def test_another_sweep_is_refused_with_all_that_differs(place):
    settled(place)
    with pytest.raises(UserError) as error:
        settled(place, systems=3, budget="17st", set={"batch_size": 4})
    text = str(error.value)
    for line in (
        "holds another sweep:",
        "  budget: 16st there, 17st now",
        "  set.batch_size: absent there, 4 now",
        "  systems.c.config: absent there, lenet.py now",
        "or another --workdir",
    ):
        assert line in text
    assert "systems.a" not in text
    assert place.sweep() == small_sweeps.sweep()


def test_a_recipe_that_was_edited_makes_another_sweep(place):
    settings = small_sweeps.settings()
    settled(place)
    settings["systems"]["a"] = settings["systems"]["a"] | {"base": small_sweeps.LENET | {"precision": "bfloat16"}}
    with pytest.raises(UserError, match=re.escape("systems.a.base.precision: float32 there, bfloat16 now")):
        place.record(resolve_sweep(settings), place.default_storage)


def test_seeds_may_be_added_and_not_removed(place):
    before = settled(place, seeds=(0, 1))
    after = settled(place, seeds=(2, 1, 0))
    assert after["identity"] == before["identity"]
    assert place.sweep().seeds == (2, 1, 0)
    with pytest.raises(UserError, match=re.escape("seeds: [2, 1, 0] there, [0, 1] now")):
        settled(place, seeds=(0, 1))


def test_where_data_and_caches_lie_may_change(place):
    settings = small_sweeps.settings(set={"data": {"data_dir": "/a"}})
    place.record(resolve_sweep(settings), place.default_storage)
    settings["set"] = {"data": {"data_dir": "/b", "threads": 3}, "cache_dir": "/c"}
    settings["systems"]["a"] = settings["systems"]["a"] | {"set": {"data": {"data_dir": "/d"}}}
    place.record(resolve_sweep(settings), place.default_storage)
    assert place.sweep().set["data"]["data_dir"] == "/b"


def test_a_single_runs_workdir_is_refused(place):
    place.path.mkdir()
    (place.path / "config.json").write_text("{}")
    with pytest.raises(UserError, match="holds a single run; a sweep needs a directory of its own"):
        settled(place)
    assert not place.exists


def test_a_storage_that_is_named_otherwise_is_refused(place):
    place.record(small_sweeps.sweep(), ELSEWHERE)
    with pytest.raises(UserError, match=re.escape(f"are in --storage={ELSEWHERE}")):
        settled(place)
    place.record(small_sweeps.sweep(), ELSEWHERE)
    assert place.storage() == ELSEWHERE


def test_a_directory_that_is_moved_takes_its_trials_along(place, tmp_path):
    identity = settled(place)["identity"]
    moved = SweepDirectory(shutil.move(place.path, tmp_path / "else where {1}?"))
    assert settled(moved)["identity"] == identity
    queue = queue_processes.queue.SweepQueue(moved.storage(), moved.sweep(), identity)
    queue.fill()
    assert (moved.path / places.TRIALS).is_file()
    assert sorted(path.name for path in tmp_path.iterdir()) == [moved.path.name]


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("{", "sweep.json is damaged"),
        ('{"identity": "a", "storage": ""}', "sweep.json is not what sweep writes: 'sweep' is 'missing'"),
        ("[]", "sweep.json is not what sweep writes: 'identity' is 'missing'"),
        (None, "there is no .*sweep.json; sweep writes it"),
    ],
)
def test_a_damaged_or_missing_record_is_told(place, text, message):
    place.path.mkdir()
    if text is not None:
        (place.path / places.SWEEP).write_text(text)
    for read in (place.sweep, place.identity, place.storage):
        with pytest.raises(UserError, match=message):
            read()


def test_what_cannot_be_written_is_told(tmp_path):
    (tmp_path / "file").touch()
    with pytest.raises(SaveError, match=r"file/sweep/workers/sweep\.lock cannot be written: Not a directory"):
        SweepDirectory(tmp_path / "file/sweep").lock().__enter__()
    with pytest.raises(SaveError):
        settled(SweepDirectory(tmp_path / "file/sweep"))


def hold(path, name, pipe):
    """Holds a lock of a sweep until it is killed."""
    with SweepDirectory(path)._locked(name) as free:
        pipe.send((os.getpid(), free))
        time.sleep(600)


@pytest.fixture
def holder(place):
    """Starts a process that holds a lock."""
    started = []

    def start(name):
        mine, theirs = multiprocessing.Pipe()
        process = queue_processes.PROCESSES.Process(target=hold, args=(place.path, name, theirs))
        process.start()
        started.append(process)
        return process, *mine.recv()

    yield start
    for process in started:
        process.kill()
        process.join()


def test_a_second_process_that_plans_is_refused_until_the_first_is_gone(place, holder):
    process, _, free = holder("sweep")
    assert free
    with pytest.raises(UserError, match=r"another process runs this sweep; `main\.py sweep --status"), place.lock():
        pass
    process.kill()
    process.join()
    with place.lock():
        pass


def test_a_slot_is_one_workers_at_a_time_and_tells_which(place, holder):
    assert not place.is_slot_taken(3)
    process, pid, free = holder("slot-3")
    assert free
    assert place.worker_pids() == [pid]
    assert [place.is_slot_taken(number) for number in (2, 3, 4)] == [False, True, False]
    with place.slot(3) as mine:
        assert not mine
    assert place.worker_pids() == [pid]  # who did not get the place left no trace
    process.kill()
    process.join()
    assert not place.is_slot_taken(3)
    assert place.worker_pids() == []
    with place.slot(3) as mine:
        assert mine
        assert place.worker_pids() == [os.getpid()]
    assert place.worker_pids() == []


def look(path, pipe, until):
    pipe.send(True)
    place = SweepDirectory(path)
    while time.monotonic() < until:
        place.is_slot_taken(0)


def test_who_only_looks_takes_nobodys_place(place):
    place.slot(0).__enter__()  # the file is there
    until = time.monotonic() + 1.5
    mine, theirs = multiprocessing.Pipe()
    process = queue_processes.PROCESSES.Process(target=look, args=(place.path, theirs, until))
    process.start()
    mine.recv()
    got, tried = 0, 0
    while time.monotonic() < until:
        with place.slot(0) as free:
            got, tried = got + free, tried + 1
    process.join()
    assert got == tried > 0


def test_who_may_not_write_may_look(place):
    settled(place)
    with place.slot(0):
        pass
    assert (place.workers / "slot-0.lock").read_text() == ""
    before = {path: path.stat().st_mtime_ns for path in place.path.rglob("*")}
    assert place.worker_pids() == []
    assert not place.is_slot_taken(0)
    assert not place.is_slot_taken(1)
    assert {path: path.stat().st_mtime_ns for path in place.path.rglob("*")} == before


def test_identities_differ(tmp_path):
    found = {settled(SweepDirectory(tmp_path / name))["identity"] for name in "abc"}
    assert len(found) == 3
