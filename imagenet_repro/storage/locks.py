"""Locks between processes: files that one process at a time holds.

A lock ends with its process, even if the process is killed, because the operating system holds it (`flock`, through
the library filelock). `is_locked` needs no write access and does not disturb other processes that call it. filelock
has no such query: acquiring a lock only to test it needs a writable file, and two processes that test it at the same
time would each see the other as a holder. Hence `is_locked` requests a shared `flock` instead.
"""

import contextlib
import dataclasses
import fcntl
import os
import socket
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


@dataclasses.dataclass(frozen=True)
class Owner:
    """The process that holds a lock, and the name of its machine."""

    pid: int
    host: str

    @property
    def is_here(self) -> bool:
        """Whether the process is on this machine."""
        return self.host == socket.gethostname()

    def __str__(self) -> str:
        return f"process {self.pid} on {'this machine' if self.is_here else self.host}"


def write_owner(path: Path) -> None:
    """Write this process's id and its machine's name into the file of a lock that it holds, for `owner`."""
    with contextlib.suppress(OSError):  # a full disk; the lock is held all the same
        path.write_text(f"{os.getpid()} {socket.gethostname()}", encoding="utf-8")


def owner(path: Path) -> Owner | None:
    """Return the process that `write_owner` wrote into the file of a lock; None if there is none."""
    try:
        pid, _, host = path.read_text(encoding="utf-8", errors="replace").strip().partition(" ")
    except OSError:
        return None
    return Owner(int(pid), host or socket.gethostname()) if pid.isdecimal() else None


def describe_owner(path: Path) -> str:
    """Return the process that holds the lock of a file, and what to do if its machine is gone, for a message."""
    holder = owner(path)
    if holder is None or holder.is_here:
        return str(holder or "another process")
    return f"{holder} (if that machine is gone and its lock stays, remove {path})"


def is_locked(path: Path) -> bool:
    """Return whether a process holds the lock of a file; a missing file is not locked."""
    try:
        with path.open(encoding="utf-8") as file:
            fcntl.flock(file, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except FileNotFoundError:
        return False
    except OSError:
        return True
    return False
