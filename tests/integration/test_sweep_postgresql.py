"""Test of a full sweep with four workers and its trials in PostgreSQL; workers, server and controller are killed."""

import pytest
from sqlalchemy import make_url

from tests import command_line
from tests.integration import jobs
from tests.integration.test_servers import kill
from tests.sweeps import full_sweeps

pytestmark = pytest.mark.integration


def test_killing_workers_server_and_controller_changes_no_bit(postgresql, sweep_file, uninterrupted, start, tmp_path):
    url = postgresql.start()
    arguments = full_sweeps.arguments(sweep_file, tmp_path, "--workers=4", f"--storage={url}")
    process = start(*arguments)
    first = full_sweeps.kill_worker_of_active_run(tmp_path)
    second = full_sweeps.kill_worker_of_active_run(tmp_path, excluding=[first])
    kill(postgresql.directory / "postgresql/data/postmaster.pid")
    jobs.wait_until(lambda: not postgresql.is_running())
    assert postgresql.start() == url
    written = full_sweeps.wait_until(lambda: full_sweeps.result_times(tmp_path))
    assert process.poll() is None
    killed_output = full_sweeps.kill(process)

    status = command_line.run("sweep", "--status", f"--workdir={tmp_path}", f"--storage={url}")
    last = command_line.run(*arguments, seconds=full_sweeps.SECONDS)
    assert "6 of 6 runs complete" in last[0]
    full_sweeps.assert_complete(tmp_path, n_runs=6, storage=url)
    full_sweeps.assert_same_bits(tmp_path, uninterrupted)
    assert full_sweeps.result_times(tmp_path).items() >= written.items()
    assert full_sweeps.resumed_runs(tmp_path) >= {first, second}

    once_more = command_line.run(*arguments)
    assert full_sweeps.result_times(tmp_path).items() >= written.items()
    password = make_url(url).password
    assert not any(password in text for text in (killed_output, *status, *last, *once_more))
    for path in tmp_path.rglob("*"):
        assert not path.is_file() or password.encode() not in path.read_bytes(), path
