"""Whole sweeps whose workers are jobs of SLURM, which are cancelled, requeued and pre-empted."""

import json
import os
import signal
import subprocess

import pytest
import submitit

from tests.integration import cluster
from tests.sweeps import full_sweeps

pytestmark = pytest.mark.integration

OPTIONS = ("--launcher=slurm", "--slurm.partition=main", "--slurm.time=30", "--slurm.cpus_per_task=1")


@pytest.fixture
def arguments(slurm, sweep_file, tmp_path):
    """Of a sweep in `tmp_path`, to which the number of workers is added."""
    yield full_sweeps.arguments(sweep_file, tmp_path, *OPTIONS)
    subprocess.run(["scancel", *{job.split("_")[0] for job in jobs(tmp_path).values()}], check=False)


def jobs(workdir):
    """The jobs of the workers by slot, as the sweep knows them."""
    path = workdir / "workers/jobs.json"
    return json.loads(path.read_text()) if path.exists() else {}


def queued():
    """How many jobs, or tasks of arrays, wait or run."""
    listed = subprocess.run(["squeue", "--noheader", "--array"], capture_output=True, text=True, check=True)
    return len(listed.stdout.splitlines())


def assert_ends_like(undisturbed, process, workdir):
    out, err = process.communicate(timeout=full_sweeps.SECONDS)
    assert process.returncode == 0, out + err
    assert "Traceback" not in err
    assert "6 of 6 runs complete" in out
    full_sweeps.assert_complete(workdir, n_runs=6)
    full_sweeps.assert_same_bits(workdir, undisturbed)
    assert full_sweeps.runs_with_lost_steps(workdir) == set()


def test_a_cancelled_array_and_a_killed_parent_change_no_bit(arguments, undisturbed, start, tmp_path):
    arguments = [*arguments, "--workers=2"]
    process = start(*arguments)
    begun = full_sweeps.wait_until(lambda: jobs(tmp_path))
    full_sweeps.wait_until(lambda: full_sweeps.active_runs(tmp_path))
    full_sweeps.kill(process)
    assert len(begun) == 2

    process = start(*arguments)  # finds the jobs of the one that was killed
    full_sweeps.wait_for_first_line(process)
    full_sweeps.wait_until(lambda: full_sweeps.result_times(tmp_path))
    assert jobs(tmp_path) == begun
    assert queued() <= 2
    full_sweeps.wait_until(lambda: full_sweeps.active_runs(tmp_path))
    process.send_signal(signal.SIGINT)
    out, err = process.communicate(timeout=60)
    assert process.returncode == 75, out + err
    assert "the workers go on in SLURM" in out
    first = {str(run.relative_to(tmp_path)) for run in full_sweeps.active_runs(tmp_path)}
    cluster.cancel(begun["0"].split("_")[0])
    full_sweeps.wait_until(lambda: queued() == 0)

    written = full_sweeps.result_times(tmp_path)
    assert_ends_like(undisturbed, start(*arguments), tmp_path)
    assert full_sweeps.result_times(tmp_path).items() >= written.items()
    assert full_sweeps.resumed_runs(tmp_path) <= first
    assert jobs(tmp_path) != begun


def test_a_job_that_is_requeued_and_pre_empted_goes_on_by_itself(arguments, undisturbed, start, tmp_path):
    process = start(*arguments, "--workers=1")
    begun = full_sweeps.wait_until(lambda: jobs(tmp_path))
    full_sweeps.wait_until(lambda: full_sweeps.active_runs(tmp_path))
    cluster.requeue(begun["0"])
    cluster.wait_for(begun["0"], "PENDING")
    cluster.wait_for(begun["0"], "RUNNING")
    full_sweeps.wait_until(lambda: len(full_sweeps.resumed_runs(tmp_path)) == 1)
    done = len(full_sweeps.result_times(tmp_path))
    full_sweeps.wait_until(lambda: len(full_sweeps.result_times(tmp_path)) > done)

    full_sweeps.kill(process)  # nobody but SLURM is left to start the job again
    full_sweeps.wait_until(lambda: full_sweeps.active_runs(tmp_path))
    urgent = submitit.AutoExecutor(tmp_path / "urgent", cluster="slurm")
    urgent.update_parameters(slurm_partition="urgent", timeout_min=5, cpus_per_task=2)
    other = urgent.submit(os.getpid)
    cluster.wait_for(begun["0"], "PENDING")
    assert other.result()
    full_sweeps.wait_until(lambda: len(full_sweeps.resumed_runs(tmp_path)) == 2)

    assert_ends_like(undisturbed, start(*arguments, "--workers=1"), tmp_path)
    assert jobs(tmp_path) == begun
