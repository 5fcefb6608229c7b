"""Tests of the launchers on this machine and on SLURM."""

import json
import os
import re
import signal
import stat
import sys
import time

import pytest

from imagenet_repro.errors import UserError
from imagenet_repro.sweeps import launch, worker
from imagenet_repro.sweeps.directory import SweepDirectory
from tests.sweeps import small_sweeps

TWO_GPUS = """echo 'GPU 0: NVIDIA H100 (UUID: GPU-5d)'
echo '  MIG 1g.10gb Device 0: (UUID: MIG-77)'
echo 'GPU 1: NVIDIA H100 (UUID: GPU-6e)'"""


@pytest.fixture
def commands(tmp_path, monkeypatch):
    """Return a function that writes commands of SLURM and NVIDIA into a directory that comes first in PATH."""
    bin_path = tmp_path / "commands"
    bin_path.mkdir()
    monkeypatch.setenv("PATH", f"{bin_path}{os.pathsep}{os.environ['PATH']}")
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)

    def write(name, script):
        path = bin_path / name
        path.write_text(f"#!/bin/sh\n{script}\n")
        path.chmod(path.stat().st_mode | stat.S_IXUSR)

    return write


@pytest.fixture
def directory(tmp_path):
    sweep_directory = SweepDirectory(tmp_path / "a sweep")
    sweep_directory.record(small_sweeps.sweep(), sweep_directory.default_storage)
    return sweep_directory


@pytest.mark.parametrize(
    ("named", "gpus"),
    [
        ("0,2", ["0", "2"]),
        (" 1 ", ["1"]),
        ("", []),
        ("-1", []),
        ("3,-1,4", ["3"]),
        ("GPU-5d,MIG-77", ["GPU-5d", "MIG-77"]),
    ],
)
def test_visible_gpus_follow_cudas_variable(monkeypatch, named, gpus):
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", named)
    assert launch.visible_gpus() == gpus


def test_visible_gpus_are_those_that_nvidia_lists(commands, monkeypatch, tmp_path):
    commands("nvidia-smi", TWO_GPUS)
    assert launch.visible_gpus() == ["0", "1"]
    commands("nvidia-smi", "echo 'NVIDIA-SMI has failed'; exit 9")
    assert launch.visible_gpus() == []
    monkeypatch.setenv("PATH", str(tmp_path))
    assert launch.visible_gpus() == []


def test_by_default_there_is_one_worker_for_each_gpu_or_one(commands, directory):
    commands("nvidia-smi", "exit 9")
    local = launch.LocalLauncher(directory, "")
    assert (local.default_workers, local.description) == (1, "this machine, each on all of its devices")
    commands("nvidia-smi", TWO_GPUS)
    local = launch.LocalLauncher(directory, "")
    assert (local.default_workers, local.description) == (2, "this machine, each on one of the GPUs 0, 1")


SLOTS = (1, 2)


class RecordingWorker(worker.Worker):
    """A worker that records its devices and whether it ignores Ctrl-C, and then holds its slot until it is stopped."""

    def __call__(self):
        directory = SweepDirectory(self.directory)
        with directory.worker_slot(self.slot):
            signal.signal(signal.SIGTERM, self._stop)
            ignores_ctrl_c = signal.getsignal(signal.SIGINT) is signal.SIG_IGN
            record = [os.environ.get("CUDA_VISIBLE_DEVICES"), ignores_ctrl_c, os.environ[worker.STORAGE]]
            (directory.path / f"{self.slot}.part").write_text(json.dumps(record))
            (directory.path / f"{self.slot}.part").rename(directory.path / f"{self.slot}.json")
            while not self._is_stopping:
                time.sleep(0.05)
        (directory.path / f"{self.slot}.ended").touch()


def wait_for(*paths):
    deadline = time.monotonic() + 600
    while not all(path.exists() for path in paths):
        assert time.monotonic() < deadline, [str(path) for path in paths if not path.exists()]
        time.sleep(0.05)


def test_each_worker_sees_its_gpu_ignores_ctrl_c_and_can_be_stopped(monkeypatch, directory):
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "2,MIG-77/1/0")
    monkeypatch.setattr(launch, "Worker", RecordingWorker)
    monkeypatch.setitem(sys.modules, "__main__", sys.modules[__name__])  # so that its class can be unpickled
    local = launch.LocalLauncher(directory, "sqlite:///x")
    before = dict(os.environ), signal.getsignal(signal.SIGINT)
    try:
        local.start(SLOTS)
        assert all(map(local.is_alive, SLOTS))
        assert not local.is_alive(3)
        assert (dict(os.environ), signal.getsignal(signal.SIGINT)) == before
        wait_for(*(directory.path / f"{slot}.json" for slot in SLOTS))
    finally:
        launch.LocalLauncher(directory, "sqlite:///x").stop()  # a later process stops them
    records = [json.loads((directory.path / f"{slot}.json").read_text()) for slot in SLOTS]
    assert records == [[gpu, True, "sqlite:///x"] for gpu in ("MIG-77/1/0", "2")]
    assert all((directory.path / f"{slot}.ended").exists() for slot in SLOTS)
    deadline = time.monotonic() + 600
    while any(map(local.is_alive, SLOTS)):
        assert time.monotonic() < deadline
        time.sleep(0.05)


@pytest.fixture
def slurm(commands, tmp_path):
    """Return a directory of fake SLURM commands that start nothing; its file `queued` lists the jobs in the queue."""
    queued = tmp_path / "queued"
    queued.write_text("")
    commands("srun", "")
    commands("sbatch", f'cp "$1" {tmp_path}/script; echo "Submitted batch job $(cat {tmp_path}/next || echo 41)"')
    commands(
        "squeue",
        f'[ -e {tmp_path}/down ] && {{ echo "slurm_load_jobs error: Unable to contact controller" >&2; exit 1; }}\n'
        f'for job; do case $job in --jobs=*) grep "^${{job#--jobs=}}$" {queued} && exit 0; esac; done\n'
        'echo "slurm_load_jobs error: Invalid job id specified" >&2; exit 1',
    )
    return tmp_path


def test_options_reach_the_job_script_and_job_ids_are_recorded(slurm, directory, capsys):
    launcher = launch.SlurmLauncher(directory, "postgresql://x", {"partition": "gpu", "time": 600, "gpus_per_node": 1})
    assert "partition=gpu" in launcher.description
    launcher.start([0, 1])
    script = (slurm / "script").read_text()
    for line in ("--partition=gpu", "--time=600", "--gpus-per-node=1", "--array=0-1%2", "--signal=USR2@180"):
        assert f"#SBATCH {line}" in script
    jobs = directory.workers_path / launch.JOBS
    assert json.loads(jobs.read_text()) == {"0": "41_0", "1": "41_1"}
    (slurm / "next").write_text("57")
    launcher.start([1])
    assert json.loads(jobs.read_text()) == {"0": "41_0", "1": "57"}
    (slurm / "queued").write_text("41_0\n57\n")
    again = launch.SlurmLauncher(directory, "postgresql://x", {})  # a later process knows the jobs
    assert [again.is_alive(slot) for slot in range(3)] == [True, True, False]
    (slurm / "queued").write_text("41_0\n")
    assert [again.is_alive(slot) for slot in range(3)] == [True, False, False]
    again.stop()
    assert "scancel 41 57" in capsys.readouterr().out


def test_jobs_count_as_alive_while_slurm_does_not_answer(slurm, directory):
    launcher = launch.SlurmLauncher(directory, "", {})
    launcher.start([0, 1])
    assert not launcher.is_alive(0)
    (slurm / "down").touch()
    assert launcher.is_alive(0)
    assert not launcher.is_alive(2)  # a slot without a job


def test_an_unknown_option_is_refused_with_the_nearest_name(slurm, directory):
    with pytest.raises(UserError, match=r"--slurm\.partitoin: .*; did you mean 'partition'\?"):
        launch.SlurmLauncher(directory, "", {"partitoin": "gpu"})


@pytest.mark.parametrize(
    ("script", "message"),
    [
        ("echo 'sbatch: error: invalid partition specified: gpu' >&2; exit 1", "invalid partition specified: gpu"),
        ("echo 'come back tomorrow'", "come back tomorrow"),
    ],
)
def test_a_refusal_is_reported_in_slurms_words(slurm, commands, directory, script, message):
    commands("sbatch", script)
    launcher = launch.SlurmLauncher(directory, "", {"partition": "gpu"})
    for slots in ([0], [0, 1]):
        with pytest.raises(UserError, match=f"--launcher=slurm: SLURM refused the jobs: (.|\n)*{message}"):
            launcher.start(slots)
    assert not (directory.workers_path / launch.JOBS).exists()


@pytest.mark.parametrize("missing", ["sbatch", "srun", "squeue"])
def test_a_machine_without_slurm_is_reported(tmp_path, commands, monkeypatch, directory, missing):
    monkeypatch.setenv("PATH", str(tmp_path / "commands"))
    for name in {"sbatch", "srun", "squeue"} - {missing}:
        commands(name, "")
    with pytest.raises(
        UserError, match=re.escape(f"there is no {missing} on this machine; start the sweep on a login")
    ):
        launch.SlurmLauncher(directory, "", {})
