"""Whole sweeps through `main.py`, what a test does to them, and what must be true at their end."""

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

STEPS = 60  # of each training, a checkpoint every third
SECONDS = 1200  # that a sweep may take on a busy machine


def write(directory, data_dir, **changes):
    """A sweep's file over two LeNets, "a" and "b", which differ in their learning rate."""
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
    """A function that starts `main.py` on a sweep in `workdir`; nothing of it lives on after the block."""
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


def wait_for_watch(process):
    """Until a sweep watches over its workers, from when on a signal stops it in order."""
    line = process.stdout.readline()
    assert " trainings in " in line, line + process.stderr.read()


def wait_until(true):
    """The first true answer."""
    deadline = time.monotonic() + SECONDS
    while not (answer := true()):
        assert time.monotonic() < deadline, f"still not so after {SECONDS} seconds"
        time.sleep(0.02)
    return answer


def step(run):
    """The last step in a training's log."""
    return max((row["step"] for row in read_rows(run / METRICS)), default=0)


def under_way(workdir, least=4):
    """Trainings that have taken so many steps and have no result yet."""
    found = (path.parent for path in Path(workdir).glob(f"runs/*/*/{METRICS}"))
    return [run for run in found if not (run / "result.json").exists() and step(run) >= least]


def results(workdir):
    """When each result was written, by the training's name."""
    found = Path(workdir).glob("runs/*/*/result.json")
    return {_name(path.parent, workdir): path.stat().st_mtime_ns for path in found}


def kill(process):
    """Ends a sweep by SIGKILL; its workers live on, and keep its pipes open. Returns what it had said."""
    process.kill()
    process.wait()
    said = b""
    for pipe in (process.stdout, process.stderr):
        os.set_blocking(pipe.fileno(), False)
        with contextlib.suppress(BlockingIOError):
            said += os.read(pipe.fileno(), 1 << 20)
        pipe.close()
    return said.decode()


def kill_workers(workdir):
    """Ends all workers by SIGKILL, and says how many there were."""
    pids = SweepDirectory(workdir).worker_pids()
    for pid in pids:
        os.kill(pid, signal.SIGKILL)
    return len(pids)


def kill_worker_under_way(workdir, but=()):
    """Ends the worker of a training that is under way by SIGKILL, and returns the training's name."""
    while True:
        run = wait_until(lambda: next((run for run in under_way(workdir) if _name(run, workdir) not in but), None))
        pid = _worker_of(run)
        if pid:
            os.kill(pid, signal.SIGKILL)
            return _name(run, workdir)


def _name(run, workdir):
    return str(run.relative_to(workdir))


def _worker_of(run):
    """The parent of the process that trains in a directory, as Linux lists them."""
    for process in Path("/proc").glob("[0-9]*"):
        with contextlib.suppress(OSError):
            words = (process / "cmdline").read_bytes().split(b"\0")
            if b"imagenet_repro.sweeps.trial" in words and str(run).encode() in words:
                return int((process / "stat").read_text().rpartition(")")[2].split()[1])
    return None


def resumed(workdir):
    """Names of trainings that went on from a checkpoint."""
    return _that_said("resumed at step", workdir)


def lost(workdir):
    """Names of trainings that went on from a checkpoint which is neither their end nor where they were stopped."""
    kept = _that_said("stopped by SIGTERM at step", workdir) | _that_said(f"resumed at step {STEPS},", workdir)
    return resumed(workdir) - kept


def _that_said(words, workdir):
    logs = Path(workdir).glob("runs/*/*/output.log")
    return {_name(path.parent, workdir) for path in logs if words in path.read_text()}


def assert_complete(workdir, trainings, storage=""):
    """Each training has one result, tells one story from its first step to its last, and is complete once."""
    assert len(results(workdir)) == trainings
    for name in results(workdir):
        rows = read_rows(Path(workdir) / name / METRICS)
        assert [row["step"] for row in rows if row["kind"] == "train"] == list(range(1, STEPS + 1))
        assert [row["step"] for row in rows if row["kind"] == "eval"] == [30, STEPS]
    place = SweepDirectory(workdir)
    study = optuna.load_study(study_name=f"{place.identity()}/runs", storage=storage or place.default_storage)
    complete = study.get_trials(states=(optuna.trial.TrialState.COMPLETE,))
    assert Counter(trial.user_attrs["name"] for trial in complete) == Counter(list(results(workdir)))
    assert study.get_trials(states=(optuna.trial.TrialState.WAITING, optuna.trial.TrialState.RUNNING)) == []
    for trial in complete:
        result = json.loads((Path(workdir) / trial.user_attrs["name"] / "result.json").read_text())
        assert trial.value == result["rates"]["top1_error"]


def assert_same(workdir, undisturbed):
    """All parameters, optimizer states and predictions have the bits of those of another sweep."""
    for name in results(workdir):
        found, expected = (command_line.arrays(Path(place) / name, STEPS) for place in (workdir, undisturbed))
        assert found.keys() == expected.keys()
        for key, value in expected.items():
            np.testing.assert_array_equal(found[key], value, err_msg=f"{name} {key}")
