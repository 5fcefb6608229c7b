"""What sweeps ask of SLURM, shown on a real one, through submitit."""

import os

import pytest
import submitit

from tests.integration import cluster, jobs

pytestmark = pytest.mark.integration


@pytest.fixture
def executor(slurm, tmp_path):
    one = submitit.AutoExecutor(tmp_path / "jobs", cluster="slurm")
    one.update_parameters(slurm_partition="main", timeout_min=5, cpus_per_task=1)
    return one


def started(path):
    return lambda: path.exists() and int(path.read_text()) > 0


def test_an_array_of_four_runs_two_at_a_time(executor, tmp_path):
    files = [tmp_path / str(k) for k in range(4)]
    array = executor.map_array(jobs.meet, files, [files[k] for k in (1, 0, 3, 2)])
    assert [job.result() for job in array] == [0, 1, 2, 3]


def test_a_task_that_is_cancelled_saves_itself_and_goes_on_when_requeued(executor, tmp_path):
    files = [tmp_path / str(k) for k in range(4)]
    array = executor.map_array(jobs.count, files, [30] * 4)
    jobs.wait_until(started(files[0]))
    cluster.cancel(array[0].job_id)
    cluster.wait_for(array[0].job_id, "CANCELLED")
    saved = int(files[0].read_text())
    assert 0 < saved < 30
    cluster.requeue(array[0].job_id)
    assert [job.result() for job in array] == [saved, 0, 0, 0]


def test_a_running_job_that_is_requeued_saves_itself_and_goes_on(executor, tmp_path):
    file = tmp_path / "count"
    job = executor.submit(jobs.count, file, 30)
    jobs.wait_until(started(file))
    cluster.requeue(job.job_id)
    cluster.wait_for(job.job_id, "PENDING")
    saved = int(file.read_text())
    assert 0 < saved < 30
    assert job.result() == saved


def test_more_urgent_work_takes_the_place_of_a_job_that_later_goes_on(executor, tmp_path):
    file = tmp_path / "count"
    job = executor.submit(jobs.count, file, 30)
    jobs.wait_until(started(file))
    executor.update_parameters(slurm_partition="urgent", cpus_per_task=2)
    urgent = executor.submit(os.getpid)
    cluster.wait_for(job.job_id, "PENDING")
    saved = int(file.read_text())
    assert 0 < saved < 30
    assert urgent.result()
    assert job.result() == saved
