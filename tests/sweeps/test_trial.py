"""Tests of the process of one training run."""

import os
import signal
import subprocess
import sys

import pytest

from imagenet_repro.errors import EXIT_STOPPED
from imagenet_repro.sweeps import trial

SIGNALLED = """
import os, signal, sys
from imagenet_repro.errors import InterruptedRunError
from imagenet_repro.runs import train
from imagenet_repro.sweeps import trial
from imagenet_repro.training.clock import StopSignal

def training(config, workdir):
    os.kill(os.getpid(), signal.SIGUSR2)
    with StopSignal() as stop:
        for _ in range(3):
            os.kill(os.getpid(), signal.SIGTERM)
        if stop.received == "SIGTERM":
            raise InterruptedRunError("stopped")

train.train = training
sys.exit(trial.main(sys.argv[1], "workdir"))
"""


WORKER = "import subprocess, sys; subprocess.run([sys.executable, '-c', sys.argv[1]])"
CHILD = """
import signal
from imagenet_repro.sweeps import trial
trial._is_orphaned()
print('started', flush=True)
signal.pause()
"""


def test_repeated_signals_stop_a_run_in_order(tmp_path):
    """SLURM's warning and SIGTERM reach every process of a job, and the worker forwards SIGTERM as well."""
    config = tmp_path / "planned.json"
    config.write_text("{}")
    ended = subprocess.run([sys.executable, "-c", SIGNALLED, config], capture_output=True, text=True, check=False)
    assert ended.returncode == EXIT_STOPPED, ended.stderr


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="needs Linux's signal at the death of a parent")
def test_a_run_whose_worker_is_dead_does_not_start(tmp_path):
    command = [sys.executable, "-m", "imagenet_repro.sweeps.trial", str(tmp_path / "absent.json"), str(tmp_path)]
    environment = os.environ | {trial.PARENT: str(2**22 + 1)}
    assert subprocess.run(command, env=environment, check=False).returncode == EXIT_STOPPED
    assert list(tmp_path.iterdir()) == []


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="needs Linux's signal at the death of a parent")
def test_a_run_ends_when_its_worker_dies(tmp_path):
    """The worker starts a process that asks for a signal at its parent's death, and is then killed."""
    with subprocess.Popen([sys.executable, "-c", WORKER, CHILD], stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout.readline() == "started\n"
        process.send_signal(signal.SIGKILL)
        assert process.stdout.read() == ""  # the pipe closes when its last writer has ended
