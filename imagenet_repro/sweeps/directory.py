"""Directory of a sweep: its record, the locks of its processes and the workdirs of its runs."""

import contextlib
import os
import uuid
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import sqlalchemy

from imagenet_repro.config import config_to_dict, flatten_settings
from imagenet_repro.config.sweep import SweepConfig, resolve_sweep
from imagenet_repro.errors import SaveError, UserError
from imagenet_repro.storage import locks, user
from imagenet_repro.storage.json_files import read_json, require_keys, write_json
from imagenet_repro.storage.workdir import CONFIG, FREE_KEYS

SWEEP = "sweep.json"
TRIALS = "trials.db"
WORKERS = "workers"  # the subdirectory of locks, logs and job ids
LOCK_TIMEOUT = 1.0  # seconds of trying to acquire a lock


class SweepDirectory:
    """The directory of one sweep.

    Args:
      path: the directory; `record` creates it if it is missing.
    """

    def __init__(self, path: str | Path):
        self.path = user.expand(path).absolute()

    @property
    def exists(self) -> bool:
        """Whether a sweep was started in this directory."""
        return (self.path / SWEEP).exists()

    @property
    def workers_path(self) -> Path:
        """The subdirectory to which workers write."""
        return self.path / WORKERS

    @property
    def default_storage(self) -> str:
        """The URL of the SQLite file that holds the trials unless --storage names another storage."""
        return sqlalchemy.URL.create("sqlite", database=str(self.path / TRIALS)).render_as_string()

    def record(self, sweep: SweepConfig, storage: str) -> None:
        """Write the record of a new sweep, or check that the recorded sweep is the same; seeds may be added.

        Args:
          sweep: the requested sweep.
          storage: the URL of its trials, without a password.

        Raises:
          UserError: the directory holds another sweep or a single run, or its trials are in another storage.
        """
        if (self.path / CONFIG).exists():
            raise UserError(f"--workdir={self.path} holds a single run; a sweep needs a separate directory")
        identity = uuid.uuid4().hex
        if self.exists:
            identity = self.identity()
            _refuse_other_sweep(self.path, self.sweep(), sweep)
            if self.storage() != storage:
                raise UserError(f"the trials of the sweep in {self.path} are in --storage={self.storage()}")
        # The default storage is not recorded, so that the directory can be moved.
        recorded_storage = "" if storage == self.default_storage else storage
        write_json(
            self.path / SWEEP, {"identity": identity, "storage": recorded_storage, "sweep": config_to_dict(sweep)}
        )

    def _read_record(self) -> dict[str, Any]:
        path = self.path / SWEEP
        record = read_json(path, "sweep writes it")
        require_keys(path, record, {"identity": str, "storage": str, "sweep": dict}, "sweep")
        return record

    def sweep(self) -> SweepConfig:
        """Return the recorded sweep; raise UserError if there is none."""
        return resolve_sweep(self._read_record()["sweep"])

    def identity(self) -> str:
        """Return the text that identifies this sweep among all others in a storage."""
        return self._read_record()["identity"]

    def storage(self) -> str:
        """Return the URL of the trials, without a password."""
        return self._read_record()["storage"] or self.default_storage

    @contextlib.contextmanager
    def lock(self) -> Iterator[None]:
        """Hold the directory within the block for the one process that plans and watches the sweep.

        Raises:
          UserError: another process holds it.
          SaveError: the directory cannot be written to.
        """
        with self._lock("sweep") as is_acquired:
            if not is_acquired:
                raise UserError(
                    f"--workdir={self.path}: another process runs this sweep; `main.py sweep --status --workdir=…`"
                    " shows its progress"
                )
            yield

    def worker_slot(self, slot: int) -> contextlib.AbstractContextManager[bool]:
        """Hold a worker's slot within the block; the value is False if another process holds it."""
        return self._lock(f"slot-{slot}")

    def worker_pids(self) -> list[int]:
        """Return the process ids of this machine's live workers."""
        pids = []
        for path in self.workers_path.glob("slot-*.lock"):
            text = path.read_text()
            if text.isdecimal() and locks.is_locked(path):
                pids.append(int(text))
        return pids

    def is_slot_taken(self, slot: int) -> bool:
        """Whether a worker of this machine holds a slot."""
        return locks.is_locked(self._lock_path(f"slot-{slot}"))

    def _lock_path(self, name: str) -> Path:
        return self.workers_path / f"{name}.lock"

    @contextlib.contextmanager
    def _lock(self, name: str) -> Iterator[bool]:
        """Hold a lock within the block, with the process's id in its file; False if another process holds it."""
        path = self._lock_path(name)
        try:
            # Another process may be asking whether the lock is held, which takes a moment.
            lock = locks.acquire(path, timeout=LOCK_TIMEOUT)
        except OSError as error:
            raise SaveError(f"{path} cannot be written: {error.strerror}") from error
        if lock is None:
            yield False
            return
        try:
            path.write_text(str(os.getpid()))
            yield True
            path.write_text("")
        finally:
            lock.release()


def _refuse_other_sweep(path: Path, recorded: SweepConfig, requested: SweepConfig) -> None:
    """Check that two sweeps are equal, except for added seeds and for where data and caches are stored.

    Raises:
      UserError: they are not; the message lists every key that differs.
    """
    old, new = (
        {key: value for key, value in flatten_settings(config_to_dict(sweep)).items() if value != {}}
        for sweep in (recorded, requested)
    )
    if set(recorded.seeds) <= set(requested.seeds):
        new["seeds"] = old["seeds"]
    keys = [key for key in sorted({*old, *new}) if old.get(key) != new.get(key) and not key.endswith(FREE_KEYS)]
    if keys:
        lines = [f"  {key}: {old.get(key, 'absent')} there, {new.get(key, 'absent')} now" for key in keys]
        raise UserError(
            f"--workdir={path} holds another sweep:\n"
            + "\n".join(lines)
            + "\nUse the same file and options to resume it (seeds may be added), or another --workdir"
        )
