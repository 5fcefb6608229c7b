"""What the tests have other processes do; it imports little, since each of them waits for it."""

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
    """With a sign of life every second; without one for two seconds a trial is lost."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", optuna.exceptions.ExperimentalWarning)
        retry = optuna.storages.RetryHeartbeatStaleTrialCallback()
        return optuna.storages.RDBStorage(url, heartbeat_interval=1, heartbeat_stale_trial_callback=retry)


def run_trials(url: str, study_name: str, trials: int, seconds: float = 0.0) -> list[float]:
    """Runs so many of a study's trials, each for so many seconds, and returns their x."""
    study = optuna.load_study(study_name=study_name, storage=open_storage(url))
    taken: list[float] = []

    def objective(trial: optuna.Trial) -> float:
        taken.append(trial.suggest_float("x", 0, 1000))
        time.sleep(seconds)
        return taken[-1]

    study.optimize(objective, n_trials=trials)
    return taken


def wait_until(true: Callable[[], bool], seconds: float = 60) -> None:
    """Waits until something is true, at most so many seconds."""
    deadline = time.monotonic() + seconds
    while not true():
        assert time.monotonic() < deadline, f"still not so after {seconds} seconds"
        time.sleep(0.1)


def meet(mine: Path, other: Path) -> int:
    """Waits for the process that has the files the other way round; returns which task of an array this is."""
    mine.touch()
    wait_until(other.exists)
    return int(os.environ["SLURM_ARRAY_TASK_ID"])


def count(file: Path, up_to: int) -> int:
    """Counts on from the number in the file, ten a second, and returns from where.

    At SIGTERM it ends after the number, which is saved, as a training does; likewise at SIGUSR2, which SLURM sends for
    submitit before a preemption or the end of the time: then it goes back to the queue by itself. submitit alone
    ignores the first, and at the second leaves the function at once, wherever it is.
    """
    received: list[int] = []
    for one in (signal.SIGTERM, signal.SIGUSR2):
        signal.signal(one, lambda number, frame: received.append(number))
    begun = int(file.read_text()) if file.exists() else 0
    for number in range(begun, up_to):
        if received:
            stop(received)
        time.sleep(0.1)
        file.with_suffix(".new").write_text(str(number + 1))
        file.with_suffix(".new").replace(file)
    return begun


def stop(received: list[int]) -> NoReturn:
    """Ends this process without a result, which submitit would take for the job's, whoever starts it again."""
    if signal.SIGUSR2 in received:  # who ends by himself before his time is over is not put back by SLURM
        subprocess.run(["scontrol", "requeue", os.environ["SLURM_JOB_ID"]], check=True)
    sys.exit(75)
