"""Weights & Biases: offline in `WORKDIR/wandb`, unless WANDB_MODE says otherwise."""

import importlib
import os
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from imagenet_repro.training.trackers.background import CLOSING_SECONDS, Adapter
from imagenet_repro.training.trackers.tracked_run import KINDS, PROJECT, Row, TrackedRun

STARTING_SECONDS = 30.0  # that a server may take to answer
# The file of an offline run has W&B's messages in LevelDB's log format, after 7 bytes of W&B's own: blocks of records
# that have their checksum (4 bytes), length (2) and type (1: complete, 2: first part, 3: middle, 4: last).
BLOCK, HEADER = 32_768, 7
ENDS = (1, 4)


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
        earlier = Path(directory, "wandb").glob(f"offline-run-*-{run.id}*/run-{run.id}.wandb")
        self._files = sorted(earlier) if mode == "offline" else None  # those of the processes before this one
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

    def sent(self) -> dict[str, int] | None:
        """Return the last step of each kind in the files of an offline run; None for another, which is not asked.

        A process that was killed has lost what W&B had not yet written to its file.
        """
        if self._files is None:
            return None
        steps: dict[str, int] = dict.fromkeys(KINDS, 0)
        for path in self._files:
            for record in _read_records(path):
                for item in record.history.item:
                    kind = "/".join(item.nested_key or [item.key]).partition("/")[0]
                    if kind in steps:
                        steps[kind] = max(steps[kind], record.history.step.num)
        return steps

    def write(self, rows: Sequence[Row]) -> None:
        """Record rows by their steps."""
        for row in rows:
            self._run.log(row.numbers, step=row.step)

    def close(self, result: Mapping[str, float] | None) -> None:
        """Record the result in the summary and end the run; one without a result counts as failed."""
        if result is not None:
            self._run.summary.update(dict(result))
        self._run.finish(exit_code=0 if result is not None else 1)


def _read_records(path: Path) -> Iterator[Any]:
    """Yield the messages in the file of an offline run; a last one that a kill cut short is left out."""
    message = importlib.import_module("wandb.proto.wandb_internal_pb2").Record
    content, position, parts = path.read_bytes(), HEADER, b""
    while position + HEADER <= len(content):
        left = BLOCK - position % BLOCK
        if left < HEADER:  # too few bytes of the block for another record
            position += left
            continue
        length, kind = int.from_bytes(content[position + 4 : position + 6], "little"), content[position + 6]
        position += HEADER + length
        if position > len(content):
            return
        parts += content[position - length : position]
        if kind in ENDS:
            yield message.FromString(parts)
            parts = b""
