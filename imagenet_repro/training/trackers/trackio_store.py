"""Trackio: the user's local store, unless TRACKIO_SPACE_ID or TRACKIO_SERVER_URL names a server."""

import contextlib
import contextvars
import importlib
import io
import os
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from imagenet_repro.training.trackers.background import Adapter
from imagenet_repro.training.trackers.tracked_run import KINDS, PROJECT, Row, TrackedRun

SERVERS = ("TRACKIO_SPACE_ID", "TRACKIO_SERVER_URL")


class TrackioStore(Adapter):
    """A run of Trackio, in $TRACKIO_DIR or the library's usual directory, where `trackio show` finds it.

    Trackio finds a run again by its name, which therefore ends with the id of the run.
    """

    title = "Trackio"

    def __init__(self, run: TrackedRun):
        trackio = importlib.import_module("trackio")
        self._is_local = not any(map(os.environ.get, SERVERS))
        self._step, self._project = run.start_step, os.environ.get("TRACKIO_PROJECT", PROJECT)
        # Trackio keeps one current run, and a notebook may have its own.
        self._context, self._end = contextvars.copy_context(), trackio.finish
        with _without_hub() if self._is_local else contextlib.nullcontext(), _without_output():
            self._run = self._context.run(
                trackio.init,
                self._project,
                name=f"{run.name}, {run.id}",
                group=run.system,
                config=run.settings,
                resume="allow",
                embed=False,
                auto_log_gpu=False,
                auto_log_cpu=False,
            )
        where = str(trackio.utils.TRACKIO_DIR) if self._is_local else next(filter(None, map(os.environ.get, SERVERS)))
        self.place = f"{where}, project {self._project}, run '{self._run.name}'"

    def sent(self) -> dict[str, int] | None:
        """Return the last step of each kind in the local store."""
        if not self._is_local:
            return None
        storage = importlib.import_module("trackio.sqlite_storage").SQLiteStorage
        steps: dict[str, int] = dict.fromkeys(KINDS, 0)
        for row in storage.get_logs(self._project, self._run.name, run_id=self._run.id):
            for kind in KINDS:
                if any(tag.startswith(f"{kind}/") for tag in row):
                    steps[kind] = max(steps[kind], row["step"])
        return steps

    def write(self, rows: Sequence[Row]) -> None:
        """Record rows by their steps."""
        for row in rows:
            self._run.log(row.numbers, step=row.step)
        self._step = rows[-1].step

    def close(self, result: Mapping[str, float] | None) -> None:
        """Record the result at the last step, and end the run."""
        if result is not None:
            self.write([Row(self._step, dict(result))])
        with _without_output():
            self._context.run(self._end)


def _without_output() -> contextlib.redirect_stdout:
    """Return a context in which Trackio's advice for interactive use is not shown."""
    return contextlib.redirect_stdout(io.StringIO())


@contextlib.contextmanager
def _without_hub() -> Iterator[None]:
    """Keep Trackio from asking the Hugging Face Hub for the user's name, which it does where there is a token."""
    constants: Any = importlib.import_module("huggingface_hub.constants")
    before, constants.HF_HUB_OFFLINE = constants.HF_HUB_OFFLINE, True
    try:
        yield
    finally:
        constants.HF_HUB_OFFLINE = before
