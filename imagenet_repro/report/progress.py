"""Progress of a long computation on stderr: done, speed and time left, as a bar or as lines."""

import contextlib
import sys
import time
from collections.abc import Callable, Iterator

from rich.console import Console
from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    Progress,
    ProgressColumn,
    Task,
    TextColumn,
    TimeRemainingColumn,
)
from rich.text import Text

LINE_SECONDS = 30.0  # between two lines where stderr is not a terminal


class _SpeedColumn(ProgressColumn):
    """The speed over the last seconds."""

    def __init__(self, unit: str):
        super().__init__()
        self._unit = unit

    def render(self, task: Task) -> Text:
        """Return the speed as text."""
        return Text("" if task.speed is None else f"{task.speed:,.1f} {self._unit}/s")


@contextlib.contextmanager
def show_progress(name: str, total: int, unit: str = "images") -> Iterator[Callable[[int], None]]:
    """Yield the function to call with the number of images, or of other units, that are newly done.

    On a terminal a bar shows them; elsewhere a line appears every 30 seconds.
    """
    console = Console(stderr=True)
    if not console.is_terminal:
        yield _Lines(name, total, unit)
        return
    columns = (
        TextColumn("{task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        _SpeedColumn(unit),
        TimeRemainingColumn(),
    )
    with Progress(*columns, console=console, transient=True) as progress:
        task = progress.add_task(name, total=total)
        yield lambda done: progress.advance(task, done)


class _Lines:
    """Prints a line every 30 seconds."""

    def __init__(self, name: str, total: int, unit: str):
        self._name, self._total, self._unit = name, total, unit
        self._done, self._began = 0, time.monotonic()
        self._printed = self._began

    def __call__(self, done: int) -> None:
        self._done += done
        now = time.monotonic()
        if now - self._printed < LINE_SECONDS or not self._done:
            return
        self._printed = now
        speed = self._done / (now - self._began)
        left = (self._total - self._done) / speed
        print(
            f"{self._name}: {self._done:,} of {self._total:,} {self._unit}, {speed:,.1f} {self._unit}/s,"
            f" {left:,.0f} s left",
            file=sys.stderr,
            flush=True,
        )
