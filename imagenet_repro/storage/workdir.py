"""The directory of a run: its configuration, lock, predictions and result. Checkpoints and logs are in it too."""

import dataclasses
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any, get_args, get_type_hints

from filelock import BaseFileLock

from imagenet_repro.config import AnyConfig, Config, Data, config_to_dict, flatten_settings, resolve_config
from imagenet_repro.errors import SaveError, UserError
from imagenet_repro.storage import files, locks, user
from imagenet_repro.storage.json_files import read_json, require_keys, write_json

CONFIG = "config.json"
RESULT = "result.json"
LOCK = "lock"
PREDICTIONS = "predictions"  # the subdirectory of predictions
DROPPED = "dropped_checkpoints.json"  # the record of checkpoints that a sweep has dropped

CONFIG_ADVICE = "put a copy back, or remove it, and train with this run's configuration writes it again"
DROPPED_ADVICE = "remove it"
RESULT_ADVICE = "train with this run's configuration writes it again"
PRECISIONS = get_args(get_type_hints(Config)["precision"])

# Keys that change where and how fast a run works, but no number that it computes.
SPEED_KEYS = ("cache_dir", "data.data_dir", "data.threads", "data.workers", "log.to", "log_every")
# Keys in which a run may differ from the recorded configuration that it continues: also its name.
FREE_KEYS = (*SPEED_KEYS, "name")


# The keys that every reader of a result relies on, by dotted path.
RESULT_KEYS = {
    "system": str,
    "parameters": int,
    "multiply_adds": int,
    "spent.images": int,
    "spent.seconds": int | float,
    "rates.images": int,
    "rates.top1_wrong": int,
    "rates.top5_wrong": int,
    "rates.top1_error": int | float,
    "rates.top5_error": int | float,
    "rates.cross_entropy": int | float,
    "provenance.config.budget": str,
    "provenance.config.data.name": str,
    "provenance.config.data.train_split": str,
    "provenance.config.data.eval_split": str,
}


class Workdir:
    """The directory of one run.

    Args:
      path: the directory, which `lock` and every method that writes create if it is missing.
    """

    def __init__(self, path: str | Path):
        self.path = user.expand(path).absolute()
        self._lock: BaseFileLock | None = None

    @property
    def checkpoints(self) -> Path:
        """The directory in which Orbax saves checkpoints."""
        return self.path / "checkpoints"

    @property
    def metrics(self) -> Path:
        """The log of the run, as JSON lines (training/log.py)."""
        return self.path / "metrics.jsonl"

    @property
    def has_checkpoints(self) -> bool:
        """Whether there is a checkpoint to resume from."""
        return self.checkpoints.is_dir() and any(path.name.isdecimal() for path in self.checkpoints.iterdir())

    def record_dropped(self, steps: Iterable[int], reason: str) -> None:
        """Record that checkpoints are dropped, before they are; the caller holds the lock.

        Args:
          steps: their steps, which are added to those of an earlier record.
          reason: the reason as the end of a sentence.
        """
        earlier = self._read_dropped()["steps"] if self._has_dropped else []
        write_json(self.path / DROPPED, {"steps": sorted({*earlier, *steps}), "reason": reason})

    def explain_dropped(self, which: str) -> str:
        """Return a message about a checkpoint that is not there because it was dropped; empty in any other case.

        Args:
          which: "best", "last" or a step.

        Raises:
          UserError: the record of dropped checkpoints is damaged.
        """
        if not self._has_dropped or (self.has_checkpoints and not which.isdecimal()):
            return ""
        record = self._read_dropped()
        if not self.has_checkpoints:
            dropped = "the checkpoints of this finished run were"
        elif int(which) in record["steps"] and not (self.checkpoints / which).is_dir():
            dropped = f"the checkpoint of step {int(which)} of this finished run was"
        else:
            return ""
        return f"{self.path}: {dropped} dropped, {record['reason']}"

    @property
    def _has_dropped(self) -> bool:
        return (self.path / DROPPED).exists()

    def _read_dropped(self) -> dict[str, Any]:
        path = self.path / DROPPED
        record = read_json(path, "a sweep writes it", DROPPED_ADVICE)
        require_keys(path, record, {"steps": list, "reason": str}, advice=DROPPED_ADVICE)
        return record

    @property
    def is_finished(self) -> bool:
        """Whether the result is written, which happens when the budget is spent."""
        return (self.path / RESULT).exists()

    @property
    def is_started(self) -> bool:
        """Whether a run has written anything here: a checkpoint, a row of the log or a result."""
        has_log = self.metrics.exists() and self.metrics.stat().st_size > 0
        return self.has_checkpoints or has_log or self.is_finished

    @property
    def has_config(self) -> bool:
        """Whether the configuration of a run is recorded here, be it damaged."""
        return (self.path / CONFIG).exists()

    @property
    def is_locked(self) -> bool:
        """Whether a process trains here."""
        return locks.is_locked(self.path / LOCK)

    def predictions(self, data: Data, split: str, step: int | None = None, protocol: str = "") -> Path:
        """Return the file for the predictions on a split of a data set.

        The predictions at the end of a run belong to its result, which refers to them, so no others may replace them.

        Args:
          data: the data set.
          split: the split that is predicted.
          step: the step of the checkpoint that predicts; None: the end of the run.
          protocol: the name of the evaluation protocol; empty: the run's own.
        """
        by = f"_{protocol}" if protocol else ""
        at = "" if step is None else f"_step{step}"
        name = "".join(c if c.isalnum() or c in "._-" else "_" for c in f"{data.name}_{split}{by}{at}")
        return self.path / PREDICTIONS / files.bounded_name(name, ".npz")

    def lock(self) -> None:
        """Create the directory and acquire its lock, which ends with the process; remove what killed runs left.

        Raises:
          UserError: another process trains here.
          SaveError: the directory cannot be written to.
        """
        try:
            self._lock = locks.acquire(self.path / LOCK)
        except OSError as error:
            raise SaveError(f"--workdir={self.path} cannot be written: {error.strerror}") from error
        if self._lock is None:
            holder = locks.describe_owner(self.path / LOCK)
            raise UserError(f"--workdir={self.path}: {holder} is using it; wait for it to end, or stop it")
        locks.write_owner(self.path / LOCK)
        for directory in (self.path, self.path / PREDICTIONS, self.checkpoints):
            files.remove_parts(directory)

    def unlock(self) -> None:
        """Release the lock, if this process holds it; it may live on, as a notebook does."""
        if self._lock is not None:
            self._lock.release()
            self._lock = None

    def record_config(self, config: AnyConfig, provenance: dict[str, Any]) -> None:
        """Write the configuration of a new run, or check that it equals the recorded one.

        A first start can fail because of the configuration itself, such as unusable weights or options. As long as
        that run has written nothing, the corrected configuration replaces the recorded one. The caller holds the
        lock.

        Raises:
          UserError: the workdir holds a run of another configuration, and the message lists each difference; or the
            file of weights that the run starts from has changed since.
        """
        if self.is_started and self.has_config:
            refuse_other_config(self.path, self.config(), config)
            self._refuse_changed_weights(provenance)
            return
        write_json(self.path / CONFIG, {"config": config_to_dict(config), "provenance": provenance})

    def extend(self, config: AnyConfig, step: int) -> None:
        """Record the configuration with a larger budget; the result of the smaller one is renamed.

        Args:
          config: that differs from the recorded one in its budget and its schedule.
          step: at which the run is extended.
        """
        recorded = self._read_config()
        budget = recorded["config"]["budget"]
        if self.is_finished:  # first: a run without a result continues under either configuration
            try:
                (self.path / RESULT).rename(self.path / f"result_{budget}.json")
            except OSError as error:
                raise SaveError(f"{self.path / RESULT} cannot be renamed: {error.strerror}") from error
        extended = [*recorded["provenance"].get("extended", []), {"budget": budget, "step": step}]
        provenance = recorded["provenance"] | {"extended": extended}
        write_json(self.path / CONFIG, {"config": config_to_dict(config), "provenance": provenance})

    def extensions(self) -> list[dict[str, Any]]:
        """Return the smaller budgets that the run had first, each with the step at which it was extended."""
        return self._read_config()["provenance"].get("extended", []) if self.has_config else []

    def _refuse_changed_weights(self, provenance: dict[str, Any]) -> None:
        if "weights" not in provenance:
            return
        recorded, path = self.weights(), provenance["weights"]["path"]
        if not recorded:
            keys = {"provenance.weights": dict}
            require_keys(self.path / CONFIG, self._read_config(), keys, advice=CONFIG_ADVICE)
        if provenance["weights"]["sha256"] != recorded["weights"]["sha256"]:
            raise UserError(f"{path} has changed since the run in {self.path} began; use another --workdir")

    def weights(self) -> dict[str, Any]:
        """Return path and SHA-256 of the file that the run started from under the key `weights`, or an empty dict."""
        recorded = self._read_config()
        if "weights" not in recorded["provenance"]:
            return {}
        keys = {f"provenance.weights.{key}": str for key in ("path", "sha256")}
        require_keys(self.path / CONFIG, recorded, keys, advice=CONFIG_ADVICE)
        return {"weights": recorded["provenance"]["weights"]}

    def classes(self) -> tuple[str, ...]:
        """Return the names of the classes that the run is trained on, by index; empty if an older version wrote it."""
        places = ((CONFIG, CONFIG_ADVICE, ("provenance", "classes")), (RESULT, RESULT_ADVICE, ("classes",)))
        for name, advice, keys in places:
            recorded = read_json(self.path / name, "train writes it", advice) if (self.path / name).exists() else None
            for key in keys:
                recorded = recorded.get(key) if isinstance(recorded, dict) else None
            if isinstance(recorded, list):
                return tuple(map(str, recorded))
        return ()

    def precision(self) -> str | None:
        """Return the precision that the run computes in; None where none is recorded (features; older runs)."""
        precision = self._read_config()["provenance"].get("precision") if self.has_config else None
        if precision not in (None, *PRECISIONS):
            raise UserError(f"{self.path / CONFIG} is damaged: the precision is {precision!r}; {CONFIG_ADVICE}")
        return precision

    def as_computed(self, config: AnyConfig) -> AnyConfig:
        """Return `config` with the precision that the run computes in, which can be another on a CPU."""
        precision = self.precision()
        if precision is None or not isinstance(config, Config):
            return config
        return dataclasses.replace(config, precision=precision)

    def config(self) -> AnyConfig:
        """Return the configuration that the run was started with.

        Raises:
          UserError: there is none, or it cannot be read.
        """
        recorded = self._read_config()["config"]
        try:
            return resolve_config(recorded)
        except UserError as error:
            raise UserError(f"{self.path / CONFIG}: {error}; {CONFIG_ADVICE}") from error

    def provenance(self) -> dict[str, Any]:
        """Return the provenance that was recorded when the run began; raise UserError if there is none."""
        return self._read_config()["provenance"]

    def _read_config(self) -> dict[str, Any]:
        path = self.path / CONFIG
        recorded = read_json(path, "train writes it", CONFIG_ADVICE)
        require_keys(path, recorded, {"config": dict, "provenance": dict}, advice=CONFIG_ADVICE)
        return recorded

    def write(self, name: str, text: str) -> None:
        """Write a text file into the directory, completely or not at all."""
        with files.atomic_write(self.path / name, name) as file:
            file.write(text.encode())

    def result(self) -> dict[str, Any]:
        """Return the result of the run, which has at least `RESULT_KEYS`.

        Raises:
          UserError: the run has not finished, or the file is not what a run writes.
        """
        path = self.path / RESULT
        result = read_json(path, "train writes it when its budget is spent", RESULT_ADVICE)
        require_keys(path, result, RESULT_KEYS, advice=RESULT_ADVICE)
        images, *wrong = (result["rates"][key] for key in ("images", "top1_wrong", "top5_wrong"))
        if not images >= wrong[0] >= wrong[1] >= 0 < images:
            message = f"{wrong[0]} and {wrong[1]} of {images} images are wrong with one guess and with five"
            raise UserError(f"{path} is damaged: {message}; {RESULT_ADVICE}")
        return result

    def set_damaged_result_aside(self) -> str:
        """Rename a result that is not what a run writes, so that it is written again; return a message, or "".

        The caller holds the lock.
        """
        try:
            if self.is_finished:
                self.result()
        except UserError as error:
            path = self.path / RESULT
            try:
                aside = path.rename(path.with_name(f"{RESULT}.damaged"))
            except OSError as failure:
                raise SaveError(f"{error}. It cannot be renamed: {failure.strerror}") from failure
            return f"{error}. It is now {aside.name}, and the result is written again"
        return ""


def system_name(result: Mapping[str, Any]) -> str:
    """Return the name that the user gave the system of a finished run; without one, that of the network or entry."""
    return str(result["provenance"]["config"].get("name") or result["system"])


def _may_be_extended(key: str) -> bool:
    return key == "budget" or key.startswith("schedule.")


def _derived(recorded: dict[str, Any], requested: dict[str, Any]) -> set[str]:
    """Return the keys that a run records although they follow from others: the size that the network is built for."""
    key = "model.options.image_size"
    return {key} if key not in requested and recorded.get(key) == requested.get("data.image_size") else set()


def refuse_other_config(path: Path, recorded: AnyConfig, requested: AnyConfig) -> None:
    """Check that two configurations differ in no key outside FREE_KEYS.

    Raises:
      UserError: they do; the message lists every such key.
    """
    old, new = flatten_settings(config_to_dict(recorded)), flatten_settings(config_to_dict(requested))
    same = {*FREE_KEYS, *_derived(old, new)}
    keys = [key for key in sorted({*old, *new}) if old.get(key) != new.get(key) and key not in same]
    if keys:
        lines = [f"  {key}: {old.get(key, 'absent')} there, {new.get(key, 'absent')} now" for key in keys]
        raise UserError(
            f"--workdir={path} holds a run of another configuration:\n"
            + "\n".join(lines)
            + "\nUse the same configuration to resume it, or another --workdir"
            + ("; --extend continues it to a larger budget" if all(map(_may_be_extended, keys)) else "")
        )
