"""What lies in a workdir besides checkpoints and logs: the resolved configuration, the lock, the result."""

import fcntl
import json
from pathlib import Path
from typing import Any, TextIO

from imagenet_repro.config import AnyConfig, Data, config_to_dict, flatten_settings, resolve_config
from imagenet_repro.errors import SaveError, UserError
from imagenet_repro.storage import files

CONFIG = "config.json"
RESULT = "result.json"
LOCK = "lock"

# Keys that change where and how fast a run works, and nothing that it computes.
FREE_KEYS = ("cache_dir", "data.data_dir", "data.threads", "data.workers", "log_every")


# What every reader of a result relies on, by dotted path.
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
    """One run's directory.

    Args:
      path: made where it is missing.
    """

    def __init__(self, path: str | Path):
        self.path = Path(path).expanduser().absolute()
        self._lock: TextIO | None = None

    @property
    def checkpoints(self) -> Path:
        """Where Orbax writes."""
        return self.path / "checkpoints"

    @property
    def started(self) -> bool:
        """Whether there is a checkpoint to go on from."""
        return self.checkpoints.is_dir() and any(path.name.isdecimal() for path in self.checkpoints.iterdir())

    @property
    def finished(self) -> bool:
        """Whether the run's result is written: its budget is spent."""
        return (self.path / RESULT).exists()

    @property
    def begun(self) -> bool:
        """Whether anything came of a run here: a checkpoint, a row of the log or a result."""
        logged = self.metrics.exists() and self.metrics.stat().st_size > 0
        return self.started or logged or self.finished

    @property
    def metrics(self) -> Path:
        """JSON lines of training/log.py."""
        return self.path / "metrics.jsonl"

    def predictions(self, data: Data, split: str, step: int | None = None, protocol: str = "") -> Path:
        """Where the predictions on a split of a data set go: of the run's end, or of the checkpoint of a step.

        Those of the end belong to the result, which counts on them; no other ones may take their place. Those by a
        protocol other than the run's own have its name.
        """
        at = "" if step is None else f"_step{step}"
        by = f"_{protocol}" if protocol else ""
        name = "".join(c if c.isalnum() or c in "._-" else "_" for c in f"{data.name}_{split}{by}{at}")
        return self.path / "predictions" / f"{name}.npz"

    def claim(self) -> None:
        """Makes the directory and takes its lock, which ends with the process.

        Raises:
          UserError: another process trains here.
          SaveError: it cannot be written to.
        """
        try:
            self.path.mkdir(parents=True, exist_ok=True)
            self._lock = (self.path / LOCK).open("w")
        except OSError as error:
            raise SaveError(f"--workdir={self.path} cannot be written: {error.strerror}") from error
        try:
            fcntl.flock(self._lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as error:
            raise UserError(f"--workdir={self.path}: another process is at work there; wait or stop it") from error

    @property
    def taken(self) -> bool:
        """Whether another process trains here."""
        try:
            with (self.path / LOCK).open("w") as lock:
                fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except FileNotFoundError:
            return False
        except OSError:
            return True
        return False

    def settle_config(self, config: AnyConfig, provenance: dict[str, Any]) -> None:
        """Writes the configuration of a new run, or checks that an earlier one had the same.

        A first start can fail over the configuration itself, such as unusable weights or options; as long as nothing
        came of it, the corrected one takes its place. To be called with the lock held, by the one process that has it.

        Raises:
          UserError: the workdir is of another configuration, the message shows each difference; or the file of
            weights that the run starts from has changed since.
        """
        if self.begun and (self.path / CONFIG).exists():
            refuse_other(self.path, self.config(), config)
            self._refuse_other_weights(provenance)
            return
        write_json(self.path / CONFIG, {"config": config_to_dict(config), "provenance": provenance})

    def _refuse_other_weights(self, provenance: dict[str, Any]) -> None:
        if "weights" in provenance and provenance["weights"]["sha256"] != self.weights()["weights"]["sha256"]:
            path = provenance["weights"]["path"]
            raise UserError(f"{path} has changed since the run in {self.path} began; use another --workdir")

    def weights(self) -> dict[str, Any]:
        """Path and SHA-256 of the file that the run started from, under the key `weights`; empty where none was."""
        recorded = self._recorded()["provenance"]
        return {"weights": recorded["weights"]} if "weights" in recorded else {}

    def config(self) -> AnyConfig:
        """The configuration that the run was started with.

        Raises:
          UserError: there is none, or it cannot be read.
        """
        return resolve_config(self._recorded()["config"])

    def _recorded(self) -> dict[str, Any]:
        path = self.path / CONFIG
        recorded = read_json(path, "train writes it")
        require(path, recorded, {"config": dict, "provenance": dict})
        return recorded

    def write(self, name: str, text: str) -> None:
        """Puts a text file into the directory, whole or not at all."""
        with files.whole(self.path / name, name) as file:
            file.write(text.encode())

    def result(self) -> dict[str, Any]:
        """What the run came to.

        Raises:
          UserError: the run has not ended, or the file is not what a run writes.
        """
        path = self.path / RESULT
        found = read_json(path, "train writes it when its budget is spent")
        require(path, found, RESULT_KEYS)
        return found


def refuse_other(path: Path, before: AnyConfig, now: AnyConfig) -> None:
    """Raises UserError naming every key in which two configurations differ, but for those in FREE_KEYS."""
    old, new = flatten_settings(config_to_dict(before)), flatten_settings(config_to_dict(now))
    keys = [k for k in sorted({*old, *new}) if old.get(k) != new.get(k) and k not in FREE_KEYS]
    if keys:
        lines = [f"  {key}: {old.get(key, 'absent')} there, {new.get(key, 'absent')} now" for key in keys]
        raise UserError(
            f"--workdir={path} holds a run of another configuration:\n"
            + "\n".join(lines)
            + "\nUse the same configuration to resume it, or another --workdir"
        )


def require(path: Path, value: Any, keys: dict[str, Any], who: str = "train") -> None:
    """Raises UserError naming the first of `keys`, by dotted path with its type, that the value of a file lacks."""
    for key, kind in keys.items():
        found = value
        for part in key.split("."):
            found = found.get(part) if isinstance(found, dict) else None
        if not isinstance(found, kind) or isinstance(found, bool):
            raise UserError(f"{path} is not what {who} writes: '{key}' is {'missing' if found is None else found!r}")


def write_json(path: Path, value: Any) -> None:
    """Writes whole or not at all."""
    with files.whole(path, "JSON") as file:
        file.write(json.dumps(value, indent=1).encode() + b"\n")


def read_json(path: Path, who: str) -> Any:
    """The value in a JSON file; UserError where it is missing (`who` says what writes it), unreadable or damaged."""
    try:
        return json.loads(path.read_text())
    except (FileNotFoundError, NotADirectoryError) as error:
        raise UserError(f"there is no {path}; {who}") from error
    except OSError as error:
        raise UserError(f"{path} cannot be read: {error.strerror}") from error
    except ValueError as error:
        raise UserError(f"{path} is damaged ({error})") from error
