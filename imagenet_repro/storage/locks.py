"""Locks between processes: files that one process at a time holds.

A lock ends with its process, even if the process is killed, because the operating system holds it (`flock`, through
the library filelock). `is_locked` needs no write access and does not disturb other processes that call it. filelock
has no such query: acquiring a lock only to test it needs a writable file, and two processes that test it at the same
time would each see the other as a holder. Hence `is_locked` requests a shared `flock` instead.
"""

import fcntl
from pathlib import Path

from filelock import BaseFileLock, FileLock, Timeout

POLL_SECONDS = 0.01


def acquire(path: Path, *, timeout: float = 0.0) -> BaseFileLock | None:
    """Return the acquired lock of a file, or None if another process holds it.

    The file and its directory are created if they are missing. The lock ends with `release()`, with the last
    reference to it, or with the process.

    Args:
      path: the lock's file. Its content is left alone.
      timeout: seconds of trying.

    Raises:
      OSError: the file cannot be created or opened.
    """
    try:
        return _acquire(path, timeout)
    except Timeout:
        return None


def acquire_waiting(path: Path) -> BaseFileLock:
    """Return the acquired lock of a file, as `acquire` does, after waiting until no other process holds it."""
    return _acquire(path, timeout=-1)


def _acquire(path: Path, timeout: float) -> BaseFileLock:
    path.parent.mkdir(parents=True, exist_ok=True)
    lock = FileLock(path, thread_local=False)
    lock.acquire(timeout=timeout, poll_interval=POLL_SECONDS)
    return lock


def is_locked(path: Path) -> bool:
    """Return whether a process holds the lock of a file; a missing file is not locked."""
    try:
        with path.open() as file:
            fcntl.flock(file, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except FileNotFoundError:
        return False
    except OSError:
        return True
    return False
