"""Directory of a sweep: its record, the locks of its processes and the workdirs of its runs."""

import contextlib
import re
import uuid
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any

import sqlalchemy

from imagenet_repro.config import config_to_dict, flatten_settings
from imagenet_repro.config.sweep import SweepConfig, resolve_sweep
from imagenet_repro.errors import SaveError, UserError
from imagenet_repro.storage import files, locks, user
from imagenet_repro.storage.json_files import read_json, require_keys, write_json
from imagenet_repro.storage.workdir import CONFIG, PREDICTIONS, SPEED_KEYS, Workdir
from imagenet_repro.sweeps.plan import RUNS, SEARCH, SMALLER

SWEEP = "sweep.json"
TRIALS = "trials.db"
WORKERS = "workers"  # the subdirectory of locks, logs and job ids
PLANNED = "planned.json"  # the configuration with which a worker starts a run, in the run's workdir
RUNS_ARE_KEPT = "finished runs are taken from their directories, and started ones resume from their checkpoints"
FREE = (*SPEED_KEYS, "checkpoint.keep_finished")  # ends of keys that may change during a sweep
LOCK_TIMEOUT = 1.0  # seconds of trying to acquire a lock


class SweepDirectory:
    """The directory of one sweep.

    Args:
      path: the directory; `record` creates it if it is missing.
    """

    def __init__(self, path: str | Path):
        self.path = user.expand(path).absolute()
        self._new_identity = uuid.uuid4().hex

    @property
    def exists(self) -> bool:
        """Whether a sweep was started in this directory."""
        return (self.path / SWEEP).exists()

    @property
    def has_started(self) -> bool:
        """Whether a run of the sweep has written anything: a checkpoint, a row of the log or a result."""
        return any(
            Workdir(path).is_started for kind in (RUNS, SEARCH, SMALLER) for path in self.path.glob(f"{kind}/*/*")
        )

    @property
    def workers_path(self) -> Path:
        """The subdirectory to which workers write."""
        return self.path / WORKERS

    @property
    def default_storage(self) -> str:
        """The URL of the SQLite file that holds the trials unless --storage names another storage."""
        return sqlalchemy.URL.create("sqlite", database=str(self.path / TRIALS)).render_as_string()

    def check(self, sweep: SweepConfig, storage: str) -> str:
        """Return the identity of a new sweep, or that of the recorded one after checking that it is the same.

        Seeds may be added. A first start can fail because of the sweep or its storage. As long as no run has written
        anything, the corrected sweep is a new one, which replaces the recorded one.

        Args:
          sweep: the requested sweep.
          storage: the URL of its trials, without a password.

        Raises:
          UserError: the directory holds another sweep or a single run, or its trials are in another storage.
        """
        if (self.path / CONFIG).exists():
            raise UserError(f"--workdir={self.path} holds a single run; a sweep needs a separate directory")
        if not self.exists:
            return self._new_identity
        try:
            _refuse_other_sweep(self.path, self.sweep(), sweep)
            if self.storage() != storage:
                raise UserError(
                    f"the trials of the sweep in {self.path} are in --storage={self.storage()}. To plan its runs anew"
                    f" in another one, remove {self.path / SWEEP}; {RUNS_ARE_KEPT}"
                )
        except UserError:
            if self.has_started:
                raise
            return self._new_identity
        return self.identity()

    def record(self, sweep: SweepConfig, storage: str) -> None:
        """Write the record of a sweep after `check`, whose arguments and errors it has."""
        identity = self.check(sweep, storage)
        # The default storage is not recorded, so that the directory can be moved.
        recorded_storage = "" if storage == self.default_storage else storage
        write_json(
            self.path / SWEEP, {"identity": identity, "storage": recorded_storage, "sweep": config_to_dict(sweep)}
        )

    def _read_record(self) -> dict[str, Any]:
        path = self.path / SWEEP
        try:
            record = read_json(path, "sweep writes it")
            require_keys(path, record, {"identity": str, "storage": str, "sweep": dict}, "sweep")
        except UserError as error:
            advice = f". Remove it and start the sweep with its own command; {RUNS_ARE_KEPT}" * path.exists()
            raise UserError(f"{error}{advice}") from error
        return record

    def read_settings(self, name: str, keys: Sequence[str]) -> dict[str, Any] | None:
        """Return the values of keys with which a worker started a run; None if it did not, or they are damaged.

        Args:
          name: the name of the run.
          keys: dotted keys of its configuration.
        """
        try:
            settings = flatten_settings(read_json(self.path / name / PLANNED, "a worker writes it"))
            return {key: settings[key] for key in keys}
        except (UserError, KeyError, TypeError, AttributeError):
            return None

    def remove_leftovers(self, names: Iterable[str]) -> None:
        """Remove the partial files that killed processes left in the directory and in those of runs.

        Args:
          names: the names of the runs.
        """
        for name in ("", WORKERS, "tables", "figures", *names):
            for below in (self.path / name, self.path / name / PREDICTIONS):
                files.remove_parts(below)

    def sweep(self) -> SweepConfig:
        """Return the recorded sweep; raise UserError if there is none."""
        return resolve_sweep(self._read_record()["sweep"])

    def identity(self) -> str:
        """Return the text that identifies this sweep among all others in a storage."""
        return self._read_record()["identity"]

    def storage(self) -> str:
        """Return the URL of the trials, without a password."""
        return self._read_record()["storage"] or self.default_storage

    def _check_name(self) -> None:
        """Raise UserError for names that submitit, SLURM or a database's URL would read as something else."""
        name = str(self.path)
        is_text = name.encode(errors="ignore").decode() == name
        if not is_text or re.search(r"%\w", name) or not name.isprintable():
            raise UserError(
                f"--workdir={self.path}: the path of a sweep is text in UTF-8 without line breaks and without"
                " a letter or digit after a percent sign; choose another"
            )

    @contextlib.contextmanager
    def lock(self) -> Iterator[None]:
        """Hold the directory within the block for the one process that plans and watches the sweep.

        Raises:
          UserError: another process holds it.
          SaveError: the directory cannot be written to.
        """
        self._check_name()
        with self._lock("sweep") as is_acquired:
            if not is_acquired:
                holder = locks.describe_owner(self._lock_path("sweep"))
                raise UserError(
                    f"--workdir={self.path}: {holder} runs this sweep; `main.py sweep --status --workdir=…`"
                    " shows its progress"
                )
            yield

    def worker_slot(self, slot: int) -> contextlib.AbstractContextManager[bool]:
        """Hold a worker's slot within the block; the value is False if another process holds it."""
        return self._lock(f"slot-{slot}")

    def worker_pids(self) -> list[int]:
        """Return the process ids of this machine's live workers."""
        owners = [locks.owner(path) for path in self.workers_path.glob("slot-*.lock") if locks.is_locked(path)]
        return [owner.pid for owner in owners if owner is not None and owner.is_here]

    def is_slot_taken(self, slot: int) -> bool:
        """Whether a worker, of this machine or of one that shares the directory, holds a slot."""
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
            raise SaveError(
                f"{path} cannot be written: {error.strerror}. `sweep --status` and `compare --out=DIR` only read"
            ) from error
        if lock is None:
            yield False
            return
        try:
            locks.write_owner(path)
            yield True
            path.write_text("", encoding="utf-8")
        finally:
            lock.release()


def _refuse_other_sweep(path: Path, recorded: SweepConfig, requested: SweepConfig) -> None:
    """Check that two sweeps are equal, except for added seeds and for what is stored, and where.

    Raises:
      UserError: they are not; the message lists every key that differs.
    """
    old, new = (
        {key: value for key, value in flatten_settings(config_to_dict(sweep)).items() if value != {}}
        for sweep in (recorded, requested)
    )
    if set(recorded.seeds) <= set(requested.seeds):
        new["seeds"] = old["seeds"]
    keys = [key for key in sorted({*old, *new}) if old.get(key) != new.get(key) and not key.endswith(FREE)]
    if keys:
        lines = [f"  {key}: {old.get(key, 'absent')} there, {new.get(key, 'absent')} now" for key in keys]
        raise UserError(
            f"--workdir={path} holds another sweep:\n"
            + "\n".join(lines)
            + "\nUse the same file and options to resume it (seeds may be added), or another --workdir"
        )
