"""Where workers run."""

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

TWO = """echo 'GPU 0: NVIDIA H100 (UUID: GPU-5d)'
echo '  MIG 1g.10gb Device 0: (UUID: MIG-77)'
echo 'GPU 1: NVIDIA H100 (UUID: GPU-6e)'"""


@pytest.fixture
def commands(tmp_path, monkeypatch):
    """A directory of commands before all others; what stands there of SLURM and NVIDIA is all that there is."""
    place = tmp_path / "commands"
    place.mkdir()
    monkeypatch.setenv("PATH", f"{place}{os.pathsep}{os.environ['PATH']}")
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)

    def write(name, script):
        path = place / name
        path.write_text(f"#!/bin/sh\n{script}\n")
        path.chmod(path.stat().st_mode | stat.S_IXUSR)

    return write


@pytest.fixture
def place(tmp_path):
    one = SweepDirectory(tmp_path / "a sweep")
    one.record(small_sweeps.sweep(), one.default_storage)
    return one


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
def test_gpus_are_those_that_cuda_may_see(monkeypatch, named, gpus):
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", named)
    assert launch.visible_gpus() == gpus


def test_gpus_are_all_that_nvidia_lists_else_none(commands, monkeypatch, tmp_path):
    commands("nvidia-smi", TWO)
    assert launch.visible_gpus() == ["0", "1"]
    commands("nvidia-smi", "echo 'NVIDIA-SMI has failed'; exit 9")
    assert launch.visible_gpus() == []
    monkeypatch.setenv("PATH", str(tmp_path))
    assert launch.visible_gpus() == []


def test_a_worker_for_each_gpu_and_one_where_there_are_none(commands, place):
    commands("nvidia-smi", "exit 9")
    local = launch.LocalLauncher(place, "")
    assert (local.default_workers, local.description) == (1, "this machine, all devices each")
    commands("nvidia-smi", TWO)
    local = launch.LocalLauncher(place, "")
    assert (local.default_workers, local.description) == (2, "this machine, one for each GPU of 0, 1")


SLOTS = (1, 2)


class Devices(worker.Worker):
    """Writes down which devices it sees, and whether Ctrl-C reaches it; then holds its place as a worker does."""

    def __call__(self):
        place = SweepDirectory(self.directory)
        with place.slot(self.slot):
            signal.signal(signal.SIGTERM, self._stop)
            ignored = signal.getsignal(signal.SIGINT) is signal.SIG_IGN
            seen = [os.environ.get("CUDA_VISIBLE_DEVICES"), ignored, os.environ[worker.STORAGE]]
            (place.path / f"{self.slot}.part").write_text(json.dumps(seen))
            (place.path / f"{self.slot}.part").rename(place.path / f"{self.slot}.json")
            while not self._stopping:
                time.sleep(0.05)
        (place.path / f"{self.slot}.ended").touch()


def wait_for(*paths):
    deadline = time.monotonic() + 60
    while not all(path.exists() for path in paths):
        assert time.monotonic() < deadline, [str(path) for path in paths if not path.exists()]
        time.sleep(0.05)


def test_each_worker_sees_its_gpu_outlives_ctrl_c_and_stops_when_told(monkeypatch, place):
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "2,MIG-77/1/0")
    monkeypatch.setattr(launch, "Worker", Devices)
    monkeypatch.setitem(sys.modules, "__main__", sys.modules[__name__])  # the class goes along with its pickle
    local = launch.LocalLauncher(place, "sqlite:///x")
    before = dict(os.environ), signal.getsignal(signal.SIGINT)
    try:
        local.start(SLOTS)
        assert all(map(local.is_alive, SLOTS))
        assert not local.is_alive(3)
        assert (dict(os.environ), signal.getsignal(signal.SIGINT)) == before
        wait_for(*(place.path / f"{slot}.json" for slot in SLOTS))
    finally:
        launch.LocalLauncher(place, "sqlite:///x").stop()  # as the next process that is told to
    seen = [json.loads((place.path / f"{slot}.json").read_text()) for slot in SLOTS]
    assert seen == [[gpu, True, "sqlite:///x"] for gpu in ("MIG-77/1/0", "2")]
    assert all((place.path / f"{slot}.ended").exists() for slot in SLOTS)
    deadline = time.monotonic() + 60
    while any(map(local.is_alive, SLOTS)):
        assert time.monotonic() < deadline
        time.sleep(0.05)


@pytest.fixture
def slurm(commands, tmp_path):
    """A SLURM that answers and does nothing: `queued` is what it says of jobs."""
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


def test_options_reach_the_script_and_jobs_are_remembered(slurm, place, capsys):
    one = launch.SlurmLauncher(place, "postgresql://x", {"partition": "gpu", "time": 600, "gpus_per_node": 1})
    assert "partition=gpu" in one.description
    one.start([0, 1])
    script = (slurm / "script").read_text()
    for line in ("--partition=gpu", "--time=600", "--gpus-per-node=1", "--array=0-1%2", "--signal=USR2@180"):
        assert f"#SBATCH {line}" in script
    jobs = place.workers / launch.JOBS
    assert json.loads(jobs.read_text()) == {"0": "41_0", "1": "41_1"}
    (slurm / "next").write_text("57")
    one.start([1])
    assert json.loads(jobs.read_text()) == {"0": "41_0", "1": "57"}
    (slurm / "queued").write_text("41_0\n57\n")
    again = launch.SlurmLauncher(place, "postgresql://x", {})  # the next process knows them
    assert [again.is_alive(slot) for slot in range(3)] == [True, True, False]
    (slurm / "queued").write_text("41_0\n")
    assert [again.is_alive(slot) for slot in range(3)] == [True, False, False]
    again.stop()
    assert "scancel 41 57" in capsys.readouterr().out


def test_a_slurm_that_does_not_answer_has_not_lost_its_jobs(slurm, place):
    one = launch.SlurmLauncher(place, "", {})
    one.start([0, 1])
    assert not one.is_alive(0)
    (slurm / "down").touch()
    assert one.is_alive(0)
    assert not one.is_alive(2)  # of which it was never told


def test_an_option_that_slurm_has_not_is_refused_with_the_nearest(slurm, place):
    with pytest.raises(UserError, match=r"--slurm\.partitoin: .*; did you mean 'partition'\?"):
        launch.SlurmLauncher(place, "", {"partitoin": "gpu"})


@pytest.mark.parametrize(
    ("script", "message"),
    [
        ("echo 'sbatch: error: invalid partition specified: gpu' >&2; exit 1", "invalid partition specified: gpu"),
        ("echo 'come back tomorrow'", "come back tomorrow"),
    ],
)
def test_what_slurm_refuses_is_told_in_its_words(slurm, commands, place, script, message):
    commands("sbatch", script)
    one = launch.SlurmLauncher(place, "", {"partition": "gpu"})
    for slots in ([0], [0, 1]):
        with pytest.raises(UserError, match=f"--launcher=slurm: SLURM refused the jobs: (.|\n)*{message}"):
            one.start(slots)
    assert not (place.workers / launch.JOBS).exists()


@pytest.mark.parametrize("missing", ["sbatch", "srun", "squeue"])
def test_a_machine_without_slurm_is_told(tmp_path, commands, monkeypatch, place, missing):
    monkeypatch.setenv("PATH", str(tmp_path / "commands"))
    for name in {"sbatch", "srun", "squeue"} - {missing}:
        commands(name, "")
    with pytest.raises(
        UserError, match=re.escape(f"there is no {missing} on this machine; start the sweep on a login")
    ):
        launch.SlurmLauncher(place, "", {})
