"""Directories that one process at a time writes, and what a killed process left of them.

tfds writes a data set into a directory beside its final path and moves it there at the end, so that a data set is
complete or absent. Jobs of an array that start together would each write such a directory.
"""

import contextlib
import os
import shutil
import sys
from collections.abc import Iterator
from pathlib import Path

from filelock import BaseFileLock

from imagenet_repro.errors import UserError
from imagenet_repro.storage import files, locks


@contextlib.contextmanager
def only_writer(root: Path, key: str) -> Iterator[None]:
    """Wait until no other process writes what `key` names in a directory, and keep others waiting."""
    lock = locks.acquire(_lock_path(root, key))
    if lock is None:
        print(f"another process is preparing {key} in {root}; waiting for it", file=sys.stderr, flush=True)
        lock = locks.acquire_waiting(_lock_path(root, key))
    try:
        yield
    finally:
        _end(lock, root, key)


def _end(lock: BaseFileLock, root: Path, key: str) -> None:
    """Release a lock and remove its file, which another user might not be allowed to open.

    A process that already waits for the removed file notices that and waits for the new one.
    """
    _lock_path(root, key).unlink(missing_ok=True)
    lock.release()


def _lock_path(root: Path, key: str) -> Path:
    return root / files.bounded_name(f".prepare_{key}", ".lock")


def leftovers(path: Path) -> list[Path]:
    """Return the directories in which the data set of this path was or is being written."""
    return sorted(path.parent.glob(f"incomplete.*_{path.name}"))


def remove_leftovers(path: Path) -> None:
    """Remove what killed processes left of the data set of this path; the caller is its only writer."""
    for leftover in leftovers(path):
        shutil.rmtree(leftover, ignore_errors=True)


def remove_unused_leftovers(path: Path, root: Path, key: str) -> None:
    """Remove what killed processes left, unless another process is writing or the directory cannot be written."""
    if not os.access(root, os.W_OK):
        return
    lock = locks.acquire(_lock_path(root, key))
    if lock is not None:
        remove_leftovers(path)
        _end(lock, root, key)


def require_writable(root: Path) -> None:
    """Raise UserError if a directory cannot be created or written."""
    try:
        root.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise UserError(f"data_dir {root} cannot be created: {error.strerror}. Choose another --data_dir") from error
    if not os.access(root, os.W_OK):
        raise UserError(f"data_dir {root} is not writable. Choose another --data_dir")


def require_space(root: Path, size: int, name: str) -> None:
    """Raise UserError if the file system of a directory has less free space than `size` bytes for a data set."""
    free = shutil.disk_usage(root).free
    if size > free:
        raise UserError(
            f"{name} needs {size / 1e9:,.3f} GB in {root}, where {free / 1e9:,.3f} GB are free. Free space there or "
            "choose another --data_dir"
        )
