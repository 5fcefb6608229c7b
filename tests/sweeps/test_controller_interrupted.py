"""Tests of sweeps that are killed or stopped at random moments and end with the bits of an uninterrupted sweep."""

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
def start_or_resume(file, start, tmp_path):
    """Return a function that starts or resumes the sweep."""
    return lambda: start(*full_sweeps.arguments(file, tmp_path, WORKERS))


@pytest.fixture(scope="module")
def uninterrupted(file, tmp_path_factory):
    workdir = tmp_path_factory.mktemp("uninterrupted")
    command_line.run(*full_sweeps.arguments(file, workdir), seconds=full_sweeps.SECONDS)
    return workdir


def kill_one_worker(process, workdir):
    for pid in SweepDirectory(workdir).worker_pids()[:1]:
        os.kill(pid, signal.SIGKILL)


def take_the_machine_away(process, workdir):
    for pid in SweepDirectory(workdir).worker_pids():
        os.kill(pid, signal.SIGUSR2)  # the warning of a cluster, after which submitit restarts the worker


def kill_the_controller(process, workdir):
    full_sweeps.kill(process)


def kill_everything(process, workdir):
    full_sweeps.kill(process)
    full_sweeps.kill_workers(workdir)


def send_ctrl_c(process, workdir):
    process.send_signal(signal.SIGINT)


def send_sigterm(process, workdir):
    process.send_signal(signal.SIGTERM)


def assert_exit_code(process, interrupt):
    """Check the exit code: a stopped controller asks to be resumed, and the others finish the sweep."""
    if interrupt in (kill_the_controller, kill_everything):
        return
    out, err = process.communicate(timeout=full_sweeps.SECONDS)
    assert process.returncode == 0 or (interrupt in (send_ctrl_c, send_sigterm) and process.returncode == 75), (
        out + err
    )
    assert "Traceback" not in err


INTERRUPTIONS = [
    kill_one_worker,
    take_the_machine_away,
    kill_the_controller,
    kill_everything,
    send_ctrl_c,
    send_sigterm,
]


@pytest.mark.parametrize("seed", [0, 1])
@pytest.mark.parametrize("interrupt", INTERRUPTIONS)
def test_a_resumed_sweep_has_the_bits_of_an_uninterrupted_one(
    interrupt, seed, start_or_resume, uninterrupted, tmp_path
):
    moments = random.Random(f"{interrupt.__name__} {seed}")
    for _ in range(2):
        process = start_or_resume()
        full_sweeps.wait_for_first_line(process)
        full_sweeps.wait_until(lambda: full_sweeps.active_runs(tmp_path) or process.poll() is not None)  # noqa: B023
        time.sleep(moments.uniform(0, 3))
        before = full_sweeps.result_times(tmp_path)
        interrupt(process, tmp_path)
        assert_exit_code(process, interrupt)
    assert_exit_code(start_or_resume(), kill_one_worker)
    assert full_sweeps.result_times(tmp_path).items() >= before.items()
    full_sweeps.assert_complete(tmp_path, n_runs=4)
    full_sweeps.assert_same_bits(tmp_path, uninterrupted)
    assert (tmp_path / "report.html").exists()


def test_ctrl_c_while_workers_start_leaves_no_process_behind(start_or_resume, tmp_path):
    process = start_or_resume()
    full_sweeps.wait_until(lambda: list(tmp_path.glob("workers/slot-*/*_submitted.pkl")))
    process.send_signal(signal.SIGINT)
    out, err = process.communicate(timeout=200)
    assert process.returncode == 75, out + err
    assert "SIGINT: the workers save and end" in out
    time.sleep(5)
    assert full_sweeps.kill_workers(tmp_path) == 0
    assert full_sweeps.result_times(tmp_path) == {}
