"""Weights & Biases: offline in `WORKDIR/wandb`, unless WANDB_MODE says otherwise."""

import importlib
import os
from collections.abc import Mapping, Sequence
from typing import Any

from imagenet_repro.training.trackers.background import CLOSING_SECONDS, Adapter
from imagenet_repro.training.trackers.tracked_run import PROJECT, Row, TrackedRun

STARTING_SECONDS = 30.0  # that a server may take to answer


class WeightsAndBiases(Adapter):
    """A run of W&B. Its `id` is that of the run, so that each process that resumes adds to the same run.

    WANDB_MODE, WANDB_PROJECT, WANDB_DIR and the library's other variables have their usual meaning. Reports of the
    library's own errors are sent nowhere, unless WANDB_ERROR_REPORTING asks for them.
    """

    title = "W&B"

    def __init__(self, run: TrackedRun):
        mode: Any = os.environ.get("WANDB_MODE", "offline")
        os.environ.setdefault("WANDB_ERROR_REPORTING", "false")
        wandb = importlib.import_module("wandb")
        directory = os.environ.get("WANDB_DIR", str(run.workdir))
        os.makedirs(directory, exist_ok=True)
        self._run = wandb.init(
            project=os.environ.get("WANDB_PROJECT", PROJECT),
            id=run.id,
            name=run.name,
            group=run.system,
            config=run.settings,
            dir=directory,
            mode=mode,
            resume="allow",
            reinit="create_new",  # a notebook may have a run of its own
            settings=wandb.Settings(
                silent=True, console="off", init_timeout=STARTING_SECONDS, finish_timeout=CLOSING_SECONDS
            ),
        )
        place = f"offline in {self._run.dir.removesuffix('/files')}" if mode == "offline" else mode
        self.place = f"{place}, run {run.id}"

    def sent(self) -> None:
        """Return None, since runs that are offline cannot be asked."""

    def write(self, rows: Sequence[Row]) -> None:
        """Record rows by their steps."""
        for row in rows:
            self._run.log(row.numbers, step=row.step)

    def close(self, result: Mapping[str, float] | None) -> None:
        """Record the result in the summary and end the run; one without a result counts as failed."""
        if result is not None:
            self._run.summary.update(dict(result))
        self._run.finish(exit_code=0 if result is not None else 1)
