"""Runs that have not ended, and how far they are; no leaderboard, verdict or test includes them."""

from collections.abc import Mapping, Sequence
from typing import Any

from imagenet_repro.config.run import AnyConfig
from imagenet_repro.report.records import Comparison, RunningRun
from imagenet_repro.report.result_table import quantity, seconds
from imagenet_repro.report.tables import MISSING, Table
from imagenet_repro.storage.workdir import Workdir

TITLE = "Runs that have not ended"
HEADINGS = (
    "system", "seed", "state", "budget", "done %", "images seen", "training seconds", "loss", "top-1 error %",
    "top-5 error %", "evaluated at %",
)  # fmt: skip
MOST_NAMED = 3  # runs in a sentence


def describe(
    workdir: Workdir, name: str, config: AnyConfig, settings: Mapping[str, Any], rows: Sequence[dict[str, Any]]
) -> RunningRun:
    """Return the record of a run that has not ended.

    Args:
      workdir: the run's directory.
      name: the system's name.
      config: the run's configuration.
      settings: those that may change the system's numbers.
      rows: those of its log so far.
    """
    return RunningRun(
        name=name,
        network=config.system_name,
        path=workdir.path,
        seed=config.seed,
        budget=config.budget,
        settings=settings,
        rows=rows,
        is_active=workdir.is_locked,
    )


def table(runs: Sequence[RunningRun]) -> Table | None:
    """Return a row for each run that has not ended; None if there is none."""
    if not runs:
        return None
    caption = (
        "Provisional. No number of these runs is in the leaderboard, the verdict or a test; their curves are beside"
        " those of finished runs. The errors are of the last evaluation, on the split that is evaluated in training. A"
        " run that is stopped has no process; the command that started it continues it."
    )
    return Table("running", HEADINGS, tuple(map(_cells, runs)), caption)


def sentence(comparison: Comparison) -> str:
    """Return a sentence about the runs that are left out of a verdict because they have not ended."""
    runs = comparison.running
    if not runs:
        return ""
    n_all = len(runs) + sum(len(system.runs) for system in comparison.systems)
    named = [f"{run.name}, seed {run.seed}: {run.state}" for run in runs[:MOST_NAMED]]
    more = f"; and {len(runs) - MOST_NAMED} more" if len(runs) > MOST_NAMED else ""
    verb = "has" if len(runs) == 1 else "have"
    left_out = f"{len(runs)} of {n_all} runs {verb} not ended and {verb} no part in it"
    return f"Provisional: {left_out} ({'; '.join(named)}{more})."


def _cells(run: RunningRun) -> tuple[str, ...]:
    last, evaluated = (_last(run.rows, kind) for kind in ("train", "eval"))
    return (
        run.name,
        str(run.seed),
        "running" if run.is_active else "stopped",
        run.budget,
        f"{100 * run.progress:.1f}",
        _cell(last.get("images"), quantity),
        _cell(last.get("seconds"), seconds),
        _cell(last.get("loss"), lambda value: f"{value:.3f}"),
        *(_cell(evaluated.get(key), lambda value: f"{100 * value:.1f}") for key in ("top1_error", "top5_error")),
        _cell(evaluated.get("progress"), lambda value: f"{100 * value:.1f}"),
    )


def _last(rows: Sequence[Mapping[str, Any]], kind: str) -> Mapping[str, Any]:
    return next((row for row in reversed(rows) if row.get("kind") == kind), {})


def _cell(value: Any, write: Any) -> str:
    return MISSING if value is None else write(value)
