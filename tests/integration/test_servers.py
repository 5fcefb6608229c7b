"""Tests of the scripts: killed servers are restarted with their state, and other files are left alone."""

import os
import signal
import time

import pytest
import submitit
from sqlalchemy import create_engine, text

from tests.integration import cluster, jobs
from tests.integration.servers import Server

pytestmark = pytest.mark.integration


def kill(*pid_files):
    for file in pid_files:
        os.kill(int(file.read_text().split()[0]), signal.SIGKILL)


def test_a_killed_postgresql_is_restarted_with_its_data(postgresql):
    url = postgresql.start()
    with create_engine(url).begin() as connection:
        connection.execute(text("create table kept as select 3 as x"))
    kill(postgresql.directory / "postgresql/data/postmaster.pid")
    jobs.wait_until(lambda: not postgresql.is_running())
    assert postgresql.start() == url
    assert postgresql.start() == url  # the server is already running
    with create_engine(url).connect() as connection:
        assert connection.execute(text("select x from kept")).scalar() == 3


def test_a_killed_slurm_is_restarted_with_its_queue(slurm, tmp_path):
    executor = submitit.AutoExecutor(tmp_path, cluster="slurm")
    executor.update_parameters(slurm_additional_parameters={"hold": True})
    submitted = time.time()
    job = executor.submit(os.getpid)
    home = slurm.directory / "slurm"
    # The controller saves its state every few seconds.
    jobs.wait_until(
        lambda: (home / "state/job_state").exists() and (home / "state/job_state").stat().st_mtime > submitted
    )
    kill(*(home / f"{daemon}.pid" for daemon in ("slurmctld", "slurmd", "munged")))
    jobs.wait_until(lambda: not slurm.is_running())
    slurm.start()
    cluster.release(job.job_id)
    assert job.result()


def test_scripts_neither_use_nor_remove_directories_of_others(tmp_path):
    for script in ("postgresql.sh", "slurm.sh"):
        home = tmp_path / script.removesuffix(".sh")
        home.mkdir()
        (home / "thesis.txt").touch()
        server = Server(script, str(tmp_path))
        with pytest.raises(AssertionError, match="contains other files"):
            server.start()
        server.stop()
        assert [path.name for path in home.iterdir()] == ["thesis.txt"]
