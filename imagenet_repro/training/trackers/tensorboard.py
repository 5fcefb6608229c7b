"""TensorBoard: files of events in `WORKDIR/tensorboard`, written without a thread."""

import os
import time
from collections.abc import Callable, Mapping
from typing import Any

from imagenet_repro.training.trackers.background import describe
from imagenet_repro.training.trackers.tracked_run import TrackedRun

TENSORBOARD = "tensorboard"
SECONDS_BETWEEN_FLUSHES = 120.0


class TensorBoard:
    """The events of one process, which adds one file; a run whose events cannot be written goes on and says so.

    Rows of all kinds are written. Events of earlier files after the step from which the process continues are hidden.
    The first file has the configuration as a text. A finished run adds its result as numbers, and for the page that
    compares runs by their settings.

    Args:
      run: the run.
      say: called with one line if events cannot be written.
    """

    def __init__(self, run: TrackedRun, say: Callable[[str], None]):
        self._run, self._say = run, say
        self._directory = run.workdir / TENSORBOARD
        self._writer: Any = None
        self._step = run.start_step
        self._flushed = time.monotonic()
        self._try(self._open)

    def write(self, kind: str, step: int, numbers: dict[str, float]) -> None:
        """Write numbers by their tags, whatever the kind of their row."""
        if self._writer is not None and numbers:
            self._step = step
            self._try(lambda: self._write(step, numbers))

    def close(self, result: Mapping[str, float] | None) -> None:
        """Write the result of a finished run; flush and close the file."""
        if self._writer is not None and result:
            self._try(lambda: self._write_result(result))
        if self._writer is not None:
            self._try(self._writer.close)

    def _try(self, write: Callable[[], Any]) -> None:
        try:
            write()
        except Exception as error:
            self._writer = None
            reason = getattr(error, "strerror", None) or describe(error)
            self._say(f"{self._directory} cannot be written: {reason}; the run goes on without TensorBoard")

    def _open(self) -> None:
        from tensorboardX.event_file_writer import EventsWriter
        from tensorboardX.proto import event_pb2

        self._messages: Any = event_pb2  # its classes exist only once it is imported
        is_new = not any(self._directory.glob("events*"))
        self._directory.mkdir(parents=True, exist_ok=True)
        self._writer = EventsWriter(str(self._directory / "events"), f".{os.getpid()}")
        start = self._messages.SessionLog(status=self._messages.SessionLog.START)
        purge_step = self._run.start_step + 1
        self._writer.write_event(self._messages.Event(wall_time=time.time(), step=purge_step, session_log=start))
        if is_new:
            self._write_configuration()

    def _write_configuration(self) -> None:
        from tensorboardX.summary import text

        rows = [f"|{key}|{value}|" for key, value in self._run.settings_as_text.items()]
        table = "\n".join(["|key|value|", "|---|---|", *rows])
        event = self._messages.Event(wall_time=time.time(), step=0, summary=text("configuration", table))
        self._writer.write_event(event)

    def _write(self, step: int, numbers: Mapping[str, float]) -> None:
        event = self._messages.Event(wall_time=time.time(), step=step)
        for tag, number in numbers.items():
            event.summary.value.add(tag=tag, simple_value=number)
        self._writer.write_event(event)
        if time.monotonic() - self._flushed > SECONDS_BETWEEN_FLUSHES:
            self._flushed = time.monotonic()
            self._writer.flush()

    def _write_result(self, result: Mapping[str, float]) -> None:
        from tensorboardX.summary import hparams

        self._write(self._step, result)
        settings = self._run.settings
        scalars = {key: value for key, value in settings.items() if isinstance(value, bool | int | float)}
        for summary in hparams(self._run.settings_as_text | scalars, dict(result)):
            self._writer.write_event(self._messages.Event(wall_time=time.time(), summary=summary))
