"""The log of a run: `metrics.jsonl`, TensorBoard events, and lines on the screen.

Rows of `metrics.jsonl` have a `kind`: "train" (means over the steps since the last such row), "eval", "save", "event".
When a run resumes, rows beyond the restored step are dropped, so the file always describes one sequence of steps.
"""

import json
import math
import time
from pathlib import Path
from typing import Any

import jax
from rich.console import Console
from rich.progress import BarColumn, Progress, TextColumn

METRICS = "metrics.jsonl"
SECONDS_BETWEEN_LINES = 10.0  # where the output is a file and not a terminal


def read_rows(path: Path) -> list[dict[str, Any]]:
    """Return the rows of a `metrics.jsonl`, without damaged lines, such as a last line cut short by a kill."""
    rows = []
    for line in path.read_text(errors="replace").splitlines() if path.exists() else []:
        try:
            rows.append(json.loads(line))
        except ValueError:
            continue
    return [row for row in rows if isinstance(row, dict)]


class Screen:
    """The output of a run on the screen; only the first of several processes shows it."""

    def __init__(self):
        self._primary = jax.process_index() == 0
        self._console = Console(highlight=False, quiet=not self._primary)
        self._bar: Progress | None = None
        self._last_line = 0.0
        if self._primary and self._console.is_terminal:
            columns = (BarColumn(24), TextColumn("{task.description}"))
            self._bar = Progress(*columns, console=self._console, auto_refresh=False)
            self._task = self._bar.add_task("", total=1.0)
            self._bar.start()

    def say(self, text: str) -> None:
        """Print one line."""
        self._console.print(text, soft_wrap=True, markup=False)

    def show(self, progress: float, text: str) -> None:
        """Show the progress of the run: as a bar on a terminal, or as occasional lines in a file."""
        if self._bar is not None:
            self._bar.update(self._task, completed=progress, description=text, refresh=True)
        elif time.monotonic() - self._last_line >= SECONDS_BETWEEN_LINES:
            self._last_line = time.monotonic()
            self.say(text)

    def close(self) -> None:
        """Remove the progress bar."""
        if self._bar is not None:
            self._bar.stop()


class RunLog(Screen):
    """The log of one process; only the first of several writes.

    Args:
      workdir: the directory of `metrics.jsonl` and `tensorboard/`.
      start_step: the step from which the run starts; later rows are dropped.
    """

    def __init__(self, workdir: Path, start_step: int):
        super().__init__()
        if self._primary:
            self._open(workdir, start_step)

    def _open(self, workdir: Path, start_step: int) -> None:
        from tensorboardX import SummaryWriter

        path = workdir / METRICS
        rows = [row for row in read_rows(path) if row["step"] <= start_step]
        path.write_text("".join(json.dumps(row) + "\n" for row in rows))
        self._file = path.open("a", buffering=1)
        self._events = SummaryWriter(str(workdir / "tensorboard"), purge_step=start_step + 1)

    def write(self, kind: str, step: int, **values: Any) -> None:
        """Append a row, and write its finite numbers to TensorBoard under `kind/`."""
        if not self._primary:
            return
        self._file.write(json.dumps({"kind": kind, "step": step, **values}) + "\n")
        for name, value in values.items():
            if isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value):
                self._events.add_scalar(f"{kind}/{name}", value, step)

    def close(self) -> None:
        """Flush and close the screen and the files."""
        super().close()
        if self._primary:
            self._file.close()
            self._events.close()


def duration(seconds: float) -> str:
    """Return a span of time as text, such as "3 min 20 s"."""
    if not math.isfinite(seconds):
        return "unknown"
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    if hours:
        return f"{hours} h {minutes:02d} min"
    return f"{minutes} min {rest:02d} s" if minutes else f"{rest} s"
