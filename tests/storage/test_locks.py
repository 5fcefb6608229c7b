"""Tests of the locks between processes."""

import fcntl
import os
import socket
import subprocess
import sys

import pytest

from imagenet_repro.storage import locks
from tests.conftest import REPOSITORY

HOLDER = """
import pathlib, sys
from imagenet_repro.storage import locks
lock = locks.acquire(pathlib.Path(sys.argv[1]))
print(lock is not None, flush=True)
sys.stdin.read()
"""


@pytest.fixture
def holder(tmp_path):
    """Start a process that holds the lock of `path`."""
    path = tmp_path / "new" / "lock"
    process = subprocess.Popen(
        [sys.executable, "-c", HOLDER, path], cwd=REPOSITORY, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    )
    process.path = path
    assert process.stdout.readline() == "True\n"
    yield process
    process.kill()
    process.wait()


def test_one_process_at_a_time_holds_a_lock(holder):
    assert locks.is_locked(holder.path)
    assert locks.acquire(holder.path) is None
    assert locks.acquire(holder.path, timeout=0.05) is None
    holder.communicate("")
    assert not locks.is_locked(holder.path)
    lock = locks.acquire(holder.path)
    assert locks.is_locked(holder.path)
    lock.release()
    assert not locks.is_locked(holder.path)


def test_a_killed_process_holds_no_lock(holder):
    holder.kill()
    holder.wait()
    assert not locks.is_locked(holder.path)
    assert locks.acquire(holder.path)


def test_waiting_ends_when_the_holder_does(holder):
    holder.stdin.close()
    locks.acquire_waiting(holder.path).release()
    assert not locks.is_locked(holder.path)


def test_a_lock_leaves_the_content_of_its_file(tmp_path):
    path = tmp_path / "lock"
    path.write_text("1234")
    lock = locks.acquire(path)
    assert lock
    assert path.read_text() == "1234"
    lock.release()
    assert path.read_text() == "1234"


def test_a_lock_names_its_owner_and_what_to_do_if_its_machine_is_gone(tmp_path):
    path = tmp_path / "lock"
    assert locks.owner(path) is None
    assert locks.describe_owner(path) == "another process"
    path.write_text("")
    assert locks.owner(path) is None
    locks.write_owner(path)
    assert locks.owner(path) == locks.Owner(os.getpid(), socket.gethostname())
    assert locks.describe_owner(path) == f"process {os.getpid()} on this machine"
    path.write_text("12 elsewhere")
    assert not locks.owner(path).is_here
    assert "process 12 on elsewhere (if that machine is gone" in locks.describe_owner(path)
    assert f"remove {path})" in locks.describe_owner(path)


def test_processes_that_query_a_lock_do_not_disturb_each_other(tmp_path):
    path = tmp_path / "lock"
    assert not locks.is_locked(path)
    assert not path.exists()
    path.touch(mode=0o444)
    with path.open() as file:
        fcntl.flock(file, fcntl.LOCK_SH)  # another process that queries the lock
        assert not locks.is_locked(path)


def test_a_directory_that_cannot_be_created_is_an_os_error(tmp_path):
    (tmp_path / "file").touch()
    with pytest.raises(NotADirectoryError):
        locks.acquire(tmp_path / "file" / "below" / "lock")
