"""Files that are written completely or not at all, even if the process is interrupted."""

import contextlib
import errno
import fcntl
import hashlib
import os
import tempfile
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import BinaryIO

from imagenet_repro.errors import SaveError

DERIVED_NAME_BYTES = 200  # of a name made from other names; file systems take 255, and partial files have longer names
PROBE_BYTES = 4096
BLOCK = 1 << 16  # bytes that are read at once from the end of a file
PART = ".part"  # the end of the name of a file that is not complete


@contextlib.contextmanager
def atomic_write(path: Path, content: str) -> Iterator[BinaryIO]:
    """Yield a binary file that replaces `path` when the block ends without an error.

    An older file survives a failure. The directory is created if it is missing.

    Args:
      path: the file to write.
      content: a name for the file's content, such as "predictions", for error messages.

    Raises:
      SaveError: the file cannot be written (disk full, read-only).
    """
    part = part_path(path)
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        _remove_parts(path.parent, lambda name: _is_part_of(name, path))
        with part.open("wb") as file:
            _hold(file)
            yield file
            file.flush()
            os.fsync(file.fileno())
            part.replace(path)
    except OSError as error:
        raise SaveError(f"could not write {content} to {path}: {error.strerror or error}") from error
    finally:
        with contextlib.suppress(OSError):  # the first error is the one to report
            part.unlink(missing_ok=True)


def remove_parts(directory: Path) -> None:
    """Remove the partial files that killed processes left in a directory; those of running ones stay."""
    _remove_parts(directory, lambda name: name.startswith("."))


def _remove_parts(directory: Path, is_chosen: Callable[[str], bool]) -> None:
    with contextlib.suppress(OSError):  # a place that cannot be read or written fails with its own message later
        for name in os.listdir(directory):
            if name.endswith(PART) and is_chosen(name) and not _is_held(directory / name):
                (directory / name).unlink(missing_ok=True)


def _is_part_of(name: str, path: Path) -> bool:
    """Return whether a name is one that `part_path(path)` has in any process."""
    mine = part_path(path).name.removesuffix(PART).rpartition(".")[0]
    stem, _, process = name.removesuffix(PART).rpartition(".")
    return stem == mine and process.isdecimal()


def _hold(file: BinaryIO) -> None:
    """Lock a partial file for as long as it is open, so that another process does not take it for a leftover."""
    with contextlib.suppress(OSError):  # a file system without locks
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)


def _is_held(path: Path) -> bool:
    """Return whether a process writes a partial file."""
    try:
        descriptor = os.open(path, os.O_RDONLY | os.O_NONBLOCK)
    except OSError:
        return True
    try:
        fcntl.flock(descriptor, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except OSError:
        return True
    finally:
        os.close(descriptor)
    return False


def part_path(path: Path) -> Path:
    """Return the path that `atomic_write` writes to before it replaces `path`; it ends with `.PID.part`."""
    return path.with_name("." + bounded_name(path.name, f".{os.getpid():07d}{PART}"))


def bounded_name(stem: str, suffix: str = "") -> str:
    """Return `stem` + `suffix` as the name of a file, shortened if it has more than DERIVED_NAME_BYTES bytes in UTF-8.

    A shortened name ends with a hash of the whole stem, so that two long names stay two files.
    """
    room = DERIVED_NAME_BYTES - len(suffix.encode(errors="surrogateescape"))
    encoded = stem.encode(errors="surrogateescape")
    if len(encoded) <= room:
        return stem + suffix
    mark = f"_{hashlib.sha256(encoded).hexdigest()[:16]}"
    return encoded[: room - len(mark)].decode(errors="ignore") + mark + suffix


def require_writable_file(path: str | Path, option: str, advice: str = "") -> None:
    """Check, before work starts, that a file can be written: a small file is written beside it and removed.

    Directories that are missing are not created; their names are checked, and the nearest existing one is tried.

    Args:
      path: the file that will be written with `atomic_write`.
      option: the option that names it, such as "--out", or words for the file, such as "predictions".
      advice: a sentence on what to do, for the message.

    Raises:
      SaveError: the file cannot be written; the message says why.
    """
    _try_place(Path(path), Path(path), option, advice)


def require_writable_directory(path: str | Path, option: str, advice: str = "") -> None:
    """Check, before work starts, that files can be written into a directory, as `require_writable_file` does.

    Raises:
      SaveError: files cannot be written there; the message says why.
    """
    _try_place(Path(path), Path(path) / "file", option, advice)


def _try_place(shown: Path, path: Path, option: str, advice: str) -> None:
    """Write a small file into the nearest directory of `path` that exists, and remove it; see the callers above."""
    try:
        directory = path.absolute().parent
        missing = [path.name]
        while not os.path.lexists(directory):
            missing.append(directory.name)
            directory = directory.parent
        _check_place(path, directory, missing)
        descriptor, name = tempfile.mkstemp(dir=directory, prefix=".probe-", suffix=PART)
        with os.fdopen(descriptor, "wb") as file:
            with contextlib.suppress(FileNotFoundError):  # another process took it for a leftover
                os.unlink(name)  # at once, so that a kill leaves nothing
            file.write(bytes(PROBE_BYTES))
            file.flush()
            os.fsync(file.fileno())
    except (OSError, ValueError) as error:  # ValueError: a character that names cannot have in this locale
        reason = getattr(error, "strerror", None) or str(error)
        where = f"{option}={shown}" if option.startswith("--") else f"{option}: {shown}"
        message = f"{where} cannot be written: {reason}" + (f"; {advice}" if advice else "")
        raise SaveError(message) from error


def _check_place(path: Path, directory: Path, missing: Sequence[str]) -> None:
    """Raise OSError if something else is where the file or a directory should be, or a name is too long.

    Args:
      path: the file to write.
      directory: the nearest directory above it that exists.
      missing: the names below it, the last one first.
    """
    if not os.path.isdir(directory):
        kind = "a file" if os.path.isfile(directory) else "no directory"
        raise OSError(errno.ENOTDIR, f"{directory} is {kind}; a directory is needed")
    if os.path.exists(path) and not os.path.isfile(path):
        kind = "a directory" if os.path.isdir(path) else "a device or a pipe"
        raise OSError(errno.EINVAL, f"it is {kind}; a file is needed")
    longest_name, longest_path = os.pathconf(directory, "PC_NAME_MAX"), os.pathconf(directory, "PC_PATH_MAX")
    for name in missing:
        if (length := len(os.fsencode(name))) > longest_name:
            reason = f"the name has {length} bytes, and the file system takes up to {longest_name}"
            raise OSError(errno.ENAMETOOLONG, reason)
    if len(os.fsencode(directory.joinpath(*reversed(missing)))) >= longest_path:
        raise OSError(errno.ENAMETOOLONG, f"the path is longer than {longest_path} bytes")


def lines_from_end(path: Path) -> Iterator[bytes]:
    """Yield the lines of a file without their ends, the last one first; of a file that is missing, none.

    The file is read in blocks from its end, and only as far as lines are asked for.
    """
    try:
        file = path.open("rb")
    except FileNotFoundError:
        return
    with file:
        position, rest = file.seek(0, os.SEEK_END), b""
        while position:
            start = max(0, position - BLOCK)
            file.seek(start)
            first, *lines = (file.read(position - start) + rest).split(b"\n")
            yield from reversed(lines)
            position, rest = start, first
        yield rest
