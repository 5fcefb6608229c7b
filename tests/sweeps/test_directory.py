"""Tests of the directory of a sweep: its record and its locks."""

import json
import multiprocessing
import os
import re
import shutil
import time

import pytest
import sqlalchemy

from imagenet_repro.config.sweep import resolve_sweep
from imagenet_repro.errors import SaveError, UserError
from imagenet_repro.storage import locks
from imagenet_repro.sweeps.directory import PLANNED, SWEEP, TRIALS, SweepDirectory
from tests.sweeps import queue_processes, small_sweeps

ELSEWHERE = "postgresql+psycopg://me:***@host/sweeps"


@pytest.fixture
def directory(tmp_path):
    return SweepDirectory(tmp_path / "sweep")


def record(directory, **changes):
    directory.record(small_sweeps.sweep(**changes), directory.default_storage)
    return json.loads((directory.path / SWEEP).read_text())


def start_run(directory):
    """Write what a run of the sweep writes first, which binds the directory to the sweep."""
    workdir = directory.path / "runs/a/seed0"
    workdir.mkdir(parents=True, exist_ok=True)
    (workdir / "metrics.jsonl").write_text('{"kind": "train", "step": 1}\n')


def test_a_recorded_sweep_is_read_back(directory):
    assert not directory.exists
    identity = record(directory)["identity"]
    assert directory.exists
    assert (directory.sweep(), directory.identity(), directory.storage()) == (
        small_sweeps.sweep(),
        identity,
        directory.default_storage,
    )


def test_what_finished_runs_keep_may_change_also_where_an_older_version_recorded_nothing(directory):
    recorded = record(directory)
    assert recorded["sweep"].pop("checkpoint") == {"keep_finished": "selected"}
    (directory.path / SWEEP).write_text(json.dumps(recorded))
    start_run(directory)
    for value in ("all", "selected"):
        changed = record(directory, checkpoint={"keep_finished": value})
        assert changed["identity"] == recorded["identity"]
        assert directory.sweep().checkpoint.keep_finished == value
    with pytest.raises(UserError, match="keep_finished"):
        small_sweeps.sweep(checkpoint={"keep_finished": "best"})


def test_another_sweep_is_refused_with_every_difference(directory):
    record(directory)
    start_run(directory)
    with pytest.raises(UserError) as error:
        record(directory, systems=3, budget="17st", set={"batch_size": 4})
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
    assert directory.sweep() == small_sweeps.sweep()


def test_an_edited_recipe_makes_another_sweep(directory):
    settings = small_sweeps.settings()
    record(directory)
    start_run(directory)
    settings["systems"]["a"] = settings["systems"]["a"] | {"base": small_sweeps.LENET | {"precision": "bfloat16"}}
    with pytest.raises(UserError, match=re.escape("systems.a.base.precision: float32 there, bfloat16 now")):
        directory.record(resolve_sweep(settings), directory.default_storage)


def test_seeds_may_be_added_but_not_removed(directory):
    before = record(directory, seeds=(0, 1))
    start_run(directory)
    after = record(directory, seeds=(2, 1, 0))
    assert after["identity"] == before["identity"]
    assert directory.sweep().seeds == (2, 1, 0)
    with pytest.raises(UserError, match=re.escape("seeds: [2, 1, 0] there, [0, 1] now")):
        record(directory, seeds=(0, 1))


def test_the_directories_of_data_and_caches_may_change(directory):
    settings = small_sweeps.settings(set={"data": {"data_dir": "/a"}})
    directory.record(resolve_sweep(settings), directory.default_storage)
    start_run(directory)
    settings["set"] = {"data": {"data_dir": "/b", "threads": 3}, "cache_dir": "/c"}
    settings["systems"]["a"] = settings["systems"]["a"] | {"set": {"data": {"data_dir": "/d"}}}
    directory.record(resolve_sweep(settings), directory.default_storage)
    assert directory.sweep().set["data"]["data_dir"] == "/b"


def test_the_workdir_of_a_single_run_is_refused(directory):
    directory.path.mkdir()
    (directory.path / "config.json").write_text("{}")
    with pytest.raises(UserError, match="holds a single run; a sweep needs a separate directory"):
        record(directory)
    assert not directory.exists


def test_another_storage_is_refused(directory):
    directory.record(small_sweeps.sweep(), ELSEWHERE)
    start_run(directory)
    with pytest.raises(UserError, match=re.escape(f"are in --storage={ELSEWHERE}. To plan its runs anew in another")):
        record(directory)
    directory.record(small_sweeps.sweep(), ELSEWHERE)
    assert directory.storage() == ELSEWHERE


def test_a_first_start_that_failed_binds_nothing(directory):
    """Neither its storage nor its settings, as long as no run has written anything."""
    first = SweepDirectory(directory.path)
    first.record(small_sweeps.sweep(), ELSEWHERE)
    identity = first.identity()
    (directory.path / "runs/a/seed0").mkdir(parents=True)
    (directory.path / "runs/a/seed0/output.log").write_text("an error")
    record(directory, budget="17st")
    assert (directory.storage(), directory.sweep().budget) == (directory.default_storage, "17st")
    assert directory.identity() != identity
    start_run(directory)
    with pytest.raises(UserError, match="holds another sweep"):
        record(directory)


def test_the_settings_of_a_started_run_are_read(directory):
    assert directory.read_settings("search/a/000", ["batch_size"]) is None
    path = directory.path / "search/a/000" / PLANNED
    path.parent.mkdir(parents=True)
    path.write_text('{"batch_size": 4, "optimizer": {"learning_rate": 0.1}}')
    keys = ["optimizer.learning_rate", "batch_size"]
    assert directory.read_settings("search/a/000", keys) == {"optimizer.learning_rate": 0.1, "batch_size": 4}
    for text in ("[]", "{", "{}", '{"batch_size": 4, "optimizer": 3}'):
        path.write_text(text)
        assert directory.read_settings("search/a/000", keys) is None


def test_partial_files_of_killed_processes_are_removed(directory):
    below = ("", "workers", "tables", "runs/a/seed0", "runs/a/seed0/predictions")
    for name in below:
        (directory.path / name).mkdir(parents=True, exist_ok=True)
        (directory.path / name / ".x.json.0000123.part").touch()
        (directory.path / name / "x.json").touch()
    directory.remove_leftovers(["runs/a/seed0", "runs/b/seed0"])
    assert not [*directory.path.rglob("*.part")]
    assert len([*directory.path.rglob("x.json")]) == len(below)


def test_a_worker_of_another_machine_is_not_signalled(directory):
    directory.worker_slot(0).__enter__()  # creates the lock file
    lock = locks.acquire(directory.workers_path / "slot-0.lock")
    (directory.workers_path / "slot-0.lock").write_text(f"{os.getpid()} elsewhere")
    assert directory.is_slot_taken(0)
    assert directory.worker_pids() == []
    lock.release()


def test_a_moved_directory_keeps_its_trials(directory, tmp_path):
    identity = record(directory)["identity"]
    moved = SweepDirectory(shutil.move(directory.path, tmp_path / "another place {1}?"))
    assert record(moved)["identity"] == identity
    queue = queue_processes.queue.SweepQueue(moved.storage(), moved.sweep(), identity)
    queue.fill()
    assert (moved.path / TRIALS).is_file()
    assert sorted(path.name for path in tmp_path.iterdir()) == [moved.path.name]


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("{", r"sweep.json is damaged .* Remove it and start the sweep with its own command; finished runs are taken"),
        ('{"identity": "a", "storage": ""}', "sweep.json is not what sweep writes: 'sweep' is missing. Remove it"),
        ("[]", "sweep.json is not what sweep writes: 'identity' is missing"),
        (None, "there is no .*sweep.json; sweep writes it"),
    ],
)
def test_a_damaged_or_missing_record_is_reported(directory, text, message):
    directory.path.mkdir()
    if text is not None:
        (directory.path / SWEEP).write_text(text)
    for read in (directory.sweep, directory.identity, directory.storage):
        with pytest.raises(UserError, match=message):
            read()


def test_an_unwritable_directory_is_reported(tmp_path):
    (tmp_path / "file").touch()
    with pytest.raises(SaveError, match=r"file/sweep/workers/sweep\.lock cannot be written: Not a directory"):
        SweepDirectory(tmp_path / "file/sweep").lock().__enter__()
    with pytest.raises(SaveError):
        record(SweepDirectory(tmp_path / "file/sweep"))


def hold_lock(path, name, pipe):
    """Hold a lock of a sweep until this process is killed."""
    with SweepDirectory(path)._lock(name) as is_acquired:
        pipe.send((os.getpid(), is_acquired))
        time.sleep(600)


@pytest.fixture
def holder(directory):
    """Yield a function that starts a process which holds a lock."""
    processes = []

    def start(name):
        parent_end, child_end = multiprocessing.Pipe()
        process = queue_processes.PROCESSES.Process(target=hold_lock, args=(directory.path, name, child_end))
        process.start()
        processes.append(process)
        return process, *parent_end.recv()

    yield start
    for process in processes:
        process.kill()
        process.join()


def test_a_second_controller_is_refused_until_the_first_has_ended(directory, holder):
    process, _, is_acquired = holder("sweep")
    assert is_acquired
    with (
        pytest.raises(UserError, match=r"process \d+ on this machine runs this sweep; `main\.py sweep --status"),
        directory.lock(),
    ):
        pass
    process.kill()
    process.join()
    with directory.lock():
        pass


def test_one_worker_holds_a_slot_and_is_known_by_its_process_id(directory, holder):
    assert not directory.is_slot_taken(3)
    process, pid, is_acquired = holder("slot-3")
    assert is_acquired
    assert directory.worker_pids() == [pid]
    assert [directory.is_slot_taken(number) for number in (2, 3, 4)] == [False, True, False]
    with directory.worker_slot(3) as is_acquired:
        assert not is_acquired
    assert directory.worker_pids() == [pid]  # the failed attempt left no trace
    process.kill()
    process.join()
    assert not directory.is_slot_taken(3)
    assert directory.worker_pids() == []
    with directory.worker_slot(3) as is_acquired:
        assert is_acquired
        assert directory.worker_pids() == [os.getpid()]
    assert directory.worker_pids() == []


def query_slot(path, pipe):
    """Query a slot until another process sends something."""
    directory = SweepDirectory(path)
    pipe.send(True)
    while not pipe.poll():
        directory.is_slot_taken(0)


def test_querying_a_slot_keeps_no_worker_from_it(directory):
    directory.worker_slot(0).__enter__()  # creates the lock file
    parent_end, child_end = multiprocessing.Pipe()
    process = queue_processes.PROCESSES.Process(target=query_slot, args=(directory.path, child_end))
    process.start()
    parent_end.recv()
    for _ in range(100):
        with directory.worker_slot(0) as is_acquired:
            assert is_acquired
    parent_end.send("end")
    process.join()


def test_querying_slots_writes_nothing(directory):
    record(directory)
    with directory.worker_slot(0):
        pass
    assert (directory.workers_path / "slot-0.lock").read_text() == ""
    before = {path: path.stat().st_mtime_ns for path in directory.path.rglob("*")}
    assert directory.worker_pids() == []
    assert not directory.is_slot_taken(0)
    assert not directory.is_slot_taken(1)
    assert {path: path.stat().st_mtime_ns for path in directory.path.rglob("*")} == before


def test_identities_differ(tmp_path):
    identities = {record(SweepDirectory(tmp_path / name))["identity"] for name in "abc"}
    assert len(identities) == 3


@pytest.mark.parametrize("name", ["a%j", "a\nb", os.fsdecode(b"\xff")])
def test_a_name_that_launchers_would_read_as_something_else_is_refused_before_work_starts(tmp_path, name):
    with pytest.raises(UserError, match="choose another"), SweepDirectory(tmp_path / name).lock():
        pass


@pytest.mark.parametrize("name", ["exp[seed=1]", "10%", "日本?#&*"])
def test_other_names_are_read_back_from_the_url_of_the_trials(tmp_path, name):
    directory = SweepDirectory(tmp_path / name)
    with directory.lock():
        assert sqlalchemy.make_url(directory.default_storage).database == str(tmp_path / name / "trials.db")
