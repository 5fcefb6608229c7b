"""Progress of a sweep: a line for each active run, a table of the systems, and the time left."""

import dataclasses
import functools
import json
import math
import statistics
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from rich.console import Console, Group
from rich.text import Text

from imagenet_repro.config import crossing
from imagenet_repro.report import energy
from imagenet_repro.report.result_table import FILE_WIDTH
from imagenet_repro.scoring import terminal
from imagenet_repro.storage import files
from imagenet_repro.storage.workdir import RESULT
from imagenet_repro.sweeps.attempts import Loss
from imagenet_repro.sweeps.plan import PlannedRun
from imagenet_repro.sweeps.queue import RunStatus
from imagenet_repro.training.log import METRICS, last_training_row

OUTPUT = "output.log"  # the output of a run's process, in the run's workdir
SHOWN = {"top1_error", "images_per_second"}  # in the line of an active run, beside what every training row has
MOST_LOSSES = 10  # lines about lost workers in one view
STATES = ("waiting", "running", "complete", "failed")


@dataclasses.dataclass(frozen=True)
class SweepStatus:
    """The progress of a sweep at one moment.

    Attributes:
      runs: the status of every run, in the order of the plan.
      directory: the sweep's directory.
    """

    runs: Sequence[RunStatus]
    directory: Path

    def count(self, state: str) -> int:
        """Return the number of runs in a state."""
        return sum(run.state == state for run in self.runs)

    @property
    def is_finished(self) -> bool:
        """Whether no run waits or is active."""
        return not self.count("waiting") and not self.count("running")

    def summary(self, workers: int) -> str:
        """Return one sentence about the whole sweep for a person.

        Args:
          workers: the number of workers that share the remaining runs.
        """
        parts = [f"{self.count('complete')} of {len(self.runs)} runs complete"]
        parts += [f"{self.count(state)} {state}" for state in ("running", "failed") if self.count(state)]
        seconds_left = self.seconds_left(workers)
        if not self.is_finished and math.isfinite(seconds_left):
            parts.append(f"about {terminal.duration(seconds_left)} left")
        return ", ".join(parts)

    def seconds_left(self, workers: int) -> float:
        """Estimate the seconds left; infinite if no run is complete.

        A run is expected to take the mean time of its own system's runs: of complete ones, or else of active ones,
        whose time so far is divided by their progress; or the mean of all systems if its own has none yet. Trials and
        final runs of each budget are averaged separately once all kinds have been seen. Workers share the runs, but
        none ends before the longest run has.
        """
        if all(run.seconds is None for run in self.runs):
            return math.inf
        means = self._mean_seconds()
        left = []
        for run in self.runs:
            if run.state in ("waiting", "running"):
                progress = self._progress(run) if run.state == "running" else 0.0
                expected = next(means[group] for group in _duration_groups(run.planned) if group in means)
                left.append((1 - progress) * expected)
        return max(sum(left) / max(1, workers), max(left, default=0.0))

    def _mean_seconds(self) -> dict[tuple, float]:
        """Return the mean seconds of a run by group; active runs count in groups without a complete one."""
        complete: dict[tuple, list[float]] = {}
        active: dict[tuple, list[float]] = {}
        for run in self.runs:
            expected = self._expected_seconds(run) if run.seconds is None else None
            for group in _duration_groups(run.planned):
                if run.seconds is not None:
                    complete.setdefault(group, []).append(run.seconds)
                elif expected is not None and group[:1] not in (("any",), ()):
                    active.setdefault(group, []).append(expected)
        return {group: statistics.fmean(seconds) for group, seconds in (active | complete).items()}

    def _expected_seconds(self, run: RunStatus) -> float | None:
        """Return the seconds that an active run takes at its own pace; None if it has none yet."""
        row = self._last_rows.get(run.planned.name)
        return row["seconds"] / row["progress"] if row and row["progress"] and row.get("seconds") else None

    @functools.cached_property
    def _last_rows(self) -> dict[str, dict[str, Any] | None]:
        """The last training row of each active run by the run's name."""
        names = [run.planned.name for run in self.runs if run.state == "running"]
        return {name: last_training_row(self.directory / name / METRICS) for name in names}

    def _progress(self, run: RunStatus) -> float:
        row = self._last_rows[run.planned.name]
        return row["progress"] if row else 0.0

    def active_lines(self) -> Iterator[str]:
        """Yield a line for each active run."""
        for run in self.runs:
            if run.state == "running":
                yield f"{run.worker}  {run.planned.name}  {self._progress_text(run)}"

    def _progress_text(self, run: RunStatus) -> str:
        row = self._last_rows[run.planned.name]
        if row is None or not row.keys() >= SHOWN:
            return _last_line(self.directory / run.planned.name / OUTPUT)
        progress = row["progress"]
        seconds_left = row["seconds"] * (1 - progress) / progress if progress else 0.0
        time_left = f"{terminal.duration(seconds_left)} left" if progress else "time left unknown"
        return (
            f"{100 * progress:5.1f} %  loss {row['loss']:.3f}  top-1 error {100 * row['top1_error']:.1f} %"
            f"  {row['images_per_second']:,.0f} images/s  {time_left}"
        )


def _duration_groups(planned: PlannedRun) -> tuple[tuple, ...]:
    """Return the groups of runs whose mean time predicts that of a run, the most similar group first."""
    kind = (planned.is_trial, planned.budget)
    return (planned.system, *kind), ("any", *kind), (planned.system,), ()


def _last_line(output: Path) -> str:
    """Return the last line that a run printed before its first step, such as that it compiles."""
    lines = (line.decode(errors="replace").strip() for line in files.lines_from_end(output))
    return next(filter(None, lines), "starting")


def describe_loss(run: RunStatus, loss: Loss) -> str:
    """Return one line: which worker was lost, and which one continues its run, from which step."""
    lost = f"worker {loss.worker or 'unknown'} {loss.reason}"
    if not loss.successor:
        return f"{lost}; {run.planned.name} waits for a worker"
    verb = "continues" if run.state == "running" and loss == run.losses[-1] else "continued"
    start = f"from step {loss.step:,}" if loss.step else "from its beginning"
    successor = "the same worker" if "process" in loss.reason else "its successor"
    name = successor if loss.successor == loss.worker else f"worker {loss.successor}"
    return f"{lost}; {name} {verb} {run.planned.name} {start}"


def describe_energy(status: SweepStatus) -> str:
    """Return a line on the energy of the complete runs; empty if none is complete."""
    paths = [status.directory / run.planned.name / RESULT for run in status.runs if run.state == "complete"]
    return energy.describe_sum([_read_result(path) for path in paths]) if paths else ""


def _read_result(path: Path) -> Mapping[str, Any]:
    """Return a result as far as it can be read; a trial that diverged has none."""
    try:
        result = json.loads(path.read_bytes())
    except (OSError, ValueError, RecursionError):
        return {}
    return result if isinstance(result, dict) else {}


def live_view(status: SweepStatus, workers: int) -> Group:
    """Return the view of a running sweep for a terminal: the active runs and the summary."""
    return Group(*(Text(line) for line in status.active_lines()), Text(status.summary(workers), style="bold"))


def print_status(status: SweepStatus, workers: int, console: Console | None = None) -> None:
    """Print the table of the systems, the failures, a line for each active run, the energy and the summary."""
    console = console or Console(highlight=False, emoji=False)
    terminal.widen_for_file(console, FILE_WIDTH)
    headings, rows = ["system", *STATES, "lowest error %", "selected settings"], table_rows(status.runs)
    if not any(row[-1] for row in rows):
        headings, rows = headings[:-1], [row[:-1] for row in rows]
    console.print(terminal.ruled_table(headings, rows, left=(0, len(STATES) + 2)))
    for run in status.runs:
        if run.state == "failed":
            console.print(f"{run.planned.name} failed: {run.reason}", soft_wrap=True, markup=False)
    for line in _describe_losses(status):
        console.print(line, soft_wrap=True, markup=False)
    for line in filter(None, (*status.active_lines(), describe_energy(status), status.summary(workers))):
        console.print(line, soft_wrap=True, markup=False)


def _describe_losses(status: SweepStatus) -> list[str]:
    """Return a line for each of the last lost workers of runs that have not ended, and one on how many more there are.

    Of a complete run, they are of no more interest.
    """
    lines = [describe_loss(run, loss) for run in status.runs if run.state != "complete" for loss in run.losses]
    more = len(lines) - MOST_LOSSES
    return [*lines[-MOST_LOSSES:], *([f"and {more} such lines more"] if more > 0 else [])]


def table_rows(runs: Sequence[RunStatus]) -> list[list[str]]:
    """Return a row for each system's search and one for its final runs.

    The cells are the name, the number of runs in each of STATES, the lowest value in percent, and its settings.
    """
    rows = []
    for system in dict.fromkeys(run.planned.system for run in runs):
        for is_trial in (True, False):
            group = [run for run in runs if run.planned.system == system and run.planned.is_trial is is_trial]
            if group:
                name = crossing.title(system)
                rows.append(_table_row(f"{name} (search)" if is_trial else name, group))
    return rows


def _table_row(name: str, runs: Sequence[RunStatus]) -> list[str]:
    counts = [str(sum(run.state == state for run in runs)) for state in STATES]
    values = [(run.value, run.settings) for run in runs if run.value is not None]
    if not values:
        return [name, *counts, "", ""]
    value, settings = min(values, key=lambda pair: pair[0])
    return [name, *counts, f"{100 * value:.2f}", format_settings(settings or {})]


def count_workers(workers: int) -> str:
    """Return a number of workers as text, such as "1 worker" or "4 workers"."""
    return f"{workers} worker{'' if workers == 1 else 's'}"


def format_settings(settings: Mapping[str, Any]) -> str:
    """Return searched values as text, such as "optimizer.learning_rate=0.01, batch_size=64"."""
    return ", ".join(f"{k}={v:.3g}" if isinstance(v, float) else f"{k}={v}" for k, v in settings.items())
