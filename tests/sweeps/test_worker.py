"""A worker: what it takes, and when it ends. Whole sweeps are in test_sweep.py and test_killed.py."""

import pickle
import signal

import pytest

from imagenet_repro.config.sweep import resolve_sweep
from imagenet_repro.errors import EXIT_FINISHED, EXIT_USER_ERROR
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


def begun(directory, sweep):
    """A sweep's directory and its queue, filled."""
    place = SweepDirectory(directory)
    place.record(sweep, place.default_storage)
    queue = SweepQueue(place.default_storage, sweep, place.identity())
    queue.fill()
    return place, queue


def test_runs_whose_search_has_failed_are_not_waited_for(tmp_path):
    """The key that is searched exists nowhere, so every trial fails before it starts a process."""
    settings = small_sweeps.settings(systems=2, search={"trials": 2})
    for system in settings["systems"].values():
        system["search"] = [small_sweeps.RATE | {"key": "optimizer.learning_rat"}]
    place, queue = begun(tmp_path, resolve_sweep(settings))
    assert Worker(str(place.path), 0)() == EXIT_FINISHED
    entries = {one.planned.name: one for one in queue.statuses()}
    assert {one.state for one in entries.values()} == {"failed"}
    assert "optimizer.learning_rat: no such key" in entries["search/a/000"].reason
    assert entries["runs/b/seed0"].reason == "nothing was selected, search/b/001 failed"


def test_a_place_that_is_taken_is_left_alone(tmp_path):
    place, queue = begun(tmp_path, small_sweeps.sweep())
    with place.slot(3):
        assert place.is_slot_taken(3)
        assert Worker(str(place.path), 3)() == EXIT_FINISHED
    assert not place.is_slot_taken(3)
    assert {one.state for one in queue.statuses()} == {"waiting"}


def test_the_files_of_submitit_hold_no_storage(tmp_path, monkeypatch):
    monkeypatch.setenv(worker.STORAGE, "postgresql://me:secret@host/sweeps")
    assert b"secret" not in pickle.dumps(Worker(str(tmp_path), 0))


def test_a_storage_that_stays_away_ends_a_worker_with_a_message(tmp_path, monkeypatch, capsys):
    pytest.importorskip("psycopg")
    place, _ = begun(tmp_path, small_sweeps.sweep())
    monkeypatch.setenv(worker.STORAGE, "postgresql+psycopg://me:secret@127.0.0.1:1/sweeps")
    monkeypatch.setattr(retry, "PATIENCE", 0.2)
    monkeypatch.setattr(retry, "PAUSE", 0.1)
    with pytest.raises(SystemExit) as ended:
        Worker(str(place.path), 0)()
    assert ended.value.code == EXIT_USER_ERROR
    said = capsys.readouterr().err
    assert "--storage=postgresql+psycopg://me:***@127.0.0.1:1/sweeps cannot be reached" in said
    assert "secret" not in said
