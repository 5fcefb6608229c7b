"""Full sweeps through `main.py`: how tests start and interrupt them, and what must hold at their end."""

import contextlib
import json
import os
import signal
import time
from collections import Counter
from pathlib import Path

import numpy as np
import optuna

from imagenet_repro.sweeps.directory import SweepDirectory
from imagenet_repro.training.log import METRICS, read_rows
from tests import command_line
from tests.sweeps import small_sweeps

STEPS = 60  # steps of each run, with a checkpoint at every third
SECONDS = 1200  # time limit of a sweep on a busy machine


def write(directory, data_dir, **changes):
    """Write the file of a sweep over two LeNets, "a" and "b", that differ in their learning rate; return its path."""
    recipe = small_sweeps.LENET | {
        "data": small_sweeps.LENET["data"] | {"data_dir": str(data_dir), "threads": 1},
        "evaluate_every": "30st",
        "checkpoint": {"every": "3st"},
    }
    (directory / "lenet.py").write_text(f"def get_config():\n    return {recipe!r}\n")
    rates = {"a": 0.02, "b": 0.05}
    settings = small_sweeps.settings(systems=2, budget=f"{STEPS}st") | {
        "systems": {
            name: {"config": str(directory / "lenet.py"), "set": {"optimizer": {"name": "sgd", "learning_rate": rate}}}
            for name, rate in rates.items()
        },
        **changes,
    }
    file = directory / "sweep.py"
    file.write_text(f"def get_config():\n    return {settings!r}\n")
    return file


def arguments(file, workdir, *more):
    return ["sweep", f"--config={file}", f"--workdir={workdir}", *more]


@contextlib.contextmanager
def sweeping(workdir):
    """Yield a function that starts `main.py` on a sweep in `workdir`; all its processes are killed after the block."""
    processes = []

    def start(*more):
        processes.append(command_line.start(*more))
        return processes[-1]

    try:
        yield start
    finally:
        for process in processes:
            process.kill()
            process.wait()
        kill_workers(workdir)


def wait_for_first_line(process):
    """Wait until a sweep watches its workers; from then on a signal stops it in order."""
    line = process.stdout.readline()
    assert " runs in " in line, line + process.stderr.read()


def wait_until(condition):
    """Return the first true value of a condition."""
    deadline = time.monotonic() + SECONDS
    while not (value := condition()):
        assert time.monotonic() < deadline, f"the condition is still false after {SECONDS} seconds"
        time.sleep(0.02)
    return value


def last_step(run):
    """Return the last step in a run's log."""
    return max((row["step"] for row in read_rows(run / METRICS)), default=0)


def active_runs(workdir, min_steps=4):
    """Return the directories of runs that have taken some steps and have no result yet."""
    runs = (path.parent for path in Path(workdir).glob(f"runs/*/*/{METRICS}"))
    return [run for run in runs if not (run / "result.json").exists() and last_step(run) >= min_steps]


def result_times(workdir):
    """Return the time at which each result was written, by the run's name."""
    paths = Path(workdir).glob("runs/*/*/result.json")
    return {_name(path.parent, workdir): path.stat().st_mtime_ns for path in paths}


def kill(process):
    """Kill a sweep by SIGKILL and return its output so far; its workers live on and keep its pipes open."""
    process.kill()
    process.wait()
    output = b""
    for pipe in (process.stdout, process.stderr):
        os.set_blocking(pipe.fileno(), False)
        with contextlib.suppress(BlockingIOError):
            output += os.read(pipe.fileno(), 1 << 20)
        pipe.close()
    return output.decode()


def kill_workers(workdir):
    """Kill all workers by SIGKILL, and return their number."""
    pids = SweepDirectory(workdir).worker_pids()
    for pid in pids:
        os.kill(pid, signal.SIGKILL)
    return len(pids)


def kill_worker_of_active_run(workdir, excluding=()):
    """Kill the worker of an active run by SIGKILL, and return the run's name.

    The training process is paused meanwhile, so that the run cannot end before its worker does.
    """
    while True:
        run = wait_until(
            lambda: next((run for run in active_runs(workdir) if _name(run, workdir) not in excluding), None)
        )
        pid, worker = _processes_of(run)
        if not pid:
            continue
        with contextlib.suppress(ProcessLookupError):
            os.kill(pid, signal.SIGSTOP)
            is_active = not (run / "result.json").exists()
            if is_active:
                os.kill(worker, signal.SIGKILL)
            os.kill(pid, signal.SIGCONT)
            if is_active:
                return _name(run, workdir)


def _name(run, workdir):
    return str(run.relative_to(workdir))


def _processes_of(run):
    """Return the process that trains in a directory, and its parent, from Linux's list of processes."""
    for process in Path("/proc").glob("[0-9]*"):
        with contextlib.suppress(OSError):
            words = (process / "cmdline").read_bytes().split(b"\0")
            if b"imagenet_repro.sweeps.trial" in words and str(run).encode() in words:
                return int(process.name), int((process / "stat").read_text().rpartition(")")[2].split()[1])
    return None, None


def resumed_runs(workdir):
    """Return the names of runs that resumed from a checkpoint."""
    return _runs_that_printed("resumed at step", workdir)


def runs_with_lost_steps(workdir):
    """Return the names of runs that resumed from a checkpoint older than the point where they were stopped."""
    without_loss = _runs_that_printed("stopped by SIGTERM at step", workdir)
    without_loss |= _runs_that_printed(f"resumed at step {STEPS},", workdir)
    return resumed_runs(workdir) - without_loss


def _runs_that_printed(text, workdir):
    logs = Path(workdir).glob("runs/*/*/output.log")
    return {_name(path.parent, workdir) for path in logs if text in path.read_text()}


def assert_complete(workdir, n_runs, storage=""):
    """Check that each run has one result, a log of every step exactly once, and one complete trial."""
    assert len(result_times(workdir)) == n_runs
    for name in result_times(workdir):
        rows = read_rows(Path(workdir) / name / METRICS)
        assert [row["step"] for row in rows if row["kind"] == "train"] == list(range(1, STEPS + 1))
        assert [row["step"] for row in rows if row["kind"] == "eval"] == [30, STEPS]
    directory = SweepDirectory(workdir)
    study = optuna.load_study(study_name=f"{directory.identity()}/runs", storage=storage or directory.default_storage)
    complete = study.get_trials(states=(optuna.trial.TrialState.COMPLETE,))
    assert Counter(trial.user_attrs["name"] for trial in complete) == Counter(list(result_times(workdir)))
    assert study.get_trials(states=(optuna.trial.TrialState.WAITING, optuna.trial.TrialState.RUNNING)) == []
    for trial in complete:
        result = json.loads((Path(workdir) / trial.user_attrs["name"] / "result.json").read_text())
        assert trial.value == result["rates"]["top1_error"]


def assert_same_bits(workdir, uninterrupted):
    """Check that all parameters and optimizer states are bit for bit those of another sweep."""
    for name in result_times(workdir):
        arrays, expected = (command_line.arrays(Path(sweep) / name, STEPS) for sweep in (workdir, uninterrupted))
        assert arrays.keys() == expected.keys()
        for key, value in expected.items():
            np.testing.assert_array_equal(arrays[key], value, err_msg=f"{name} {key}")
