"""The user of a process, who may have neither a home directory nor a name.

A container often runs under a uid that its image does not know: HOME is not set, or is a directory that cannot be
written, and `/etc/passwd` has no line for the uid. Nothing needs a home directory where paths are given.
"""

import os
import stat
import tempfile
from pathlib import Path

from imagenet_repro.errors import UserError


def expand(path: str | Path) -> Path:
    """Return a path with a leading `~` or `~USER` replaced by the home directory.

    Raises:
      UserError: there is no such home directory.
    """
    try:
        return Path(path).expanduser()
    except RuntimeError as error:
        start = Path(path).parts[0]
        raise UserError(
            f"{path}: there is no home directory for {start}. Give a path that does not begin with {start}"
        ) from error


def cache_directory() -> Path:
    """Return the directory for what can be computed again: below $XDG_CACHE_HOME, else below ~/.cache.

    Where there is no home directory, or it cannot be written, the directory is one of the user's own below that for
    temporary files, which is created here.

    Raises:
      UserError: that directory belongs to somebody else.
    """
    base = os.environ.get("XDG_CACHE_HOME")
    if base:
        return expand(base) / "imagenet_repro"
    home = _writable_home()
    return home / ".cache" / "imagenet_repro" if home else _temporary_directory()


def give_matplotlib_a_directory() -> None:
    """Choose matplotlib's directory where it would not find one; it prints a warning otherwise."""
    if "MPLCONFIGDIR" not in os.environ and not _writable_home():
        os.environ["MPLCONFIGDIR"] = str(cache_directory() / "matplotlib")


def _writable_home() -> Path | None:
    try:
        home = Path.home()
    except RuntimeError:
        return None
    return home if home.is_dir() and os.access(home, os.W_OK | os.X_OK) else None


def _temporary_directory() -> Path:
    path = Path(tempfile.gettempdir()) / f"imagenet_repro-{os.getuid()}"
    path.mkdir(mode=0o700, exist_ok=True)
    status = path.lstat()
    # Compiled programs are read from here, and everybody can create directories beside it.
    if not stat.S_ISDIR(status.st_mode) or status.st_uid != os.getuid() or status.st_mode & 0o022:
        raise UserError(f"{path} can be written by others. Remove it, or set XDG_CACHE_HOME to a directory of yours")
    return path


def tolerate_unknown_owners() -> None:
    """Let `etils.epath` read the status of files whose owner or group has no name.

    tfds and Orbax open files through it. It asks for both names at each `stat`, and fails with a KeyError where the
    system does not know them.
    """
    from etils.epath import backend

    if backend.os_backend.stat is not _status:
        backend.os_backend.stat = _status


def _status(path: str | os.PathLike):
    """Return what epath returns for a path, with numbers in place of unknown names."""
    import grp
    import pwd

    from etils.epath import stat_utils

    status = os.stat(path)
    names = []
    for look_up, number in ((pwd.getpwuid, status.st_uid), (grp.getgrgid, status.st_gid)):
        try:
            names.append(look_up(number)[0])
        except KeyError:
            names.append(str(number))
    return stat_utils.StatResult(
        is_directory=stat.S_ISDIR(status.st_mode),
        length=status.st_size,
        mtime=int(status.st_mtime),
        owner=names[0],
        group=names[1],
        mode=status.st_mode,
    )
