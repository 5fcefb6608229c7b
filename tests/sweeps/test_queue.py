"""Tests of the queue of a sweep, in real SQLite files."""

import collections
import dataclasses
import itertools
import logging
import math
import re
import socket
import sqlite3
import time

import numpy as np
import optuna
import pytest
import sqlalchemy

from imagenet_repro.errors import SaveError, UserError
from imagenet_repro.sweeps import queue
from imagenet_repro.sweeps.attempts import Loss
from imagenet_repro.sweeps.plan import plan_runs
from imagenet_repro.sweeps.queue import SweepQueue
from tests.sweeps import queue_processes, small_sweeps

SEARCH = {"search": {"trials": 2}}
TPE = {"search": {"trials": 3, "sampler": "tpe", "seed": 5}}


@pytest.fixture
def url(tmp_path):
    return f"sqlite:///{tmp_path}/trials.db"


def open_queue(url, *, fill=True, **settings):
    sweep_queue = queue_processes.open_queue(url, small_sweeps.settings(**settings))
    if fill:
        sweep_queue.fill()
    return sweep_queue


def attempts(sweep_queue):
    """Return the state of every trial in the storage, by the name of its run."""
    states = collections.defaultdict(list)
    for study in optuna.get_all_study_summaries(sweep_queue.storage):
        for trial in optuna.load_study(study_name=study.study_name, storage=sweep_queue.storage).get_trials():
            states[trial.user_attrs["name"]].append(trial.state.name)
    return dict(states)


def states(sweep_queue):
    return {status.planned.name: status.state for status in sweep_queue.statuses()}


def expire_heartbeats(sweep_queue):
    """Make every heartbeat so far an hour old."""
    with sweep_queue.storage.engine.begin() as connection:
        connection.execute(sqlalchemy.text("update trial_heartbeats set heartbeat = datetime('now', '-1 hour')"))


def wait_for_heartbeat(sweep_queue):
    """Wait until a heartbeat is recent."""
    query = sqlalchemy.text("select count(*) from trial_heartbeats where heartbeat > datetime('now', '-30 minutes')")
    deadline = time.monotonic() + 300
    while True:
        with sweep_queue.storage.engine.connect() as connection:
            if connection.execute(query).scalar_one():
                return
        assert time.monotonic() < deadline
        time.sleep(0.02)


def finish_search(sweep_queue, values):
    for value in values:
        sweep_queue.complete(sweep_queue.claim("w"), value)


def test_filling_enqueues_the_plan_once(url):
    sweep_queue = open_queue(url, seeds=(0, 1), **SEARCH)
    open_queue(url, seeds=(0, 1), **SEARCH)
    assert attempts(sweep_queue) == {planned.name: ["WAITING"] for planned in plan_runs(sweep_queue.sweep)}


def test_enqueued_trials_are_those_of_optunas_public_function(url):
    sweep_queue = open_queue(url, **SEARCH)
    study = sweep_queue._studies["search/a"]
    ours = study.get_trials()[0]
    study.enqueue_trial(ours.system_attrs["fixed_params"], user_attrs={"name": "search/a/000"})
    theirs = study.get_trials()[-1]
    assert (ours.number, theirs.number) == (0, 2)
    for key in ("state", "system_attrs", "user_attrs", "params", "values", "datetime_start", "datetime_complete"):
        assert getattr(ours, key) == getattr(theirs, key), key


@pytest.mark.parametrize(("name", "column"), [("TrialModel", None), ("TrialUserAttributeModel", "value_json")])
def test_an_optuna_with_other_tables_is_refused_in_a_sentence(url, monkeypatch, name, column):
    from optuna.storages._rdb import models

    sweep_queue = open_queue(url, fill=False, **SEARCH)
    if column is None:
        monkeypatch.delattr(models, name)
    else:
        monkeypatch.setitem(queue.ENQUEUED, name, {"trial_id", "another_column"})
    with pytest.raises(UserError, match=rf"keeps trials in other tables.*requirements\.txt \(.*{name}"):
        sweep_queue.fill()


def test_two_processes_that_create_the_tables_of_a_server_at_once_try_again(url, monkeypatch):
    calls, connect = [], queue._connect_once

    def collide(*args, **keywords):
        calls.append(args)
        if len(calls) < 3:
            raise sqlalchemy.exc.IntegrityError("CREATE TYPE", {}, Exception("already exists"))
        return connect(*args, **keywords)

    monkeypatch.setattr(queue, "PAUSES", (0.0, 0.0, 0.0))
    monkeypatch.setattr(queue, "_connect_once", collide)
    assert queue._connect(url, {}).get_all_studies() == []
    assert len(calls) == 3


def test_runs_are_claimed_in_the_order_of_the_plan(url):
    sweep_queue = open_queue(url, seeds=(0, 1), **SEARCH)
    names = []
    while (claim := sweep_queue.claim("w")) is not None:
        names.append(claim.planned.name)
        sweep_queue.complete(claim, 0.5)
    assert names == [planned.name for planned in plan_runs(sweep_queue.sweep)]


def test_systems_may_be_named_runs_and_search(url):
    settings = small_sweeps.settings(systems=1, **SEARCH)
    settings["systems"] = dict.fromkeys(("runs", "search"), settings["systems"]["a"])
    sweep_queue = queue_processes.open_queue(url, settings)
    sweep_queue.fill()
    finish_search(sweep_queue, [0.4, 0.3, 0.2, 0.1])
    assert {name: status.planned.name for name, status in sweep_queue.selected_trials().items()} == {
        "runs": "search/runs/001",
        "search": "search/search/001",
    }


@pytest.mark.parametrize("immediate", [True, False], ids=["with BEGIN IMMEDIATE", "without BEGIN IMMEDIATE"])
def test_concurrent_processes_claim_each_run_once(url, immediate):
    settings = small_sweeps.settings(seeds=tuple(range(4)))
    open_queue(url, seeds=tuple(range(4)))
    claims = queue_processes.run_together(3, queue_processes.claim_all, url, settings, immediate)
    claimed_names = sorted(itertools.chain(*claims))
    expected = sorted(f"runs/{system}/seed{seed}" for system in "ab" for seed in range(4))
    assert (claimed_names == expected) is immediate, "this test would not notice two processes with the same run"


def test_a_final_run_waits_for_its_search_and_gets_the_first_of_the_best_settings(url):
    sweep_queue = open_queue(url, systems=1, search={"trials": 4})
    claims = [sweep_queue.claim("w") for _ in range(4)]
    assert sweep_queue.claim("w") is None
    for claim, value in zip(claims[:3], (0.7, 0.2, 0.2), strict=True):
        sweep_queue.complete(claim, value)
    assert sweep_queue.claim("w") is None
    assert sweep_queue.selected_trials() == {}
    sweep_queue.complete(claims[3], 0.9)
    run = sweep_queue.claim("w")
    assert run.planned.name == "runs/a/seed0"
    assert run.settings == claims[1].settings == plan_runs(sweep_queue.sweep)[1].settings


def test_a_grid_is_claimed_as_planned(url):
    settings = small_sweeps.settings(systems=1, search={"trials": 3, "sampler": "grid"})
    axes = [{"key": "optimizer.name", "choices": ["sgd"]}, {"key": "batch_size", "choices": [4, 8, 16]}]
    settings["systems"]["a"] |= {"search": axes}
    sweep_queue = queue_processes.open_queue(url, settings)
    sweep_queue.fill()
    settings = [sweep_queue.claim("w").settings for _ in range(3)]
    assert settings == [{"optimizer.name": "sgd", "batch_size": size} for size in (4, 8, 16)]
    assert all(type(trial["batch_size"]) is int for trial in settings)


def test_tpe_gives_processes_different_points_that_are_reproducible(tmp_path):
    def points(name):
        url = f"sqlite:///{tmp_path}/{name}.db"
        first, second = open_queue(url, systems=1, **TPE), open_queue(url, fill=False, systems=1, **TPE)
        return [a_queue.claim("w").settings["optimizer.learning_rate"] for a_queue in (first, second, first)]

    rates = points("a")
    assert len(set(rates)) == 3
    assert all(1e-3 <= rate <= 1e-1 for rate in rates)
    assert points("b") == rates


def test_tpe_learns_from_its_own_system(url):
    sweep_queue = open_queue(url, search={"trials": 11, "sampler": "tpe"})
    rates = collections.defaultdict(list)
    best = {"a": 1e-3, "b": 1e-1}
    while (claim := sweep_queue.claim("w")) is not None and claim.planned.is_trial:
        rate = claim.settings["optimizer.learning_rate"]
        rates[claim.planned.system].append(rate)
        sweep_queue.complete(claim, abs(math.log(rate / best[claim.planned.system])))
    assert rates["a"][10] < 1e-2  # TPE begins with ten random trials
    assert rates["b"][10] > 1e-2


def test_tpe_settings_survive_when_a_trial_is_lost_failed_or_requeued(url):
    sweep_queue = open_queue(url, systems=1, **TPE)
    first = sweep_queue.claim("w")
    expire_heartbeats(sweep_queue)
    sweep_queue.requeue_lost()
    second = sweep_queue.claim("w")
    sweep_queue.requeue(second)
    third = sweep_queue.claim("w")
    sweep_queue.fail(third, "no memory")
    sweep_queue.fill()
    fourth = sweep_queue.claim("w")
    claims = (first, second, third, fourth)
    assert [claim.planned.name for claim in claims] == ["search/a/000"] * 4
    assert all(claim.settings == first.settings for claim in claims)


@pytest.mark.parametrize("with_heartbeats", [True, False], ids=["after some heartbeats", "right after the claim"])
def test_the_run_of_a_killed_process_is_requeued_once_with_its_settings(url, with_heartbeats):
    settings = small_sweeps.settings(systems=1, **TPE)
    sweep_queue = open_queue(url, systems=1, **TPE)
    parent_end, child_end = queue_processes.PROCESSES.Pipe()
    process = queue_processes.PROCESSES.Process(
        target=queue_processes.claim_and_wait, args=(child_end, url, settings, with_heartbeats)
    )
    process.start()
    name, claimed_settings = parent_end.recv()
    assert states(sweep_queue)[name] == "running"
    if with_heartbeats:
        expire_heartbeats(sweep_queue)
        wait_for_heartbeat(sweep_queue)
    process.kill()
    process.join()
    expire_heartbeats(sweep_queue)
    for _ in range(2):
        sweep_queue.requeue_lost()
        assert states(sweep_queue)[name] == "waiting"
    assert attempts(sweep_queue)[name] == ["FAIL", "WAITING"]
    claim = sweep_queue.claim("w")
    assert (claim.planned.name, claim.settings) == (name, claimed_settings)


def test_the_run_of_a_worker_that_has_ended_is_requeued_at_once(url):
    sweep_queue = open_queue(url)
    for worker in ("here/0", "here/1"):
        sweep_queue.claim(worker)
    sweep_queue.requeue_lost(["here/0", "here/2"])
    assert attempts(sweep_queue) == {"runs/a/seed0": ["FAIL", "WAITING"], "runs/b/seed0": ["RUNNING"]}


def test_who_was_lost_and_who_goes_on_is_recorded_with_the_run(url):
    sweep_queue = open_queue(url, systems=1)
    here = socket.gethostname()
    sweep_queue.claim(f"{here}/0")
    expire_heartbeats(sweep_queue)
    sweep_queue.requeue_lost()
    silent = Loss(f"{here}/0", "did not answer for 1 h 00 min")
    assert sweep_queue.statuses()[0].losses == (silent,)
    claim = sweep_queue.claim("far/1")
    sweep_queue.record_successor(claim, "far/1", 1200)
    continued = dataclasses.replace(silent, successor="far/1", step=1200)
    assert sweep_queue.statuses()[0].losses == (continued,)
    sweep_queue.requeue_after_crash(claim, "ended by SIGKILL, possibly because memory ran out; its last line: 40 %")
    crashed = Loss("far/1", "lost the process of this run (ended by SIGKILL, possibly because memory ran out)")
    assert sweep_queue.statuses()[0].losses == (continued, crashed)
    claim = sweep_queue.claim("far/1")
    sweep_queue.record_successor(claim, "far/1", 1300)
    sweep_queue.requeue_lost(["far/1"])
    losses = sweep_queue.statuses()[0].losses
    assert losses == (
        continued,
        dataclasses.replace(crashed, successor="far/1", step=1300),
        Loss("far/1", "has ended"),
    )
    sweep_queue.record_successor(sweep_queue.claim("far/2"), "far/2", 0)
    assert sweep_queue.statuses()[0].losses[-1] == Loss("far/1", "has ended", "far/2", 0)


def test_a_run_that_was_never_lost_has_no_successor(url):
    sweep_queue = open_queue(url, systems=1)
    claim = sweep_queue.claim("w")
    sweep_queue.record_successor(claim, "w", 3)
    sweep_queue.requeue(claim)
    assert sweep_queue.statuses()[0].losses == ()


def test_concurrent_processes_requeue_a_lost_run_once(url):
    sweep_queue = open_queue(url)
    sweep_queue.claim("w")
    expire_heartbeats(sweep_queue)
    queue_processes.run_together(3, queue_processes.requeue_lost, url, small_sweeps.settings())
    assert attempts(sweep_queue)["runs/a/seed0"] == ["FAIL", "WAITING"]


@pytest.mark.parametrize("finish", ["fill", "requeue_lost"])
def test_a_requeue_that_was_interrupted_is_finished_by_the_next_start_or_by_another_process(url, monkeypatch, finish):
    sweep_queue = open_queue(url, systems=1, **TPE)
    settings = sweep_queue.claim("w").settings
    expire_heartbeats(sweep_queue)
    with monkeypatch.context() as interrupted:  # the trial is marked as failed, and the process killed
        interrupted.setattr(optuna.storages.RetryHeartbeatStaleTrialCallback, "__call__", lambda *arguments: None)
        sweep_queue.requeue_lost()
    assert (sweep_queue.statuses()[0].state, sweep_queue.statuses()[0].reason) == ("failed", "its worker was lost")
    monkeypatch.setattr(queue, "HEARTBEAT", -1)  # how long another process has the time to do it
    getattr(open_queue(url, fill=False, systems=1, **TPE), finish)()
    assert states(sweep_queue)["search/a/000"] == "waiting"
    assert sweep_queue.claim("w").settings == settings


@pytest.mark.parametrize("hours", [5, -5], ids=["in the future", "in the past"])
def test_a_heartbeat_of_another_clock_is_judged_by_this_process_own(url, monkeypatch, hours):
    sweep_queue = open_queue(url, systems=1)
    sweep_queue.claim("elsewhere/0")
    with sweep_queue.storage.engine.begin() as connection:
        skewed = f"update trial_heartbeats set heartbeat = datetime('now', '{hours} hours')"
        connection.execute(sqlalchemy.text(skewed))
    now = 1000.0
    monkeypatch.setattr(queue.time, "monotonic", lambda: now)
    for passed, state in ((0, "running"), (queue.GRACE - 1, "running"), (2, "waiting")):
        now += passed
        sweep_queue.requeue_lost()
        assert states(sweep_queue)["runs/a/seed0"] == state


def test_a_run_with_heartbeats_is_not_requeued(url, monkeypatch):
    monkeypatch.setattr(queue, "HEARTBEAT", 0.05)
    monkeypatch.setattr(queue, "GRACE", 600)  # the thread of heartbeats may have to wait for a busy machine
    sweep_queue = open_queue(url)
    claim = sweep_queue.claim("w")
    with sweep_queue.send_heartbeats(claim):
        for _ in range(3):
            expire_heartbeats(sweep_queue)
            wait_for_heartbeat(sweep_queue)
            sweep_queue.requeue_lost()
            assert states(sweep_queue)["runs/a/seed0"] == "running"
    expire_heartbeats(sweep_queue)
    sweep_queue.requeue_lost()
    assert states(sweep_queue)["runs/a/seed0"] == "waiting"


def test_a_process_that_was_considered_lost_cannot_change_the_run(url):
    sweep_queue = open_queue(url)
    late = sweep_queue.claim("late")
    expire_heartbeats(sweep_queue)
    sweep_queue.requeue_lost()
    fast = sweep_queue.claim("fast")
    for end in (
        lambda: sweep_queue.complete(late, 0.9),
        lambda: sweep_queue.fail(late, "x"),
        lambda: sweep_queue.requeue(late),
    ):
        end()
        assert states(sweep_queue)["runs/a/seed0"] == "running"
    sweep_queue.requeue_after_crash(late, "ended by SIGKILL")
    sweep_queue.complete(fast, 0.25)
    sweep_queue.complete(late, 0.9)
    status = sweep_queue.statuses()[0]
    assert (status.state, status.value, status.worker) == ("complete", 0.25, "fast")


def test_the_next_start_enqueues_failed_runs_and_not_complete_ones(url):
    sweep_queue = open_queue(url)
    sweep_queue.fail(sweep_queue.claim("w"), "no memory")
    sweep_queue.complete(sweep_queue.claim("w"), 0.5)
    assert [(e.state, e.reason, e.value) for e in sweep_queue.statuses()] == [
        ("failed", "no memory", None),
        ("complete", "", 0.5),
    ]
    open_queue(url)
    assert attempts(sweep_queue) == {"runs/a/seed0": ["FAIL", "WAITING"], "runs/b/seed0": ["COMPLETE"]}


def test_a_final_run_whose_search_failed_does_not_wait_forever(url):
    sweep_queue = open_queue(url, systems=2, **SEARCH)
    sweep_queue.fail(sweep_queue.claim("w"), "no memory")
    finish_search(sweep_queue, [0.3, 0.2, 0.1])
    final_runs = {
        status.planned.name: (status.state, status.reason)
        for status in sweep_queue.statuses()
        if not status.planned.is_trial
    }
    assert final_runs == {
        "runs/a/seed0": ("failed", "no settings were selected, because search/a/000 failed"),
        "runs/b/seed0": ("waiting", ""),
    }
    assert sweep_queue.claim("w").planned.name == "runs/b/seed0"
    assert sweep_queue.claim("w") is None
    sweep_queue.fill()
    assert states(sweep_queue)["runs/a/seed0"] == "waiting"
    finish_search(sweep_queue, [0.3])
    assert sweep_queue.claim("w").planned.name == "runs/a/seed0"


def test_a_run_that_keeps_crashing_is_marked_as_failed(url):
    sweep_queue = open_queue(url, systems=1)
    for crash in (1, 2, 3):
        claim = sweep_queue.claim("w")
        if crash == 2:  # losing the worker in between does not reset the count
            expire_heartbeats(sweep_queue)
            sweep_queue.requeue_lost()
            claim = sweep_queue.claim("w")
        sweep_queue.requeue_after_crash(claim, "ended by SIGKILL")
    assert sweep_queue.claim("w") is None
    assert sweep_queue.statuses()[0].reason == "crashed 3 times; the last time: ended by SIGKILL"
    sweep_queue.fill()
    sweep_queue.requeue_after_crash(sweep_queue.claim("w"), "ended by SIGKILL")
    assert states(sweep_queue) == {"runs/a/seed0": "waiting"}


def test_a_requeued_run_is_the_next_to_be_claimed(url):
    sweep_queue = open_queue(url)
    claim = sweep_queue.claim("w")
    sweep_queue.requeue(claim)
    again = sweep_queue.claim("v")
    assert (again.planned, again.settings) == (claim.planned, claim.settings)
    assert attempts(sweep_queue)["runs/a/seed0"] == ["RUNNING"]
    assert sweep_queue.statuses()[0].worker == "v"


def test_a_process_that_does_not_know_added_seeds_ignores_them(url):
    old = open_queue(url, systems=1, seeds=(0,))
    new = open_queue(url, systems=1, seeds=(0, 1))
    old.complete(old.claim("old"), 0.5)
    assert old.claim("old") is None
    assert [status.state for status in old.statuses()] == ["complete"]
    assert new.claim("new").planned.name == "runs/a/seed1"


def test_statuses_have_the_settings_value_and_duration_of_a_run(url):
    sweep_queue = open_queue(url, **SEARCH)
    claim = sweep_queue.claim("host/3")
    time.sleep(0.05)
    sweep_queue.complete(claim, 0.125)
    status = sweep_queue.statuses()[0]
    assert status.planned == claim.planned
    assert (status.settings, status.value) == (claim.settings, 0.125)
    assert 0.05 <= status.seconds < 60
    assert [e.value for e in sweep_queue.statuses()[1:]] == [None] * 5


def test_a_full_disk_is_reported_and_loses_nothing(url):
    sweep_queue = open_queue(url)
    claim = sweep_queue.claim("w")

    max_pages = [1]  # SQLite raises this to the number of pages in use

    @sqlalchemy.event.listens_for(sweep_queue.storage.engine, "begin")
    def _(connection):
        connection.exec_driver_sql(f"PRAGMA max_page_count = {max_pages[0]}")

    with pytest.raises(
        SaveError, match=r"trials\.db: database or disk is full; free some disk space and run the same"
    ):
        sweep_queue.fail(claim, "x" * 100_000)
    max_pages[0] = 10_000
    assert states(sweep_queue)["runs/a/seed0"] == "running"
    sweep_queue.complete(claim, 0.5)
    assert states(sweep_queue)["runs/a/seed0"] == "complete"


def test_only_a_full_disk_is_reported_as_one():
    def error_type(message):
        with pytest.raises(UserError) as error, queue.storage_errors("postgresql+psycopg://fullhost/x"):
            raise sqlalchemy.exc.OperationalError("insert", {}, Exception(message))
        return type(error.value)

    assert error_type('could not extend file "base/1": No space left on device') is SaveError
    assert error_type('could not translate host name "fullhost" to address') is queue.UnreachableError


@pytest.fixture
def closed_port():
    """A port that refuses connections, because it is bound and nothing listens there."""
    with socket.socket() as holder:
        holder.bind(("127.0.0.1", 0))
        yield holder.getsockname()[1]


@pytest.mark.parametrize(
    ("url", "message"),
    [
        ("sqlite:////nowhere/at/all/trials.db", "--storage=sqlite:////nowhere/at/all/trials.db cannot be reached"),
        ("nonsense", "--storage: 'nonsense' is not a database URL, such as sqlite:////path/trials.db"),
        ("", "--storage: '' is not a database URL"),
        ("postgresql:/me:secret@host/x", "--storage: 'postgresql:***@host/x' is not a database URL"),
        ("postgresql://me:se@cret@host:port/x", "--storage: 'postgresql:***@host:port/x' is not a database URL"),
        ("oracel://me:secret@host/x", "--storage=oracel://me:***@host/x cannot be reached: Can't load plugin"),
        (
            "postgresql+pg8000://me:secret@host/x",
            "//me:***@host/x cannot be reached: No module named 'pg8000'; install PostgreSQL's driver",
        ),
    ],
)
def test_an_unreachable_storage_is_named_without_its_password(url, message):
    with pytest.raises(UserError, match=re.escape(message)) as error:
        open_queue(url)
    assert "secret" not in str(error.value)
    assert "cret@" not in str(error.value)


@pytest.mark.parametrize(
    "user", ["me:secret@127.0.0.1:{}/x", "127.0.0.1:{}/x?user=me&password=secret&sslmode=disable"]
)
def test_a_missing_server_is_reported_without_the_password(user, closed_port):
    pytest.importorskip("psycopg", reason="needs psycopg: pip install 'psycopg[binary]'")
    with pytest.raises(
        UserError, match=r"\*\*\*.* cannot be reached: .*refused.*; check that the server is running"
    ) as error:
        open_queue(f"postgresql+psycopg://{user.format(closed_port)}")
    assert "secret" not in str(error.value)


def test_a_file_that_is_not_a_database_is_reported(tmp_path, url):
    (tmp_path / "trials.db").write_text("a text that is long enough to be read as a page of SQLite\n" * 100)
    for is_read_only in (False, True):
        with pytest.raises(queue.DamagedError, match=r"is damaged: file is not a database. Move it away \(mv /"):
            SweepQueue(url, small_sweeps.sweep(), "one", is_read_only=is_read_only)


@pytest.mark.parametrize("damage", ["a flipped state", "random bytes"])
def test_a_damaged_database_is_no_server_that_does_not_answer(tmp_path, url, damage):
    sweep_queue = open_queue(url)
    if damage == "random bytes":
        content = bytearray((tmp_path / "trials.db").read_bytes())
        content[4096:] = np.random.default_rng(0).bytes(len(content) - 4096)
        (tmp_path / "trials.db").write_bytes(content)
    else:
        with sweep_queue.storage.engine.begin() as connection:
            connection.execute(sqlalchemy.text("update trials set state = 'WAITIMG'"))
    with pytest.raises(UserError, match="is damaged") as error:
        open_queue(url, fill=False).statuses()
    assert not isinstance(error.value, queue.UnreachableError)


def test_a_new_database_keeps_the_settings_that_were_suggested(tmp_path, url):
    first = open_queue(url, systems=1, **TPE).claim("w")
    again = open_queue(f"sqlite:///{tmp_path}/new.db", fill=False, systems=1, **TPE)
    key, rate = "optimizer.learning_rate", first.settings["optimizer.learning_rate"]
    settings = {"search/a/000": {key: rate}, "search/a/001": {key: 7.0}}  # the second is not on the axis
    again.fill(lambda name, keys: settings.get(name))
    claims = again.claim("w"), again.claim("w")
    assert (claims[0].planned, claims[0].settings) == (first.planned, first.settings)
    assert claims[1].settings[key] <= 0.1


def test_a_queue_for_reading_writes_nothing(tmp_path, url):
    sweep_queue = open_queue(url, seeds=(0,))
    sweep_queue.complete(sweep_queue.claim("w"), 0.5)
    before = (tmp_path / "trials.db").read_bytes()
    with sweep_queue.storage.engine.begin():  # another process holds the lock for writing
        reading = SweepQueue(url, small_sweeps.sweep(seeds=(0, 1), search={"trials": 2}), "one", is_read_only=True)
        expected = dict.fromkeys(reading.planned, "waiting") | {"runs/a/seed0": "complete"}
        assert states(reading) == expected
    assert [path.name for path in tmp_path.iterdir()] == ["trials.db"]
    assert (tmp_path / "trials.db").read_bytes() == before
    with pytest.raises(UserError, match="there is no such file"):
        SweepQueue(f"sqlite:///{tmp_path}/missing.db", small_sweeps.sweep(), "one", is_read_only=True)
    assert [path.name for path in tmp_path.iterdir()] == ["trials.db"]


def test_the_journal_of_a_killed_process_is_no_obstacle_to_reading(tmp_path, url, monkeypatch):
    sweep_queue = open_queue(url)
    calls = []

    def copy_once(path, target, mode="ro"):
        calls.append(path)
        if len(calls) == 1:  # as SQLite does in a directory that cannot be written
            raise sqlite3.OperationalError("attempt to write a readonly database")
        copy(path, target, mode)

    copy = queue._copy_sqlite
    monkeypatch.setattr(queue, "_copy_sqlite", copy_once)
    reading = SweepQueue(url, small_sweeps.sweep(), "one", is_read_only=True)
    assert states(reading) == states(sweep_queue)
    assert calls[1].parent != tmp_path


def test_the_tables_of_another_version_of_optuna_are_reported(url):
    sweep_queue = open_queue(url)
    with sweep_queue.storage.engine.begin() as connection:
        connection.execute(sqlalchemy.text("update alembic_version set version_num = 'v99.0.0.a'"))
    with pytest.raises(UserError, match=r"--storage=sqlite:.*trials.db: .*optuna"):
        open_queue(url, fill=False)


def test_the_directory_may_contain_special_characters_of_urls_and_optuna(tmp_path):
    (tmp_path / "a {b} %20").mkdir()
    open_queue(f"sqlite:///{tmp_path}/a {{b}} %2520/trials.db")
    assert (tmp_path / "a {b} %20" / "trials.db").exists()


def test_optuna_prints_nothing_itself(url, caplog, recwarn):
    with caplog.at_level(logging.INFO):
        sweep_queue = open_queue(url, systems=1, **TPE)
        sweep_queue.claim("w")
        sweep_queue.requeue_lost()
    assert not caplog.records
    assert not [warning for warning in recwarn if "optuna" in str(warning.category)]


def as_optuna_reads(sweep_queue):
    """Return the fields of every attempt by its number, read by Optuna."""
    fields = {}
    for study in optuna.get_all_study_summaries(sweep_queue.storage):
        for trial in optuna.load_study(study_name=study.study_name, storage=sweep_queue.storage).get_trials():
            is_complete, is_failed = trial.state.name == "COMPLETE", trial.state.name == "FAIL"
            fields[trial._trial_id] = (
                trial.user_attrs["name"],
                trial.number,
                trial.state,
                trial.system_attrs.get("fixed_params") or trial.params or None,
                trial.user_attrs.get("worker", ""),
                trial.user_attrs.get("why") if is_failed else None,
                trial.value if is_complete else None,
                trial.duration.total_seconds() if is_complete else None,
            )
    return fields


@pytest.mark.parametrize("search", [SEARCH, TPE], ids=["quasi_random", "tpe"])
def test_every_change_of_every_process_is_read_as_optuna_reads_it(url, search):
    watcher, worker = open_queue(url, seeds=(0, 1), **search), open_queue(url, fill=False, **search)
    actions = [
        lambda claim: worker.complete(claim, 0.25),
        lambda claim: worker.fail(claim, "no memory"),
        worker.requeue,
        lambda claim: worker.requeue_after_crash(claim, "crash"),
        lambda claim: worker.complete(claim, math.inf),
        lambda claim: worker.complete(claim, 0.5),
        lambda claim: None,
    ]
    for act in actions:
        claim = worker.claim("w")
        for step in (lambda: None, lambda claim=claim, act=act: act(claim)):
            step()
            read = {
                a.trial_id: (a.name, a.number, a.state, a.settings, a.worker, a.reason, a.value, a.seconds)
                for a in watcher._reader.read()
            }
            assert read == as_optuna_reads(worker)


def test_a_look_at_the_queue_reads_only_what_changed(url):
    sweep_queue = open_queue(url, systems=1, search={"trials": 40})
    details = []

    @sqlalchemy.event.listens_for(sweep_queue.storage.engine, "before_cursor_execute")
    def _(_connection, _cursor, statement, parameters, _context, _many):
        if "trial_user_attributes" in statement:
            details.append(len(parameters))

    sweep_queue.statuses()
    sweep_queue.statuses()
    sweep_queue.complete(sweep_queue.claim("w"), 0.5)
    details.clear()
    sweep_queue.statuses()
    assert details == [1]
    sweep_queue.statuses()
    assert details == [1]
