"""The description of a run that its trackers record, and the record of what they have received."""

import dataclasses
import math
import secrets
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from imagenet_repro.config import TrainedConfig, config_to_dict, flatten_settings
from imagenet_repro.errors import UserError
from imagenet_repro.storage.json_files import read_json, write_json

PROJECT = "imagenet_repro"  # of the trackers' runs, where the user's environment names none
RECORD = "trackers.json"  # in the workdir
# Rows that trackers receive. The others come out of the order of steps, which W&B does not take.
KINDS = ("train", "eval")
# Places in a result of the numbers that trackers receive at the end.
RESULT_NUMBERS = {
    "top1_error": ("rates", "top1_error"),
    "top5_error": ("rates", "top5_error"),
    "cross_entropy": ("rates", "cross_entropy"),
    "evaluated": ("rates", "images"),
    "images": ("spent", "images"),
    "epochs": ("spent", "epochs"),
    "flops": ("spent", "flops"),
    "seconds": ("spent", "seconds"),
    "compilation_seconds": ("compilation_seconds",),
    "parameters": ("parameters",),
    "multiply_adds": ("multiply_adds",),
}


class Row(NamedTuple):
    """The finite numbers of a row of the log, by tag such as `train/loss`."""

    step: int
    numbers: dict[str, float]


@dataclasses.dataclass(frozen=True)
class TrackedRun:
    """The description of a run.

    Attributes:
      workdir: of the run.
      start_step: the step from which this process continues; 0: the run is new.
      config: of the run.
      id: eight hexadecimal digits, the same for all processes that continue the run.
    """

    workdir: Path
    start_step: int
    config: TrainedConfig
    id: str = ""

    @property
    def system(self) -> str:
        """The name of the system in tables."""
        return self.config.name or self.config.system_name

    @property
    def name(self) -> str:
        """The name of the run in a list: the system and the seed."""
        return f"{self.system}, seed {self.config.seed}"

    @property
    def settings(self) -> dict[str, Any]:
        """The configuration by dotted key, with the name of the system and the workdir."""
        about = {"system": self.system, "workdir": str(self.workdir)}
        return about | flatten_settings(config_to_dict(self.config))

    @property
    def settings_as_text(self) -> dict[str, str]:
        """The same with each value as a text."""
        return {key: value if isinstance(value, str) else repr(value) for key, value in self.settings.items()}


def finite_numbers(kind: str, values: Mapping[str, Any]) -> dict[str, float]:
    """Return the finite numbers of a row by their tags, such as `train/loss`."""
    return {
        f"{kind}/{name}": float(value)
        for name, value in values.items()
        if isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)
    }


def result_numbers(result: Mapping[str, Any]) -> dict[str, float]:
    """Return the numbers of a result by their tags, such as `result/top1_error`."""
    numbers = {}
    for name, path in RESULT_NUMBERS.items():
        value: Any = result
        for key in path:
            value = value[key]
        numbers[name] = value
    return finite_numbers("result", numbers)


def last_steps(rows: Iterable[Mapping[str, Any]]) -> dict[str, int]:
    """Return the last step of the rows of each of `KINDS`; 0 where there is none."""
    steps: dict[str, int] = dict.fromkeys(KINDS, 0)
    for row in rows:
        if row["kind"] in steps:
            steps[row["kind"]] = max(steps[row["kind"]], row["step"])
    return steps


@dataclasses.dataclass(frozen=True)
class Record:
    """The record in a workdir of what its trackers have received.

    Attributes:
      id: of the run.
      steps: the last step of each kind that any process of the run has logged, also those that a resume dropped.
      used: the names of the trackers that have received these steps.
    """

    id: str
    steps: Mapping[str, int]
    used: Sequence[str]

    def sent_to(self, name: str) -> Mapping[str, int]:
        """Return the last step of each kind that a tracker has received, as far as the log shows it."""
        return self.steps if name in self.used else dict.fromkeys(KINDS, 0)


def update_record(workdir: Path, logged: Mapping[str, int], begun: Sequence[str] = ()) -> Record:
    """Store the steps that the log has in the record, and return it.

    Args:
      workdir: of the run.
      logged: the last step of each kind in the log, before rows beyond the restored step are dropped.
      begun: names of trackers that have received these steps.

    Raises:
      SaveError: the record cannot be written.
    """
    path = workdir / RECORD
    recorded = _read_record(path)
    steps = {kind: max(logged[kind], recorded.steps.get(kind, 0)) for kind in KINDS}
    record = Record(recorded.id, steps, tuple(dict.fromkeys((*recorded.used, *begun))))
    write_json(path, dataclasses.asdict(record))
    return record


def _read_record(path: Path) -> Record:
    """Return the record in a file; a new one where there is none, or it is not what a run writes."""
    new = Record(secrets.token_hex(4), {}, ())
    if not path.exists():
        return new
    try:
        content = read_json(path, "train writes it")
        steps = {kind: int(content["steps"][kind]) for kind in KINDS}
        return Record(str(content["id"]), steps, tuple(map(str, content["used"])))
    except (UserError, LookupError, TypeError, ValueError):
        return new
