"""Tests of the features of PostgreSQL on which sweeps rely, with a real server."""

import multiprocessing
from concurrent.futures import ProcessPoolExecutor

import optuna
import pytest
from optuna.trial import TrialState
from sqlalchemy import create_engine, make_url, text
from sqlalchemy.exc import OperationalError

from imagenet_repro.sweeps.queue import SweepQueue
from tests.integration import jobs
from tests.sweeps import small_sweeps

pytestmark = [
    pytest.mark.integration,
    pytest.mark.filterwarnings("ignore::optuna.exceptions.ExperimentalWarning"),
]

SPAWN = multiprocessing.get_context("spawn")  # a process that has imported JAX must not be forked


def states(study):
    return [trial.state for trial in study.get_trials(deepcopy=False)]


def test_four_processes_share_the_waiting_trials(postgresql_url):
    storage = jobs.open_storage(postgresql_url)
    study = optuna.create_study(storage=storage, study_name="shared")
    for x in range(24):
        study.enqueue_trial({"x": x})
    with ProcessPoolExecutor(4, mp_context=SPAWN) as processes:
        futures = [processes.submit(jobs.run_trials, postgresql_url, "shared", 6) for _ in range(4)]
        values = [x for future in futures for x in future.result()]
    assert sorted(values) == list(range(24))
    assert states(study) == [TrialState.COMPLETE] * 24


def has_heartbeat(storage, trial):
    query = text("select count(*) from trial_heartbeats where trial_id = :id")
    with storage.engine.connect() as connection:
        return connection.execute(query, {"id": trial._trial_id}).scalar() > 0


def test_the_trial_of_a_killed_process_returns_to_the_queue(postgresql_url):
    storage = jobs.open_storage(postgresql_url)
    study = optuna.create_study(storage=storage, study_name="lost")
    study.enqueue_trial({"x": 7})
    process = SPAWN.Process(target=jobs.run_trials, args=(postgresql_url, "lost", 1, 600))
    process.start()
    jobs.wait_until(lambda: states(study) == [TrialState.RUNNING])
    # A trial whose process is killed before its first heartbeat would never count as lost.
    jobs.wait_until(lambda: has_heartbeat(storage, study.get_trials()[0]))
    process.kill()
    process.join()

    def is_requeued():
        optuna.storages.fail_stale_trials(study)
        return states(study) == [TrialState.FAIL, TrialState.WAITING]

    jobs.wait_until(is_requeued)
    assert jobs.run_trials(postgresql_url, "lost", 1) == [7]
    assert states(study) == [TrialState.FAIL, TrialState.COMPLETE]


def test_a_connection_needs_the_password(postgresql_url):
    url = make_url(postgresql_url)
    with pytest.raises(OperationalError, match="no password supplied"):
        create_engine(url.set(password="")).connect()
    with pytest.raises(OperationalError, match="authentication failed"):
        create_engine(url.set(password=url.password[::-1])).connect()


def test_lost_runs_are_found_and_a_reader_needs_no_right_to_write(postgresql_url):
    sweep = small_sweeps.sweep()
    queue = SweepQueue(postgresql_url, sweep, "one")
    queue.fill()
    claim = queue.claim("w")
    queue.requeue_lost()
    with queue.storage.engine.begin() as connection:
        connection.execute(text("update trial_heartbeats set heartbeat = heartbeat - interval '1 hour'"))
    read_only = make_url(postgresql_url).update_query_dict({"options": "-c default_transaction_read_only=on"})
    reader = SweepQueue(read_only.render_as_string(hide_password=False), sweep, "one", is_read_only=True)
    states_read = {status.planned.name: status.state for status in reader.statuses()}
    assert states_read == dict.fromkeys(queue.planned, "waiting") | {claim.planned.name: "running"}
    queue.requeue_lost()
    assert {status.state for status in queue.statuses()} == {"waiting"}
