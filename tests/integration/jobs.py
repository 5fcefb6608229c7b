"""Functions that tests run in other processes; imports are few, because every process waits for them."""

import os
import signal
import subprocess
import sys
import time
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import NoReturn

import optuna


def open_storage(url: str) -> optuna.storages.RDBStorage:
    """Open a storage with a heartbeat every second; a trial without one for two seconds is lost."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", optuna.exceptions.ExperimentalWarning)
        retry = optuna.storages.RetryHeartbeatStaleTrialCallback()
        return optuna.storages.RDBStorage(url, heartbeat_interval=1, heartbeat_stale_trial_callback=retry)


def run_trials(url: str, study_name: str, trials: int, seconds: float = 0.0) -> list[float]:
    """Run a number of a study's trials, each for some seconds, and return their values of x."""
    study = optuna.load_study(study_name=study_name, storage=open_storage(url))
    values: list[float] = []

    def objective(trial: optuna.Trial) -> float:
        values.append(trial.suggest_float("x", 0, 1000))
        time.sleep(seconds)
        return values[-1]

    study.optimize(objective, n_trials=trials)
    return values


def wait_until(condition: Callable[[], bool], seconds: float = 60) -> None:
    """Wait until a condition is true, and fail after some seconds."""
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, f"the condition is still false after {seconds} seconds"
        time.sleep(0.1)


def wait_for_partner(own: Path, other: Path) -> int:
    """Wait for the task that has the same two files in the other order; return this task's number in its array."""
    own.touch()
    wait_until(other.exists)
    return int(os.environ["SLURM_ARRAY_TASK_ID"])


def count(file: Path, up_to: int) -> int:
    """Count on from the number in the file, ten per second, and return the first number.

    On SIGTERM it saves the current number and ends, as a training run does. On SIGUSR2, which SLURM sends for submitit
    before a preemption or the time limit, it also returns to the queue. By default submitit ignores SIGTERM, and
    leaves the function at once on SIGUSR2, wherever it is.
    """
    received: list[int] = []
    for stop_signal in (signal.SIGTERM, signal.SIGUSR2):
        signal.signal(stop_signal, lambda number, frame: received.append(number))
    first = int(file.read_text()) if file.exists() else 0
    for number in range(first, up_to):
        if received:
            stop(received)
        time.sleep(0.1)
        file.with_suffix(".new").write_text(str(number + 1))
        file.with_suffix(".new").replace(file)
    return first


def stop(received: list[int]) -> NoReturn:
    """End this process without a result, which submitit would otherwise store as the result of a restarted job."""
    if signal.SIGUSR2 in received:  # SLURM does not requeue a job that ends by itself before its time limit
        subprocess.run(["scontrol", "requeue", os.environ["SLURM_JOB_ID"]], check=True)
    sys.exit(75)
