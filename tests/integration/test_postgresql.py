"""What sweeps ask of PostgreSQL, shown on a real one."""

import multiprocessing
from concurrent.futures import ProcessPoolExecutor

import optuna
import pytest
from optuna.trial import TrialState
from sqlalchemy import create_engine, make_url
from sqlalchemy.exc import OperationalError

from tests.integration import jobs

pytestmark = [
    pytest.mark.integration,
    pytest.mark.filterwarnings("ignore::optuna.exceptions.ExperimentalWarning"),
]

SPAWN = multiprocessing.get_context("spawn")  # JAX, which the tests' set-up imports, must not be forked


def states(study):
    return [trial.state for trial in study.get_trials(deepcopy=False)]


def test_four_processes_share_the_trials_that_wait(postgresql_url):
    storage = jobs.open_storage(postgresql_url)
    study = optuna.create_study(storage=storage, study_name="shared")
    for x in range(24):
        study.enqueue_trial({"x": x})
    with ProcessPoolExecutor(4, mp_context=SPAWN) as processes:
        each = [processes.submit(jobs.run_trials, postgresql_url, "shared", 6) for _ in range(4)]
        taken = [x for one in each for x in one.result()]
    assert sorted(taken) == list(range(24))
    assert states(study) == [TrialState.COMPLETE] * 24


def test_what_a_killed_process_had_goes_back_to_the_queue(postgresql_url):
    study = optuna.create_study(storage=jobs.open_storage(postgresql_url), study_name="lost")
    study.enqueue_trial({"x": 7})
    process = SPAWN.Process(target=jobs.run_trials, args=(postgresql_url, "lost", 1, 600))
    process.start()
    jobs.wait_until(lambda: states(study) == [TrialState.RUNNING])
    process.kill()
    process.join()

    def recovered():
        optuna.storages.fail_stale_trials(study)
        return states(study) == [TrialState.FAIL, TrialState.WAITING]

    jobs.wait_until(recovered)
    assert jobs.run_trials(postgresql_url, "lost", 1) == [7]
    assert states(study) == [TrialState.FAIL, TrialState.COMPLETE]


def test_only_who_knows_the_password_gets_in(postgresql_url):
    url = make_url(postgresql_url)
    with pytest.raises(OperationalError, match="no password supplied"):
        create_engine(url.set(password="")).connect()
    with pytest.raises(OperationalError, match="authentication failed"):
        create_engine(url.set(password=url.password[::-1])).connect()
