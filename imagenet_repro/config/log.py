"""The trackers that receive the log of a run (training/trackers)."""

import dataclasses
from typing import Literal

TrackerName = Literal["tensorboard", "wandb", "mlflow", "trackio"]


@dataclasses.dataclass(frozen=True)
class Log:
    """The trackers of a run, beside `metrics.jsonl`, which every run writes.

    All of them write to this machine alone, unless their own environment variables name a server.
    """

    to: tuple[TrackerName, ...] = ("tensorboard",)  # tensorboard, wandb, mlflow, trackio; empty: none
