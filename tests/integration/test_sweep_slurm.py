"""Tests of full sweeps whose workers are SLURM jobs, which are cancelled, requeued and preempted."""

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
    """Return the arguments of a sweep in `tmp_path`, without the number of workers."""
    yield full_sweeps.arguments(sweep_file, tmp_path, *OPTIONS)
    subprocess.run(["scancel", *{job.split("_")[0] for job in jobs(tmp_path).values()}], check=False)


def jobs(workdir):
    """Return the job id of each worker by slot, as the sweep recorded it."""
    path = workdir / "workers/jobs.json"
    return json.loads(path.read_text()) if path.exists() else {}


def count_jobs():
    """Return the number of jobs and array tasks that wait or run."""
    listing = subprocess.run(["squeue", "--noheader", "--array"], capture_output=True, text=True, check=True)
    return len(listing.stdout.splitlines())


def assert_same_end(uninterrupted, process, workdir):
    out, err = process.communicate(timeout=full_sweeps.SECONDS)
    assert process.returncode == 0, out + err
    assert "Traceback" not in err
    assert "6 of 6 runs complete" in out
    full_sweeps.assert_complete(workdir, n_runs=6)
    full_sweeps.assert_same_bits(workdir, uninterrupted)
    assert full_sweeps.runs_with_lost_steps(workdir) == set()


def test_cancelling_the_jobs_and_killing_the_controller_changes_no_bit(arguments, uninterrupted, start, tmp_path):
    arguments = [*arguments, "--workers=2"]
    process = start(*arguments)
    job_ids = full_sweeps.wait_until(lambda: jobs(tmp_path))
    full_sweeps.wait_until(lambda: full_sweeps.active_runs(tmp_path))
    full_sweeps.kill(process)
    assert len(job_ids) == 2

    process = start(*arguments)  # the new controller finds the jobs of the killed one
    full_sweeps.wait_for_first_line(process)
    full_sweeps.wait_until(lambda: full_sweeps.result_times(tmp_path))
    assert jobs(tmp_path) == job_ids
    assert count_jobs() <= 2
    full_sweeps.wait_until(lambda: full_sweeps.active_runs(tmp_path))
    process.send_signal(signal.SIGINT)
    out, err = process.communicate(timeout=60)
    assert process.returncode == 75, out + err
    assert "the workers continue in SLURM" in out
    first = {str(run.relative_to(tmp_path)) for run in full_sweeps.active_runs(tmp_path)}
    cluster.cancel(job_ids["0"].split("_")[0])
    full_sweeps.wait_until(lambda: count_jobs() == 0)

    written = full_sweeps.result_times(tmp_path)
    assert_same_end(uninterrupted, start(*arguments), tmp_path)
    assert full_sweeps.result_times(tmp_path).items() >= written.items()
    assert full_sweeps.resumed_runs(tmp_path) <= first
    assert jobs(tmp_path) != job_ids


def test_a_requeued_and_preempted_job_resumes_by_itself(arguments, uninterrupted, start, tmp_path):
    process = start(*arguments, "--workers=1")
    job_ids = full_sweeps.wait_until(lambda: jobs(tmp_path))
    full_sweeps.wait_until(lambda: full_sweeps.active_runs(tmp_path))
    cluster.requeue(job_ids["0"])
    cluster.wait_for(job_ids["0"], "PENDING")
    cluster.wait_for(job_ids["0"], "RUNNING")
    full_sweeps.wait_until(lambda: len(full_sweeps.resumed_runs(tmp_path)) == 1)
    n_done = len(full_sweeps.result_times(tmp_path))
    full_sweeps.wait_until(lambda: len(full_sweeps.result_times(tmp_path)) > n_done)

    full_sweeps.kill(process)  # now only SLURM can restart the job
    full_sweeps.wait_until(lambda: full_sweeps.active_runs(tmp_path))
    urgent = submitit.AutoExecutor(tmp_path / "urgent", cluster="slurm")
    urgent.update_parameters(slurm_partition="urgent", timeout_min=5, cpus_per_task=2)
    other = urgent.submit(os.getpid)
    cluster.wait_for(job_ids["0"], "PENDING")
    assert other.result()
    full_sweeps.wait_until(lambda: len(full_sweeps.resumed_runs(tmp_path)) == 2)

    assert_same_end(uninterrupted, start(*arguments, "--workers=1"), tmp_path)
    assert jobs(tmp_path) == job_ids
