"""The log of a run: `metrics.jsonl`, trackers such as TensorBoard, and lines on the screen.

Rows of `metrics.jsonl` have a `kind`: "train" (means over the steps since the last such row), "eval", "save", "event".
When a run resumes, rows beyond the restored step are dropped, so the file always describes one sequence of steps. The
file is then replaced as a whole, or not at all. Lines that no run writes stay in the file; no reader uses them.
"""

import contextlib
import functools
import json
import math
import os
import sys
import time
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any, BinaryIO

import jax
from rich.console import Console
from rich.progress import BarColumn, Progress, TextColumn

from imagenet_repro.config import TrainedConfig
from imagenet_repro.errors import SaveError
from imagenet_repro.scoring import terminal
from imagenet_repro.storage import files
from imagenet_repro.training.trackers import TrackedRun, Trackers

METRICS = "metrics.jsonl"
SECONDS_BETWEEN_LINES = 10.0  # where the output is a file and not a terminal
SECONDS_BETWEEN_UPDATES = 1.0  # of the bar on a terminal
NAMED_LINES = 5  # the most line numbers in a message

KINDS = ("train", "eval", "save", "event")
LEFT_OUT = "left_out"  # the event of a record that cannot be decoded, with its `index` in the split and its `image`
# All values but the kind are numbers, except in events; amounts are finite, and training rows have these.
NUMBERS_OF_TRAINING = {"progress", "seconds", "loss"}
AMOUNTS = ("images", "epochs", "flops", "seconds", "progress")

_named: set[tuple[Path, tuple[int, ...]]] = set()  # the damaged lines that this process has named


def read_rows(path: Path, say: Callable[[str], None] = print) -> list[dict[str, Any]]:
    """Return the rows of a `metrics.jsonl`; a file that is missing has none.

    A last line that a kill cut short is left out. Other lines that no run writes are left out and named, once in a
    process.

    Args:
      path: the file.
      say: called with one line about damaged lines, or about a file that cannot be read.
    """
    return LogReader(path).rows(say)


class LogReader:
    """Reads a `metrics.jsonl` that grows, each line once.

    A run that resumes replaces the file; it is then read from its beginning.

    Args:
      path: the file.
    """

    def __init__(self, path: Path):
        self._path = path
        self._forget(None)

    def _forget(self, identity: tuple[int, int] | None) -> None:
        self._identity = identity  # of the file that was read: its device and inode
        self._offset = self._n_lines = 0
        self._last_line = b""  # with its end, before the offset
        self._rows: list[dict[str, Any]] = []

    def rows(self, say: Callable[[str], None] = print) -> list[dict[str, Any]]:
        """Return all rows as `read_rows` does, but read only new ones from the file.

        Args:
          say: as for `read_rows`; a line is named when it is first read.
        """
        try:
            with self._path.open("rb") as file:
                new = self._read_new(file)
        except FileNotFoundError:
            self._forget(None)
            return []
        except OSError as error:
            say(f"{self._path} cannot be read: {error.strerror}; the run is shown without its curves")
            return []
        *lines, rest = new.split(b"\n")
        parsed = [_parse_row(line) for line in lines]
        numbered = enumerate(zip(lines, parsed, strict=True), self._n_lines + 1)
        _name_lines(self._path, [number for number, (line, row) in numbered if line and not row], say)
        self._rows += [row for row in parsed if row]
        self._n_lines += len(lines)
        self._offset += len(new) - len(rest)
        self._last_line = lines[-1] + b"\n" if lines else self._last_line
        last = _parse_row(rest)  # the end of its line may be on its way
        return [*self._rows, last] if last else list(self._rows)

    def _read_new(self, file: BinaryIO) -> bytes:
        """Return what follows the lines that were read before; all of it if the file is another one."""
        status = os.fstat(file.fileno())
        identity = status.st_dev, status.st_ino
        if identity == self._identity and status.st_size >= self._offset:
            file.seek(self._offset - len(self._last_line))
            content = file.read()
            if content.startswith(self._last_line):  # inodes are used again
                return content[len(self._last_line) :]
        self._forget(identity)
        file.seek(0)
        return file.read()


def last_training_row(path: Path) -> dict[str, Any] | None:
    """Return the last training row of a `metrics.jsonl`, read from its end; None if there is none or no such file.

    Damaged lines are passed over. A log that cannot be read counts as empty.
    """
    try:
        rows = map(_parse_row, files.lines_from_end(path))
        return next((row for row in rows if row and row["kind"] == "train"), None)
    except OSError:
        return None


def left_out(path: Path, step: int) -> set[int]:
    """Return the indices of the records that a run could not decode in training up to a step, from its log."""
    rows = [row for row in read_rows(path) if row.get("event") == LEFT_OUT and row["step"] <= step]
    return {row["index"] for row in rows if type(row.get("index")) is int}


def _parse_row(line: bytes) -> dict[str, Any] | None:
    """Return the row in a line, or None if it is not a row that a run writes."""
    try:
        row = json.loads(line.decode())
        if isinstance(row, dict) and _is_row(row):
            # A key is kept once for all rows and runs: every row has its own copies of them otherwise.
            return {sys.intern(key): value for key, value in row.items()}
    except (ValueError, RecursionError):
        pass
    return None


def _is_row(row: dict[str, Any]) -> bool:
    kind, step = row.get("kind"), row.get("step")
    if kind not in KINDS or type(step) is not int or not 0 <= step < 2**63:
        return False
    if kind == "train" and not row.keys() >= NUMBERS_OF_TRAINING:
        return False
    numbers = [value for key, value in row.items() if key in AMOUNTS or (kind != "event" and key != "kind")]
    return all(map(_is_number, numbers)) and all(math.isfinite(row[key]) for key in AMOUNTS if key in row)


def _is_number(value: Any) -> bool:
    """Return whether a JSON value is a number that a float can hold, or NaN or infinite."""
    return isinstance(value, float) or (isinstance(value, int) and not isinstance(value, bool) and abs(value) < 2**63)


def _name_lines(path: Path, numbers: list[int], say: Callable[[str], None]) -> None:
    if not numbers or (path, tuple(numbers)) in _named:
        return
    _named.add((path, tuple(numbers)))
    shown = ", ".join(map(str, numbers[:NAMED_LINES]))
    more = f" and {len(numbers) - NAMED_LINES:,} more" if len(numbers) > NAMED_LINES else ""
    lines, verb = ("line", "is") if len(numbers) == 1 else ("lines", "are")
    say(f"{path}: {lines} {shown}{more} {verb} damaged and left out")


class Screen:
    """The output of a run on the screen; only the first of several processes shows it."""

    def __init__(self):
        self._primary = jax.process_index() == 0
        self._console = Console(highlight=False, quiet=not self._primary)
        self._bar: Progress | None = None
        self._last_shown = -math.inf
        if self._primary and self._console.is_terminal:
            columns = (BarColumn(24), TextColumn("{task.description}"))
            self._bar = Progress(*columns, console=self._console, auto_refresh=False)
            self._task = self._bar.add_task("", total=1.0)
            self._bar.start()

    def say(self, text: str) -> None:
        """Print one line."""
        self._console.print(text, soft_wrap=True, markup=False)

    @contextlib.contextmanager
    def stage(self, name: str, *, announce: bool = True) -> Iterator[None]:
        """Show what the run does until the block ends, and for how long: beside the bar, or as lines of a file.

        Args:
          name: of the stage.
          announce: whether a file gets a line when the stage begins, and not only while it lasts.
        """
        if not self._primary:
            yield
            return
        show, interval = (self._describe, terminal.TICK) if self._bar else (self.say, terminal.LINE_INTERVAL)
        with terminal.repeat_stage(show, interval, announce=announce or self._bar is not None) as begin:
            begin(name)
            yield

    @property
    def is_due(self) -> bool:
        """Whether the progress of the run has not been shown for some seconds."""
        interval = SECONDS_BETWEEN_UPDATES if self._bar else SECONDS_BETWEEN_LINES
        return self._primary and time.monotonic() - self._last_shown >= interval

    def show(self, progress: float, text: str) -> None:
        """Show the progress of the run: as a bar on a terminal, or as occasional lines in a file."""
        if self._bar is not None:
            self._bar.update(self._task, completed=progress)
            self._describe(text)
        elif self.is_due:
            self.say(text)
        else:
            return
        self._last_shown = time.monotonic()

    def _describe(self, text: str) -> None:
        if self._bar is not None:
            self._bar.update(self._task, description=text, refresh=True)

    def close(self) -> None:
        """Remove the progress bar."""
        if self._bar is not None:
            self._bar.stop()


class RunLog(Screen):
    """The log of one process; only the first of several writes.

    Args:
      workdir: the directory of `metrics.jsonl`.
      start_step: the step from which the run starts; later rows are dropped.
      config: of the run, whose `log.to` names its trackers.

    Raises:
      SaveError: a file cannot be written.
    """

    def __init__(self, workdir: Path, start_step: int, config: TrainedConfig):
        super().__init__()
        self._path = workdir / METRICS
        if self._primary:
            rows = self._drop_rows(start_step)
            try:
                self._file = self._path.open("ab", buffering=0)  # a failed write leaves nothing that fails again
            except OSError as error:
                raise self._failed(error) from error
            run = TrackedRun(workdir, start_step, config)
            self._trackers = Trackers(run, rows, self.say, functools.partial(self.stage, announce=False))

    def _drop_rows(self, start_step: int) -> list[dict[str, Any]]:
        """Replace the file by one without rows beyond a step and without a last line that was cut short.

        Returns:
          The rows of the file as it was.
        """
        if not self._path.exists():
            if start_step:
                self.say(f"{self._path} is missing; its rows up to step {start_step:,} are lost")
            return []
        rows = read_rows(self._path, self.say)
        try:
            content = self._path.read_bytes()
        except OSError as error:
            raise self._failed(error) from error
        *lines, last = content.split(b"\n")
        lines += [last] if _parse_row(last) else []
        kept = [line for line in lines if not (row := _parse_row(line)) or row["step"] <= start_step]
        new = b"".join(line + b"\n" for line in kept)
        if new != content:
            with files.atomic_write(self._path, "the log of the run") as file:
                file.write(new)
        return rows

    def write(self, kind: str, step: int, **values: Any) -> None:
        """Append a row, and pass its finite numbers to the trackers under `kind/`.

        Raises:
          SaveError: the row cannot be written.
        """
        if not self._primary:
            return
        line = json.dumps({"kind": kind, "step": step, **values}).encode() + b"\n"
        try:
            written = self._file.write(line)
        except OSError as error:
            raise self._failed(error) from error
        if written != len(line):
            raise self._failed(OSError(0, "the disk is full"))
        self._trackers.write(kind, step, values)

    def finish(self, result: Mapping[str, Any]) -> None:
        """Pass the result of a finished run to the trackers, which record its numbers when the log is closed."""
        if self._primary:
            self._trackers.finish(result)

    def _failed(self, error: OSError) -> SaveError:
        return SaveError(
            f"{self._path} cannot be written: {error.strerror}; fix the cause (free space, permissions) and run the"
            " same command again"
        )

    def close(self) -> None:
        """Flush and close the trackers, the file and the screen."""
        try:
            if self._primary:
                self._file.close()
                with self.stage("writing to the trackers", announce=False):
                    self._trackers.close()
        finally:
            super().close()
