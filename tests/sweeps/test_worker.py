"""Tests of one worker. Full sweeps are in test_controller.py and test_controller_interrupted.py."""

import pickle
import signal

import pytest

from imagenet_repro.config import resolve_config
from imagenet_repro.config.sweep import resolve_sweep
from imagenet_repro.errors import EXIT_FINISHED, EXIT_STOPPED, EXIT_USER_ERROR
from imagenet_repro.storage.workdir import Workdir
from imagenet_repro.sweeps import retry, worker
from imagenet_repro.sweeps.directory import SweepDirectory
from imagenet_repro.sweeps.queue import SweepQueue
from imagenet_repro.sweeps.worker import Worker
from tests.sweeps import small_sweeps


@pytest.fixture(autouse=True)
def handlers():
    before = signal.getsignal(signal.SIGTERM)
    yield
    signal.signal(signal.SIGTERM, before)


def start_sweep(path, sweep):
    """Record a sweep and fill its queue; return its directory and queue."""
    directory = SweepDirectory(path)
    directory.record(sweep, directory.default_storage)
    queue = SweepQueue(directory.default_storage, sweep, directory.identity())
    queue.fill()
    return directory, queue


def test_a_worker_does_not_wait_for_runs_whose_search_failed(tmp_path):
    """The searched key does not exist, so every trial fails before it starts a process."""
    settings = small_sweeps.settings(systems=2, search={"trials": 2})
    for system in settings["systems"].values():
        system["search"] = [small_sweeps.RATE | {"key": "optimizer.learning_rat"}]
    directory, queue = start_sweep(tmp_path, resolve_sweep(settings))
    assert Worker(str(directory.path), 0)() == EXIT_FINISHED
    statuses = {status.planned.name: status for status in queue.statuses()}
    assert {status.state for status in statuses.values()} == {"failed"}
    assert "optimizer.learning_rat: no such key" in statuses["search/a/000"].reason
    assert statuses["runs/b/seed0"].reason == "no settings were selected, because search/b/001 failed"


def test_a_worker_leaves_a_taken_slot_alone(tmp_path):
    directory, queue = start_sweep(tmp_path, small_sweeps.sweep())
    with directory.worker_slot(3):
        assert directory.is_slot_taken(3)
        assert Worker(str(directory.path), 3)() == EXIT_FINISHED
    assert not directory.is_slot_taken(3)
    assert {status.state for status in queue.statuses()} == {"waiting"}


def test_a_run_that_lost_one_of_its_processes_is_tried_again_but_not_for_ever(tmp_path, monkeypatch):
    directory, queue = start_sweep(tmp_path, small_sweeps.sweep(systems=1))
    lost = "process 7, which reads images, was ended by SIGKILL"
    monkeypatch.setattr(Worker, "_run", lambda *arguments: (EXIT_STOPPED, lost))
    assert Worker(str(directory.path), 0)() == EXIT_FINISHED
    (status,) = queue.statuses()
    assert (status.state, status.reason) == ("failed", f"crashed 3 times; the last time: {lost}")


def test_submitits_files_do_not_contain_the_storage(tmp_path, monkeypatch):
    monkeypatch.setenv(worker.STORAGE, "postgresql://me:secret@host/sweeps")
    assert b"secret" not in pickle.dumps(Worker(str(tmp_path), 0))


def test_an_unreachable_storage_ends_a_worker_with_a_message(tmp_path, monkeypatch, capsys):
    pytest.importorskip("psycopg")
    directory, _ = start_sweep(tmp_path, small_sweeps.sweep())
    monkeypatch.setenv(worker.STORAGE, "postgresql+psycopg://me:secret@127.0.0.1:1/sweeps")
    monkeypatch.setattr(retry, "PATIENCE", 0.2)
    monkeypatch.setattr(retry, "PAUSE", 0.1)
    with pytest.raises(SystemExit) as ended:
        Worker(str(directory.path), 0)()
    assert ended.value.code == EXIT_USER_ERROR
    message = capsys.readouterr().err
    assert "--storage=postgresql+psycopg://me:***@127.0.0.1:1/sweeps cannot be reached" in message
    assert "secret" not in message


def test_a_run_in_use_is_waited_for_by_name(tmp_path, monkeypatch):
    """The lock can be that of a machine that is gone, for which a person must decide."""
    workdir = Workdir(tmp_path / "run")
    workdir.lock()
    (tmp_path / "run/lock").write_text("12 elsewhere")
    worker = Worker(str(tmp_path), 0)
    monkeypatch.setattr("time.sleep", lambda seconds: worker._stop(0, None))
    worker._wait_until_free(workdir)
    shown = (tmp_path / "run/output.log").read_text()
    assert "waiting for process 12 on elsewhere (if that machine is gone and its lock stays, remove " in shown


def test_a_finished_run_of_other_settings_is_not_taken_for_this_one(tmp_path):
    directory, queue = start_sweep(tmp_path, small_sweeps.sweep(systems=1))
    workdir = Workdir(directory.path / "runs/a/seed0")
    workdir.record_config(resolve_config(small_sweeps.LENET | {"batch_size": 4}), {})
    (workdir.path / "result.json").write_text("{}")
    assert Worker(str(directory.path), 0)() == EXIT_FINISHED
    (status,) = queue.statuses()
    assert status.state == "failed"
    assert "holds a run of another configuration" in status.reason
