"""How far a sweep is: a line for each worker, a table of the systems, and the time that is left."""

import dataclasses
import math
import statistics
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from rich import box
from rich.console import Console, Group
from rich.table import Table
from rich.text import Text

from imagenet_repro.report.result_table import FILE_WIDTH
from imagenet_repro.sweeps.plan import PlannedRun
from imagenet_repro.sweeps.queue import RunStatus
from imagenet_repro.training.log import METRICS, duration, read_rows

OUTPUT = "output.log"  # in a training's workdir, all that it says
STATES = ("waiting", "running", "complete", "failed")


@dataclasses.dataclass(frozen=True)
class SweepStatus:
    """What is known of a sweep at one moment.

    Attributes:
      entries: of all trainings, in the order of the plan.
      directory: of the sweep.
    """

    entries: Sequence[RunStatus]
    directory: Path

    def count(self, state: str) -> int:
        """How many trainings are in a state."""
        return sum(one.state == state for one in self.entries)

    @property
    def done(self) -> bool:
        """Whether nothing waits or runs."""
        return not self.count("waiting") and not self.count("running")

    def sentence(self, workers: int) -> str:
        """Where the sweep stands as a whole, for a person."""
        parts = [f"{self.count('complete')} of {len(self.entries)} trainings complete"]
        parts += [f"{self.count(state)} {state}" for state in ("running", "failed") if self.count(state)]
        left = self.seconds_left(workers)
        if not self.done and math.isfinite(left):
            parts.append(f"about {duration(left)} left")
        return ", ".join(parts)

    def seconds_left(self, workers: int) -> float:
        """From what complete trainings took: each system's own, or the mean where there is none yet.

        Trials and runs, whose budgets may differ, are told apart once both have been seen.
        """
        took: dict[tuple, list[float]] = {}
        for one in self.entries:
            for alike in _alike(one.planned) if one.seconds is not None else ():
                took.setdefault(alike, []).append(one.seconds)
        if not took:
            return math.inf
        usual = {alike: statistics.fmean(each) for alike, each in took.items()}
        left = 0.0
        for one in self.entries:
            if one.state in ("waiting", "running"):
                share = self._progress(one) if one.state == "running" else 0.0
                left += (1 - share) * next(usual[alike] for alike in _alike(one.planned) if alike in usual)
        return left / max(1, workers)

    def _progress(self, entry: RunStatus) -> float:
        row = _last_row(self.directory / entry.planned.name)
        return row["progress"] if row else 0.0

    def lines(self) -> Iterator[str]:
        """One for each training that runs."""
        for one in self.entries:
            if one.state == "running":
                yield f"{one.worker}  {one.planned.name}  {self._where(one)}"

    def _where(self, entry: RunStatus) -> str:
        run = self.directory / entry.planned.name
        row = _last_row(run)
        if row is None:
            return _last_line(run / OUTPUT)
        left = row["seconds"] * (1 - row["progress"]) / row["progress"] if row["progress"] else math.inf
        return (
            f"{100 * row['progress']:5.1f} %  loss {row['loss']:.3f}  top-1 err {100 * row['top1_error']:.1f} %"
            f"  {row['images_per_second']:,.0f} img/s  {duration(left)} left"
        )


def _alike(planned: PlannedRun) -> tuple[tuple, ...]:
    """Names of the groups that tell how long a training takes, the nearest first."""
    return (planned.system, planned.is_trial), ("any", planned.is_trial), (planned.system,), ()


def _last_row(run: Path) -> dict | None:
    rows = [row for row in read_rows(run / METRICS) if row.get("kind") == "train"]
    return rows[-1] if rows else None


def _last_line(output: Path) -> str:
    """What a training says before its first step: that it compiles, or which stage of its features it is at."""
    lines = output.read_text(errors="replace").split("\n") if output.exists() else []
    return next((line.strip() for line in reversed(lines) if line.strip()), "starting")


def screen(status: SweepStatus, workers: int) -> Group:
    """What a terminal shows while a sweep runs."""
    return Group(*(Text(line) for line in status.lines()), Text(status.sentence(workers), style="bold"))


def show(status: SweepStatus, workers: int, console: Console | None = None) -> None:
    """Prints the table of the systems, failures, and a line for each training that runs."""
    console = console or Console(highlight=False, emoji=False)
    if not console.is_terminal:
        console.width = max(console.width, FILE_WIDTH)
    table = Table(box=box.SIMPLE_HEAD, pad_edge=False, padding=(0, 1, 0, 0), show_edge=False)
    for number, heading in enumerate(("system", *STATES, "lowest error %", "selected settings")):
        table.add_column(heading, justify="right" if 0 < number <= len(STATES) + 1 else "left", overflow="fold")
    for cells in rows(status.entries):
        table.add_row(*map(Text, cells))
    console.print(table)
    for one in status.entries:
        if one.state == "failed":
            console.print(f"{one.planned.name} failed: {one.reason}", soft_wrap=True, markup=False)
    for line in (*status.lines(), status.sentence(workers)):
        console.print(line, soft_wrap=True, markup=False)


def rows(entries: Sequence[RunStatus]) -> list[list[str]]:
    """A row for each system's search and one for its runs: name, a count for each state, lowest value, settings."""
    found = []
    for system in dict.fromkeys(one.planned.system for one in entries):
        for search in (True, False):
            some = [one for one in entries if one.planned.system == system and one.planned.is_trial is search]
            if some:
                found.append(_row(f"{system} (search)" if search else system, some))
    return found


def _row(name: str, some: Sequence[RunStatus]) -> list[str]:
    complete = [one for one in some if one.value is not None]
    best = min(complete, key=lambda one: one.value) if complete else None
    counts = [str(sum(one.state == state for one in some)) for state in STATES]
    settings = format_settings(best.settings or {}) if best else ""
    return [name, *counts, f"{100 * best.value:.2f}" if best else "", settings]


def format_settings(settings: Mapping[str, Any]) -> str:
    """Searched values, for a person."""
    return ", ".join(f"{k}={v:.3g}" if isinstance(v, float) else f"{k}={v}" for k, v in settings.items())
