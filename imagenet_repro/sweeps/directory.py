"""What lies in a sweep's directory: what it is, who works on it, and the workdirs of its trainings."""

import contextlib
import fcntl
import os
import time
import uuid
from collections.abc import Iterator
from pathlib import Path
from typing import Any, TextIO

import sqlalchemy

from imagenet_repro.config import config_to_dict, flatten_settings
from imagenet_repro.config.sweep import SweepConfig, resolve_sweep
from imagenet_repro.errors import SaveError, UserError
from imagenet_repro.storage.workdir import CONFIG, FREE_KEYS, read_json, require, write_json

SWEEP = "sweep.json"
TRIALS = "trials.db"
WORKERS = "workers"  # locks, logs and jobs
MOMENT = 1.0  # seconds for which a lock is tried


class SweepDirectory:
    """One sweep's directory.

    Args:
      path: made where it is missing, by `settle`.
    """

    def __init__(self, path: str | Path):
        self.path = Path(path).expanduser().absolute()

    @property
    def exists(self) -> bool:
        """Whether a sweep was begun here."""
        return (self.path / SWEEP).exists()

    @property
    def workers(self) -> Path:
        """Where workers write."""
        return self.path / WORKERS

    @property
    def default_storage(self) -> str:
        """The SQLite file that holds the trials where nobody names another storage."""
        return sqlalchemy.URL.create("sqlite", database=str(self.path / TRIALS)).render_as_string()

    def record(self, sweep: SweepConfig, storage: str) -> None:
        """Writes what a new sweep is, or checks that the one that was begun here is the same; seeds may be added.

        Args:
          sweep: what is asked for.
          storage: the URL of its trials, without a password.

        Raises:
          UserError: another sweep, or a single run, is here, or its trials are in another storage.
        """
        if (self.path / CONFIG).exists():
            raise UserError(f"--workdir={self.path} holds a single run; a sweep needs a directory of its own")
        identity = uuid.uuid4().hex
        if self.exists:
            identity = self.identity()
            _refuse_other(self.path, self.sweep(), sweep)
            if self.storage() != storage:
                raise UserError(f"the trials of the sweep in {self.path} are in --storage={self.storage()}")
        elsewhere = "" if storage == self.default_storage else storage  # the directory may be moved
        write_json(self.path / SWEEP, {"identity": identity, "storage": elsewhere, "sweep": config_to_dict(sweep)})

    def _recorded(self) -> dict[str, Any]:
        path = self.path / SWEEP
        found = read_json(path, "sweep writes it")
        require(path, found, {"identity": str, "storage": str, "sweep": dict}, "sweep")
        return found

    def sweep(self) -> SweepConfig:
        """What was begun here; raises UserError where nothing was."""
        return resolve_sweep(self._recorded()["sweep"])

    def identity(self) -> str:
        """Of this sweep, unlike that of any other."""
        return self._recorded()["identity"]

    def storage(self) -> str:
        """The URL of the trials, without a password."""
        return self._recorded()["storage"] or self.default_storage

    @contextlib.contextmanager
    def lock(self) -> Iterator[None]:
        """Holds the directory for one process that plans and watches.

        Raises:
          UserError: another process has it.
          SaveError: it cannot be written to.
        """
        with self._locked("sweep") as free:
            if not free:
                raise UserError(
                    f"--workdir={self.path}: another process runs this sweep; `main.py sweep --status --workdir=…`"
                    " shows how far it is"
                )
            yield

    def slot(self, number: int) -> contextlib.AbstractContextManager[bool]:
        """Takes the place of one worker until the block ends; false where another process has it."""
        return self._locked(f"slot-{number}")

    def worker_pids(self) -> list[int]:
        """Of this machine's workers that live."""
        found = []
        for path in self.workers.glob("slot-*.lock"):
            text = path.read_text()
            if text.isdecimal() and _held(path):
                found.append(int(text))
        return found

    def is_slot_taken(self, number: int) -> bool:
        """Whether a worker of this machine has that place."""
        return _held(self._lock(f"slot-{number}"))

    def _lock(self, name: str) -> Path:
        return self.workers / f"{name}.lock"

    @contextlib.contextmanager
    def _locked(self, name: str) -> Iterator[bool]:
        with _open(self._lock(name)) as file:
            if not _taken(file):
                yield False
                return
            file.truncate(0)
            file.write(str(os.getpid()))
            file.flush()
            yield True
            file.truncate(0)


def _open(path: Path) -> TextIO:
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        return path.open("a")
    except OSError as error:
        raise SaveError(f"{path} cannot be written: {error.strerror}") from error


def _taken(file: TextIO) -> bool:
    """Takes a lock, for which it waits a moment: who looks whether it is held (`_held`) has it meanwhile."""
    deadline = time.monotonic() + MOMENT
    while True:
        with contextlib.suppress(OSError):
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            return True
        if time.monotonic() > deadline:
            return False
        time.sleep(0.01)


def _held(path: Path) -> bool:
    """Whether a process has a lock; this one shares it with others that look, and writes nothing."""
    try:
        with path.open() as file:
            fcntl.flock(file, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except FileNotFoundError:
        return False
    except OSError:
        return True
    return False


def _refuse_other(path: Path, before: SweepConfig, now: SweepConfig) -> None:
    """Raises UserError naming what differs between two sweeps, but for added seeds and where data and caches lie."""
    old, new = ({k: v for k, v in flatten_settings(config_to_dict(one)).items() if v != {}} for one in (before, now))
    if set(before.seeds) <= set(now.seeds):
        new["seeds"] = old["seeds"]
    keys = [k for k in sorted({*old, *new}) if old.get(k) != new.get(k) and not k.endswith(FREE_KEYS)]
    if keys:
        lines = [f"  {key}: {old.get(key, 'absent')} there, {new.get(key, 'absent')} now" for key in keys]
        raise UserError(
            f"--workdir={path} holds another sweep:\n"
            + "\n".join(lines)
            + "\nUse the same file and options to go on with it (seeds may be added), or another --workdir"
        )
