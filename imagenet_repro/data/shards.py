"""The ArrayRecord files that a process holds open: as many as its limit on open files allows, and no more.

ImageNet has 1,088 files in tfds, and the usual limit of a process is 1,024.
"""

import errno
import functools
import os
import resource
import threading
from collections import OrderedDict
from typing import Any

from imagenet_repro.errors import UserError

_ENOUGH = 2**16  # open files; far more than any data set needs, and allowed on systems that call no limit infinite
_SHARE = 2  # half of the limit is for the rest of the program: checkpoints, processes, devices
# A record is read whole, so nothing is read ahead (array_record's own reader of random records has these settings).
_OPTIONS = "readahead_buffer_size:0,"
_BUFFER_BYTES = 2**15


class OpenShards:
    """Readers of ArrayRecord files. The least recently used are closed; several threads may read at once.

    A reader that is closed while another thread reads from it stays open until that thread has its record.

    Args:
        bound: number of files held open, at least 1. It falls where the process has too many files open even so.

    Attributes:
        bound: as above.
    """

    def __init__(self, bound: int):
        self.bound = bound
        self._readers: OrderedDict[tuple[int, str], Any] = OrderedDict()
        self._lock = threading.Lock()

    def __len__(self) -> int:
        return len(self._readers)

    def read(self, owner: int, path: str, position: int) -> bytes:
        """Return a record of a file.

        Args:
            owner: number of the object that reads, for `forget`; two owners have separate readers of a file.
            path: the file.
            position: number of the record in the file.

        Raises:
            UserError: the process may not open another file, even with all other shards closed.
            Exception: the reader's own, of many types, where the file is missing or damaged.
        """
        key = owner, path
        while True:
            bound = self.bound
            try:
                return self._reader(key).read([position])[0]
            except Exception as error:  # the reader opens the file late, and raises many types
                self._discard(key)
                if not is_file_limit(error):
                    raise
                if bound == 1:
                    raise file_limit_error(path, error) from error
            self._shrink(bound)

    def forget(self, owner: int) -> None:
        """Close the files of an owner."""
        with self._lock:
            for key in [key for key in self._readers if key[0] == owner]:
                del self._readers[key]

    def _reader(self, key: tuple[int, str]) -> Any:
        with self._lock:
            reader = self._readers.get(key)
            if reader is not None:
                self._readers.move_to_end(key)
                return reader
        reader = _open(key[1])  # takes 0.3 ms, in which other threads read
        with self._lock:
            reader = self._readers.setdefault(key, reader)  # another thread may have opened the file meanwhile
            self._readers.move_to_end(key)
            self._close_surplus()
        return reader

    def _discard(self, key: tuple[int, str]) -> None:
        with self._lock:
            self._readers.pop(key, None)

    def _shrink(self, bound: int) -> None:
        """Halve the number of open files, unless another thread has changed it from `bound`."""
        with self._lock:
            if self.bound == bound:
                self.bound = max(1, min(bound, len(self._readers)) // 2)
                self._close_surplus()

    def _close_surplus(self) -> None:
        """Drop the least recently used readers; a file is closed with the last reference to its reader."""
        while len(self._readers) > self.bound:
            self._readers.popitem(last=False)


@functools.cache
def open_shards() -> OpenShards:
    """Return the open files of this process, at most half of its limit, which is raised first."""
    return OpenShards(max(1, raise_file_limit() // _SHARE))


def raise_file_limit() -> int:
    """Raise this process's limit on open files to the hard limit, at most 65,536, and return the limit."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    wanted = _ENOUGH if hard == resource.RLIM_INFINITY else min(hard, _ENOUGH)
    if soft == resource.RLIM_INFINITY or soft >= wanted:
        return _ENOUGH if soft == resource.RLIM_INFINITY else soft
    try:
        resource.setrlimit(resource.RLIMIT_NOFILE, (wanted, hard))
    except (ValueError, OSError):  # forbidden, as in some containers
        return soft
    return wanted


def is_file_limit(error: BaseException | None) -> bool:
    """Return whether an error, or one that caused it, says that too many files are open."""
    while error is not None:
        if getattr(error, "errno", None) in (errno.EMFILE, errno.ENFILE) or os.strerror(errno.EMFILE) in str(error):
            return True
        error = error.__cause__ or error.__context__
    return False


def file_limit_error(path: str | os.PathLike, error: BaseException) -> UserError:
    """Return the error of a file that cannot be opened because too many files are open."""
    if os.strerror(errno.ENFILE) in str(error) or getattr(error, "errno", None) == errno.ENFILE:
        return UserError(
            f"{os.fspath(path)} cannot be opened: all programs of this machine together have too many files open. The "
            "data is not damaged. End other programs, or raise the limit (sysctl fs.file-max); then run the same "
            "command again"
        )
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    return UserError(
        f"{os.fspath(path)} cannot be opened: this process has too many files open. Its limit is {soft} files (the "
        f"hard limit is {'infinite' if hard == resource.RLIM_INFINITY else hard}). The data is not damaged. Raise the "
        "limit (ulimit -n 4096 in the shell; docker run --ulimit nofile=4096; nofile in /etc/security/limits.conf for "
        "the hard limit) and run the same command again"
    )


def _open(path: str) -> Any:
    from array_record.python import array_record_module  # pyright: ignore[reportAttributeAccessIssue]  # compiled

    return array_record_module.ArrayRecordReader(path, options=_OPTIONS, file_reader_buffer_size=_BUFFER_BYTES)
