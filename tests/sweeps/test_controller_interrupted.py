"""Sweeps on this machine that are killed and stopped at random moments, and end as if nothing had been."""

import os
import random
import signal
import time

import pytest

from imagenet_repro.sweeps.directory import SweepDirectory
from tests import command_line
from tests.sweeps import full_sweeps

pytestmark = pytest.mark.slow

WORKERS = "--workers=2"


@pytest.fixture(scope="module")
def file(fractal, tmp_path_factory):
    return full_sweeps.write(tmp_path_factory.mktemp("sweep"), fractal, seeds=(0, 1))


@pytest.fixture
def begin(file, start, tmp_path):
    """Starts the sweep, or goes on with it."""
    return lambda: start(*full_sweeps.arguments(file, tmp_path, WORKERS))


@pytest.fixture(scope="module")
def undisturbed(file, tmp_path_factory):
    workdir = tmp_path_factory.mktemp("undisturbed")
    command_line.run(*full_sweeps.arguments(file, workdir), seconds=full_sweeps.SECONDS)
    return workdir


def a_worker(process, workdir):
    for pid in SweepDirectory(workdir).worker_pids()[:1]:
        os.kill(pid, signal.SIGKILL)


def a_machine_that_is_taken_away(process, workdir):
    for pid in SweepDirectory(workdir).worker_pids():
        os.kill(pid, signal.SIGUSR2)  # as clusters warn; submitit starts the same worker again


def the_parent(process, workdir):
    full_sweeps.kill(process)


def all_of_them(process, workdir):
    full_sweeps.kill(process)
    full_sweeps.kill_workers(workdir)


def ctrl_c(process, workdir):
    process.send_signal(signal.SIGINT)


def sigterm(process, workdir):
    process.send_signal(signal.SIGTERM)


def assert_ends(process, disturb):
    """What is killed says nothing; what is stopped says that it goes on; the others see the sweep to its end."""
    if disturb in (the_parent, all_of_them):
        return
    out, err = process.communicate(timeout=full_sweeps.SECONDS)
    assert process.returncode == 0 or (disturb in (ctrl_c, sigterm) and process.returncode == 75), out + err
    assert "Traceback" not in err


@pytest.mark.parametrize("seed", [0, 1])
@pytest.mark.parametrize("disturb", [a_worker, a_machine_that_is_taken_away, the_parent, all_of_them, ctrl_c, sigterm])
def test_the_same_command_ends_with_the_bits_of_an_undisturbed_sweep(disturb, seed, begin, undisturbed, tmp_path):
    moments = random.Random(f"{disturb.__name__} {seed}")
    for _ in range(2):
        process = begin()
        full_sweeps.wait_for_watch(process)
        full_sweeps.wait_until(lambda: full_sweeps.under_way(tmp_path) or process.poll() is not None)  # noqa: B023
        time.sleep(moments.uniform(0, 3))
        before = full_sweeps.results(tmp_path)
        disturb(process, tmp_path)
        assert_ends(process, disturb)
    assert_ends(begin(), a_worker)
    assert full_sweeps.results(tmp_path).items() >= before.items()
    full_sweeps.assert_complete(tmp_path, trainings=4)
    full_sweeps.assert_same(tmp_path, undisturbed)
    assert (tmp_path / "report.html").exists()


def test_ctrl_c_while_workers_start_leaves_nobody_behind(begin, tmp_path):
    process = begin()
    full_sweeps.wait_until(lambda: list(tmp_path.glob("workers/slot-*/*_submitted.pkl")))
    process.send_signal(signal.SIGINT)
    out, err = process.communicate(timeout=200)
    assert process.returncode == 75, out + err
    assert "SIGINT: the workers save and end" in out
    time.sleep(5)
    assert full_sweeps.kill_workers(tmp_path) == 0
    assert full_sweeps.results(tmp_path) == {}
