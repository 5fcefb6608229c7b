"""Numbers of reading threads and processes, and the end of the processes."""

import dataclasses
import itertools
import multiprocessing
import os
import signal
import threading
import time
from pathlib import Path

import pytest
from absl import logging

from imagenet_repro.config import Data
from imagenet_repro.data.loader import train_batches
from imagenet_repro.data.workers import lost_worker, reader_counts
from imagenet_repro.errors import EXIT_STOPPED, LostProcessError, UserError
from tests.data.memory_split import CROP, DATA, make_split, run_script


def test_reader_counts_follow_from_the_host_unless_configured(monkeypatch):
    assert reader_counts(Data(threads=3, workers=2)) == (3, 2)
    for cores, expected in ((1, (2, 0)), (2, (4, 0)), (16, (25, 0)), (96, (25, 6))):
        monkeypatch.setattr(os, "sched_getaffinity", lambda _, cores=cores: set(range(cores)))
        monkeypatch.setattr(os, "process_cpu_count", lambda cores=cores: cores, raising=False)
        assert reader_counts(Data(threads=0, workers=-1)) == expected


def limit_shared_memory(monkeypatch, megabytes: int) -> None:
    free = os.statvfs_result((1, 2**20, megabytes, megabytes, megabytes, 0, 0, 0, 0, 0))
    monkeypatch.setattr(os, "statvfs", lambda path: free)
    monkeypatch.setattr(os.path, "isdir", lambda path: True)


def test_workers_that_need_too_much_shared_memory_are_refused(monkeypatch):
    """A container has 64 MB of shared memory; a process that runs out of it is killed by SIGBUS."""
    limit_shared_memory(monkeypatch, 64)
    assert reader_counts(Data(workers=2), batch_bytes=7 * 2**20)[1] == 2
    with pytest.raises(UserError, match=r"data.workers = 2: .* need 97 MB .* 67 MB free.*docker run --shm-size=1g"):
        reader_counts(Data(workers=2), batch_bytes=10 * 2**20 + 2**18)


def test_default_workers_become_threads_without_shared_memory_and_the_user_is_told(monkeypatch, capsys):
    """Once, with the size to give to Docker, and although commands silence absl's warnings."""
    limit_shared_memory(monkeypatch, 64)
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: set(range(32)))
    monkeypatch.setattr(os, "process_cpu_count", lambda: 32, raising=False)
    previous = logging.get_verbosity()
    logging.set_verbosity(logging.ERROR)
    assert reader_counts(Data(workers=-1), batch_bytes=2**20) == (25, 2)
    assert capsys.readouterr().err == ""
    for _ in range(2):
        assert reader_counts(Data(workers=-1), batch_bytes=2**30) == (49, 0)
    logging.set_verbosity(previous)
    told = capsys.readouterr().err
    assert told.count("data.workers = 0 instead of 2") == 1
    assert "need 9664 MB of shared memory" in told
    assert "docker run --shm-size=9g" in told


def test_threads_end_with_the_iterator():
    before = set(threading.enumerate())
    batches = train_batches(make_split(20), dataclasses.replace(DATA, threads=8), CROP, batch_size=8, seed=0)
    next(batches)
    batches.close()
    deadline = time.monotonic() + 300
    while not before >= set(threading.enumerate()):
        assert time.monotonic() < deadline, "reading threads outlive the iterator"
        time.sleep(0.05)


def test_a_killed_worker_is_named_with_its_signal_and_a_cause():
    data = dataclasses.replace(DATA, threads=1, workers=1)
    batches = train_batches(make_split(8), data, CROP, batch_size=4, seed=0)
    next(batches)
    (worker,) = multiprocessing.active_children()
    assert lost_worker() is None
    os.kill(worker.pid, signal.SIGKILL)
    with pytest.raises(LostProcessError) as raised:
        list(itertools.islice(batches, 10))  # a few had been read ahead
    assert raised.value.exit_code == EXIT_STOPPED
    assert str(raised.value).startswith(f"process {worker.pid}, which reads images, was ended by SIGKILL, probably by")
    assert "memory ran out" in str(raised.value)
    assert lost_worker() is None  # the iterator is closed


ORPHAN = """
import multiprocessing, time
from imagenet_repro.config import Data, InceptionCrop
from imagenet_repro.data.loader import train_batches
from tests.data.memory_split import make_split

if __name__ == "__main__":
    data = Data(image_size=16, threads=1, workers=1)
    batches = train_batches(make_split(8), data, InceptionCrop(), batch_size=4, seed=0)
    next(batches)
    print(*(child.pid for child in multiprocessing.active_children()), flush=True)
    time.sleep(600)
"""


def running(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except FileNotFoundError:
        return False


@pytest.mark.skipif(not Path("/proc/self/stat").exists(), reason="needs /proc")
def test_workers_end_when_training_is_killed_but_ignore_an_interrupt(tmp_path):
    with run_script(tmp_path / "orphan.py", ORPHAN) as process:
        workers = [int(pid) for pid in process.stdout.readline().split()]
        assert workers
        for pid in workers:
            os.kill(pid, signal.SIGINT)
        time.sleep(0.5)
        assert all(running(pid) for pid in workers)
        process.kill()
    deadline = time.monotonic() + 300
    while any(running(pid) for pid in workers):
        assert time.monotonic() < deadline, "reading processes outlive the training process"
        time.sleep(0.1)
