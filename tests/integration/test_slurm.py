"""Tests of the features of SLURM on which sweeps rely, with a real cluster and submitit."""

import os

import pytest
import submitit

from tests.integration import cluster, jobs

pytestmark = pytest.mark.integration


@pytest.fixture
def executor(slurm, tmp_path):
    slurm_executor = submitit.AutoExecutor(tmp_path / "jobs", cluster="slurm")
    slurm_executor.update_parameters(slurm_partition="main", timeout_min=5, cpus_per_task=1)
    return slurm_executor


def has_started(path):
    return lambda: path.exists() and int(path.read_text()) > 0


def test_an_array_of_four_runs_two_at_a_time(executor, tmp_path):
    files = [tmp_path / str(k) for k in range(4)]
    array = executor.map_array(jobs.wait_for_partner, files, [files[k] for k in (1, 0, 3, 2)])
    assert [job.result() for job in array] == [0, 1, 2, 3]


def test_a_cancelled_task_saves_its_state_and_resumes_when_requeued(executor, tmp_path):
    files = [tmp_path / str(k) for k in range(4)]
    array = executor.map_array(jobs.count, files, [30] * 4)
    jobs.wait_until(has_started(files[0]))
    cluster.cancel(array[0].job_id)
    cluster.wait_for(array[0].job_id, "CANCELLED")
    saved = int(files[0].read_text())
    assert 0 < saved < 30
    cluster.requeue(array[0].job_id)
    assert [job.result() for job in array] == [saved, 0, 0, 0]


def test_a_requeued_running_job_saves_its_state_and_resumes(executor, tmp_path):
    file = tmp_path / "count"
    job = executor.submit(jobs.count, file, 30)
    jobs.wait_until(has_started(file))
    cluster.requeue(job.job_id)
    cluster.wait_for(job.job_id, "PENDING")
    saved = int(file.read_text())
    assert 0 < saved < 30
    assert job.result() == saved


def test_a_preempted_job_resumes_after_the_urgent_one(executor, tmp_path):
    file = tmp_path / "count"
    job = executor.submit(jobs.count, file, 30)
    jobs.wait_until(has_started(file))
    executor.update_parameters(slurm_partition="urgent", cpus_per_task=2)
    urgent = executor.submit(os.getpid)
    cluster.wait_for(job.job_id, "PENDING")
    saved = int(file.read_text())
    assert 0 < saved < 30
    assert urgent.result()
    assert job.result() == saved
