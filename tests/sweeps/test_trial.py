"""The process of one training."""

import os
import signal
import subprocess
import sys

import pytest

from imagenet_repro.errors import EXIT_STOPPED
from imagenet_repro.sweeps import trial

SIGNALLED = """
import os, signal, sys
from imagenet_repro.runs import train
from imagenet_repro.sweeps import trial
from imagenet_repro.training.clock import StopSignal

def training(config, workdir):
    os.kill(os.getpid(), signal.SIGUSR2)
    with StopSignal() as stop:
        for _ in range(3):
            os.kill(os.getpid(), signal.SIGTERM)
        return 75 if stop.received == "SIGTERM" else 1

train.train = training
sys.exit(trial.main(sys.argv[1], "workdir"))
"""


WORKER = "import subprocess, sys; subprocess.run([sys.executable, '-c', sys.argv[1]])"
CHILD = """
import signal
from imagenet_repro.sweeps import trial
trial._orphaned()
print('here', flush=True)
signal.pause()
"""


def test_signals_that_reach_it_twice_stop_it_in_order(tmp_path):
    """SLURM's warning before a job's end reaches all its processes, as does SIGTERM, which the worker passes on."""
    config = tmp_path / "planned.json"
    config.write_text("{}")
    ended = subprocess.run([sys.executable, "-c", SIGNALLED, config], capture_output=True, text=True, check=False)
    assert ended.returncode == EXIT_STOPPED, ended.stderr


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="asks Linux for a signal at its parent's death")
def test_one_whose_worker_is_gone_does_not_begin(tmp_path):
    command = [sys.executable, "-m", "imagenet_repro.sweeps.trial", str(tmp_path / "absent.json"), str(tmp_path)]
    environment = os.environ | {trial.PARENT: str(2**22 + 1)}
    assert subprocess.run(command, env=environment, check=False).returncode == EXIT_STOPPED
    assert list(tmp_path.iterdir()) == []


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="asks Linux for a signal at its parent's death")
def test_one_ends_with_its_worker(tmp_path):
    """The worker here starts a process that asks as a training does, says that it waits, and is then killed."""
    with subprocess.Popen([sys.executable, "-c", WORKER, CHILD], stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout.readline() == "here\n"
        process.send_signal(signal.SIGKILL)
        assert process.stdout.read() == ""  # ends when the last process that could write to it has ended
