"""The trainings of a sweep as Optuna's trials, in real SQLite files."""

import collections
import itertools
import logging
import math
import re
import socket
import time

import optuna
import pytest
import sqlalchemy

from imagenet_repro.errors import SaveError, UserError
from imagenet_repro.sweeps import queue
from imagenet_repro.sweeps.plan import plan_runs
from tests.sweeps import queue_processes, small_sweeps

SEARCH = {"search": {"trials": 2}}
TPE = {"search": {"trials": 3, "sampler": "tpe", "seed": 5}}


@pytest.fixture
def url(tmp_path):
    return f"sqlite:///{tmp_path}/trials.db"


def opened(url, *, fill=True, **settings):
    one = queue_processes.opened(url, small_sweeps.settings(**settings))
    if fill:
        one.fill()
    return one


def attempts(one):
    """Every trial that the storage holds, by the name of its training."""
    found = collections.defaultdict(list)
    for study in optuna.get_all_study_summaries(one.storage):
        for trial in optuna.load_study(study_name=study.study_name, storage=one.storage).get_trials():
            found[trial.user_attrs["name"]].append(trial.state.name)
    return dict(found)


def states(one):
    return {entry.planned.name: entry.state for entry in one.statuses()}


def lose(one):
    """Makes every heartbeat so far an old one."""
    with one.storage.engine.begin() as connection:
        connection.execute(sqlalchemy.text("update trial_heartbeats set heartbeat = datetime('now', '-1 hour')"))


def finish_search(one, values):
    for value in values:
        one.complete(one.claim("w"), value)


def test_filling_enqueues_the_plan_once(url):
    one = opened(url, seeds=(0, 1), **SEARCH)
    opened(url, seeds=(0, 1), **SEARCH)
    assert attempts(one) == {planned.name: ["WAITING"] for planned in plan_runs(one.sweep)}


def test_trainings_are_claimed_in_the_order_of_the_plan(url):
    one = opened(url, seeds=(0, 1), **SEARCH)
    names = []
    while (claim := one.claim("w")) is not None:
        names.append(claim.planned.name)
        one.complete(claim, 0.5)
    assert names == [planned.name for planned in plan_runs(one.sweep)]


def test_a_system_may_be_called_as_the_plan_calls_its_parts(url):
    settings = small_sweeps.settings(systems=1, **SEARCH)
    settings["systems"] = dict.fromkeys(("runs", "search"), settings["systems"]["a"])
    one = queue_processes.opened(url, settings)
    one.fill()
    finish_search(one, [0.4, 0.3, 0.2, 0.1])
    assert {name: entry.planned.name for name, entry in one.selected_trials().items()} == {
        "runs": "search/runs/001",
        "search": "search/search/001",
    }


@pytest.mark.parametrize("immediate", [True, False], ids=["as it is", "without BEGIN IMMEDIATE"])
def test_processes_that_claim_at_once_take_each_training_once(url, immediate):
    settings = small_sweeps.settings(seeds=tuple(range(4)))
    opened(url, seeds=tuple(range(4)))
    each = queue_processes.together(3, queue_processes.claim_all, url, settings, immediate)
    taken = sorted(itertools.chain(*each))
    once = sorted(f"runs/{system}/seed{seed}" for system in "ab" for seed in range(4))
    assert (taken == once) is immediate, "this test would not see two processes that take the same training"


def test_a_run_waits_for_its_systems_search_and_gets_the_first_of_the_lowest(url):
    one = opened(url, systems=1, search={"trials": 4})
    claims = [one.claim("w") for _ in range(4)]
    assert one.claim("w") is None
    for claim, value in zip(claims[:3], (0.7, 0.2, 0.2), strict=True):
        one.complete(claim, value)
    assert one.claim("w") is None
    assert one.selected_trials() == {}
    one.complete(claims[3], 0.9)
    run = one.claim("w")
    assert run.planned.name == "runs/a/seed0"
    assert run.settings == claims[1].settings == plan_runs(one.sweep)[1].settings


def test_a_grid_is_claimed_as_it_was_planned(url):
    settings = small_sweeps.settings(systems=1, search={"trials": 3, "sampler": "grid"})
    axes = [{"key": "optimizer.name", "choices": ["sgd"]}, {"key": "batch_size", "choices": [4, 8, 16]}]
    settings["systems"]["a"] |= {"search": axes}
    one = queue_processes.opened(url, settings)
    one.fill()
    found = [one.claim("w").settings for _ in range(3)]
    assert found == [{"optimizer.name": "sgd", "batch_size": size} for size in (4, 8, 16)]
    assert all(type(each["batch_size"]) is int for each in found)


def test_processes_get_different_points_of_tpe_and_the_same_ones_when_all_is_repeated(tmp_path):
    def points(name):
        url = f"sqlite:///{tmp_path}/{name}.db"
        first, second = opened(url, systems=1, **TPE), opened(url, fill=False, systems=1, **TPE)
        return [one.claim("w").settings["optimizer.learning_rate"] for one in (first, second, first)]

    found = points("a")
    assert len(set(found)) == 3
    assert all(1e-3 <= rate <= 1e-1 for rate in found)
    assert points("b") == found


def test_tpe_learns_from_its_own_system(url):
    one = opened(url, search={"trials": 11, "sampler": "tpe"})
    rates = collections.defaultdict(list)
    best = {"a": 1e-3, "b": 1e-1}
    while (claim := one.claim("w")) is not None and claim.planned.is_trial:
        rate = claim.settings["optimizer.learning_rate"]
        rates[claim.planned.system].append(rate)
        one.complete(claim, abs(math.log(rate / best[claim.planned.system])))
    assert rates["a"][10] < 1e-2  # after ten at random
    assert rates["b"][10] > 1e-2


def test_what_tpe_suggested_stays_when_the_trial_is_lost_failed_or_put_back(url):
    one = opened(url, systems=1, **TPE)
    first = one.claim("w")
    lose(one)
    one.requeue_lost()
    second = one.claim("w")
    one.requeue(second)
    third = one.claim("w")
    one.fail(third, "no memory")
    one.fill()
    fourth = one.claim("w")
    claims = (first, second, third, fourth)
    assert [claim.planned.name for claim in claims] == ["search/a/000"] * 4
    assert all(claim.settings == first.settings for claim in claims)


@pytest.mark.parametrize("beats", [True, False], ids=["after some heartbeats", "right after the claim"])
def test_what_a_killed_process_had_comes_back_once_with_its_values(url, monkeypatch, beats):
    monkeypatch.setattr(queue, "GRACE", 1)
    settings = small_sweeps.settings(systems=1, **TPE)
    one = opened(url, systems=1, **TPE)
    mine, theirs = queue_processes.PROCESSES.Pipe()
    process = queue_processes.PROCESSES.Process(target=queue_processes.hold, args=(theirs, url, settings, beats))
    process.start()
    name, values = mine.recv()
    assert states(one)[name] == "running"
    if beats:
        time.sleep(1.5)
    process.kill()
    process.join()
    deadline = time.monotonic() + 30
    while states(one)[name] != "waiting":
        assert time.monotonic() < deadline
        one.requeue_lost()
        time.sleep(0.1)
    one.requeue_lost()
    assert attempts(one)[name] == ["FAIL", "WAITING"]
    claim = one.claim("w")
    assert (claim.planned.name, claim.settings) == (name, values)


def test_processes_that_recover_at_once_put_back_once(url):
    one = opened(url)
    one.claim("w")
    lose(one)
    queue_processes.together(3, queue_processes.recover, url, small_sweeps.settings())
    assert attempts(one)["runs/a/seed0"] == ["FAIL", "WAITING"]


def test_what_was_being_put_back_when_that_was_killed_is_put_back_by_the_next_start(url, monkeypatch):
    one = opened(url)
    one.claim("w")
    lose(one)
    monkeypatch.setattr(one.storage, "heartbeat_stale_trial_callback", None)  # what comes second is not done
    one.requeue_lost()
    assert (one.statuses()[0].state, one.statuses()[0].reason) == ("failed", "lost")
    one.fill()
    assert states(one)["runs/a/seed0"] == "waiting"


def test_what_tells_that_it_lives_is_left_alone(url, monkeypatch):
    monkeypatch.setattr(queue, "HEARTBEAT", 0.2)
    monkeypatch.setattr(queue, "GRACE", 2)
    one = opened(url)
    claim = one.claim("w")
    with one.send_heartbeats(claim):
        until = time.monotonic() + 4.5
        while time.monotonic() < until:
            one.requeue_lost()
            assert states(one)["runs/a/seed0"] == "running"
            time.sleep(0.2)
    lose(one)
    one.requeue_lost()
    assert states(one)["runs/a/seed0"] == "waiting"


def test_who_was_taken_for_lost_changes_nothing_any_more(url):
    one = opened(url)
    late = one.claim("late")
    lose(one)
    one.requeue_lost()
    fast = one.claim("fast")
    for end in (lambda: one.complete(late, 0.9), lambda: one.fail(late, "x"), lambda: one.requeue(late)):
        end()
        assert states(one)["runs/a/seed0"] == "running"
    one.requeue_after_crash(late, "ended by SIGKILL")
    one.complete(fast, 0.25)
    one.complete(late, 0.9)
    entry = one.statuses()[0]
    assert (entry.state, entry.value, entry.worker) == ("complete", 0.25, "fast")


def test_what_failed_is_enqueued_again_by_the_next_start_and_what_is_done_is_not(url):
    one = opened(url)
    one.fail(one.claim("w"), "no memory")
    one.complete(one.claim("w"), 0.5)
    assert [(e.state, e.reason, e.value) for e in one.statuses()] == [
        ("failed", "no memory", None),
        ("complete", "", 0.5),
    ]
    opened(url)
    assert attempts(one) == {"runs/a/seed0": ["FAIL", "WAITING"], "runs/b/seed0": ["COMPLETE"]}


def test_a_run_whose_search_failed_does_not_wait_for_ever(url):
    one = opened(url, systems=2, **SEARCH)
    one.fail(one.claim("w"), "no memory")
    finish_search(one, [0.3, 0.2, 0.1])
    found = {entry.planned.name: (entry.state, entry.reason) for entry in one.statuses() if not entry.planned.is_trial}
    assert found == {
        "runs/a/seed0": ("failed", "nothing was selected, search/a/000 failed"),
        "runs/b/seed0": ("waiting", ""),
    }
    assert one.claim("w").planned.name == "runs/b/seed0"
    assert one.claim("w") is None
    one.fill()
    assert states(one)["runs/a/seed0"] == "waiting"
    finish_search(one, [0.3])
    assert one.claim("w").planned.name == "runs/a/seed0"


def test_what_crashes_again_and_again_is_given_up(url):
    one = opened(url, systems=1)
    for time_ in (1, 2, 3):
        claim = one.claim("w")
        if time_ == 2:  # a loss of the worker in between does not begin the count anew
            lose(one)
            one.requeue_lost()
            claim = one.claim("w")
        one.requeue_after_crash(claim, "ended by SIGKILL")
    assert one.claim("w") is None
    assert one.statuses()[0].reason == "3 times, the last time ended by SIGKILL"
    one.fill()
    one.requeue_after_crash(one.claim("w"), "ended by SIGKILL")
    assert states(one) == {"runs/a/seed0": "waiting"}


def test_what_is_put_back_is_the_next_to_be_claimed(url):
    one = opened(url)
    claim = one.claim("w")
    one.requeue(claim)
    again = one.claim("v")
    assert (again.planned, again.settings) == (claim.planned, claim.settings)
    assert attempts(one)["runs/a/seed0"] == ["RUNNING"]
    assert one.statuses()[0].worker == "v"


def test_a_process_that_does_not_know_of_added_seeds_leaves_them_alone(url):
    old = opened(url, systems=1, seeds=(0,))
    new = opened(url, systems=1, seeds=(0, 1))
    old.complete(old.claim("old"), 0.5)
    assert old.claim("old") is None
    assert [entry.state for entry in old.statuses()] == ["complete"]
    assert new.claim("new").planned.name == "runs/a/seed1"


def test_entries_say_when_and_what_came_of_a_training(url):
    one = opened(url, **SEARCH)
    claim = one.claim("host/3")
    time.sleep(0.05)
    one.complete(claim, 0.125)
    entry = one.statuses()[0]
    assert entry.planned == claim.planned
    assert (entry.settings, entry.value) == (claim.settings, 0.125)
    assert 0.05 <= entry.seconds < 60
    assert [e.value for e in one.statuses()[1:]] == [None] * 5


def test_a_full_storage_is_told_and_loses_nothing(url):
    one = opened(url)
    claim = one.claim("w")

    pages = [1]  # SQLite takes the number that there are

    @sqlalchemy.event.listens_for(one.storage.engine, "begin")
    def _(connection):
        connection.exec_driver_sql(f"PRAGMA max_page_count = {pages[0]}")

    with pytest.raises(SaveError, match=r"trials\.db: database or disk is full; make room, the same command goes on"):
        one.fail(claim, "x" * 100_000)
    pages[0] = 10_000
    assert states(one)["runs/a/seed0"] == "running"
    one.complete(claim, 0.5)
    assert states(one)["runs/a/seed0"] == "complete"


def test_only_a_full_disk_is_called_one():
    def told(words):
        with pytest.raises(UserError) as error, queue.storage_errors("postgresql+psycopg://fullhost/x"):
            raise sqlalchemy.exc.OperationalError("insert", {}, Exception(words))
        return type(error.value)

    assert told('could not extend file "base/1": No space left on device') is SaveError
    assert told('could not translate host name "fullhost" to address') is queue.UnreachableError


def closed_port():
    with socket.socket() as one:
        one.bind(("127.0.0.1", 0))
        return one.getsockname()[1]


@pytest.mark.parametrize(
    ("url", "message"),
    [
        ("sqlite:////nowhere/at/all/trials.db", "--storage=sqlite:////nowhere/at/all/trials.db cannot be reached"),
        ("nonsense", "--storage: 'nonsense' is not a database's URL, such as sqlite:////path/trials.db"),
        ("", "--storage: '' is not a database's URL"),
        ("postgresql:/me:secret@host/x", "--storage: 'postgresql:***@host/x' is not a database's URL"),
        ("postgresql://me:se@cret@host:port/x", "--storage: 'postgresql:***@host:port/x' is not a database's URL"),
        ("oracel://me:secret@host/x", "--storage=oracel://me:***@host/x cannot be reached: Can't load plugin"),
        (
            "postgresql+pg8000://me:secret@host/x",
            "//me:***@host/x cannot be reached: No module named 'pg8000'; requirements/postgresql.txt has",
        ),
    ],
)
def test_a_storage_that_cannot_be_reached_is_named_without_its_password(url, message):
    with pytest.raises(UserError, match=re.escape(message)) as error:
        opened(url)
    assert "secret" not in str(error.value)
    assert "cret@" not in str(error.value)


@pytest.mark.parametrize(
    "user", ["me:secret@127.0.0.1:{}/x", "127.0.0.1:{}/x?user=me&password=secret&sslmode=disable"]
)
def test_a_server_that_is_not_there_is_told_without_the_password(user):
    pytest.importorskip("psycopg", reason="needs psycopg: pip install 'psycopg[binary]'")
    with pytest.raises(UserError, match=r"\*\*\*.* cannot be reached: .*refused.*; is the server there") as error:
        opened(f"postgresql+psycopg://{user.format(closed_port())}")
    assert "secret" not in str(error.value)


def test_a_file_that_is_no_database_is_told(tmp_path, url):
    (tmp_path / "trials.db").write_text("a thesis, and long enough to be taken for a page of SQLite's\n" * 100)
    with pytest.raises(UserError, match=r"cannot be reached: file is not a database; is its directory there"):
        opened(url)


def test_a_directorys_name_may_hold_what_urls_and_optuna_read(tmp_path):
    (tmp_path / "a {b} %20").mkdir()
    opened(f"sqlite:///{tmp_path}/a {{b}} %2520/trials.db")
    assert (tmp_path / "a {b} %20" / "trials.db").exists()


def test_optuna_says_nothing_of_its_own(url, caplog, recwarn):
    with caplog.at_level(logging.INFO):
        one = opened(url, systems=1, **TPE)
        one.claim("w")
        one.requeue_lost()
    assert not caplog.records
    assert not [warning for warning in recwarn if "optuna" in str(warning.category)]
