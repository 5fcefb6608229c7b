"""Cost of a sweep (`main.py sweep --dry_run`): its runs, and their cost, measured on one or a few steps of each."""

import dataclasses
import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Mapping
from typing import Any

from rich.console import Console
from rich.table import Table

from imagenet_repro.config import AnyConfig, config_to_dict
from imagenet_repro.config.amount import Amount
from imagenet_repro.config.sweep import SweepConfig
from imagenet_repro.errors import EXIT_FINISHED, EXIT_USER_ERROR
from imagenet_repro.report.text import quantity
from imagenet_repro.scoring.terminal import ruled_table
from imagenet_repro.sweeps.launch import Launcher
from imagenet_repro.sweeps.plan import PlannedRun, plan_runs
from imagenet_repro.sweeps.status import count_workers, format_settings
from imagenet_repro.sweeps.worker import python_path

# images, TFLOP, compile, train and memory are those of one final run; total time is that of all runs of the system.
HEADINGS = ("system", "runs", "images", "TFLOP", "compile", "train", "memory", "total time")


def print_cost(sweep: SweepConfig, configs: Mapping[str, AnyConfig], launcher: Launcher, workers: int) -> int:
    """Print the runs of a sweep and their cost without starting any, and return the exit code.

    Args:
      sweep: the sweep.
      configs: one configuration of each system.
      launcher: the launcher that would start the workers.
      workers: the number of workers.
    """
    planned_runs, console = plan_runs(sweep), Console(highlight=False, emoji=False)
    for planned in planned_runs:
        console.print(_line(planned), markup=False, soft_wrap=True)
    workers = min(workers, len(planned_runs))
    heading = f"\n{len(planned_runs)} runs by {count_workers(workers)} on {launcher.description}"
    console.print(heading, markup=False, soft_wrap=True)
    console.print("measuring one or a few steps of each system on this machine:", markup=False)
    costs = {}
    for system, config in configs.items():
        console.print(f"  {system} …", markup=False)
        costs[system] = _measure(dataclasses.replace(config, budget=sweep.budget))  # the cost of a final run
    console.print(_table(sweep, planned_runs, costs))
    for system, system_cost in costs.items():
        if isinstance(system_cost, str):
            console.print(f"{system}: {system_cost}", markup=False, soft_wrap=True)
    console.print(_total(sweep, planned_runs, costs, workers), markup=False, soft_wrap=True)
    return EXIT_FINISHED


def _line(planned: PlannedRun) -> str:
    if planned.settings is None:
        return f"{planned.name}  {'settings from the sampler' if planned.is_trial else 'selected settings'}"
    return f"{planned.name}  {format_settings(planned.settings)}".rstrip()


def _measure(config: AnyConfig) -> dict[str, Any] | str:
    """Return the measurements of `runs/estimate_cost.py` taken in a separate process, or its error message."""
    with tempfile.NamedTemporaryFile("w", encoding="utf-8", suffix=".json") as file:
        json.dump(config_to_dict(config), file)
        file.flush()
        command = [sys.executable, "-m", "imagenet_repro.runs.estimate_cost", file.name]
        environment = os.environ | {"PYTHONPATH": python_path()}
        estimate = subprocess.run(
            command, capture_output=True, encoding="utf-8", errors="replace", check=False, env=environment
        )
    lines = estimate.stdout.strip().splitlines()
    if estimate.returncode == 0 and lines:
        return json.loads(lines[-1])
    separator = (
        "\n\n" if estimate.returncode == EXIT_USER_ERROR else "\n"
    )  # a message, or the last line of a traceback
    return estimate.stderr.strip().split(separator)[-1] or f"ended with exit code {estimate.returncode}"


def budget_fraction(sweep: SweepConfig, planned: PlannedRun) -> float:
    """Return the budget of a run as a fraction of a final run's; 1 if the units differ."""
    budget = planned.budget or (sweep.search.budget if planned.is_trial else "")
    if not budget:
        return 1.0
    final, trial = Amount.parse(sweep.budget), Amount.parse(budget)
    return trial.value / final.value if final.unit == trial.unit else 1.0


def _table(sweep: SweepConfig, planned_runs: list[PlannedRun], costs: Mapping[str, Any]) -> Table:
    rows = []
    for system, cost in costs.items():
        runs = [planned for planned in planned_runs if planned.system == system]
        is_measured = not isinstance(cost, str)
        cells = [system, str(len(runs)), *(_cells(cost) if is_measured else [""] * 5)]
        total_time = _format_time(_seconds(sweep, runs, cost)) if is_measured else ""
        rows.append([*cells, total_time])
    return ruled_table(HEADINGS, rows, one_line=range(1, len(HEADINGS)))


def _cells(cost: Mapping[str, Any]) -> list[str]:
    memory = f"{cost['peak_memory']['bytes'] / 2**30:.1f} GiB"
    tera_flops = f"{cost['flops'] / 1e12:,.1f}"
    times = [_format_time(cost["compilation_seconds"]), _format_time(cost["seconds"])]
    return [quantity(cost["images"]), tera_flops, *times, memory]


def _format_time(seconds: float) -> str:
    """Return a time in the largest unit in which it is at least one."""
    unit, size = next(((u, s) for u, s in (("h", 3600), ("min", 60)) if seconds >= s), ("s", 1))
    return f"{seconds / size:,.1f} {unit}"


def _seconds(sweep: SweepConfig, runs: list[PlannedRun], cost: Mapping[str, Any]) -> float:
    return sum(budget_fraction(sweep, planned) * cost["seconds"] + cost["compilation_seconds"] for planned in runs)


def _total(sweep: SweepConfig, planned_runs: list[PlannedRun], costs: Mapping[str, Any], workers: int) -> str:
    """Return a sentence about the cost of all runs whose system could be measured."""
    measured = {system: cost for system, cost in costs.items() if not isinstance(cost, str)}
    if not measured:
        return "no system could be measured"
    runs = {system: [planned for planned in planned_runs if planned.system == system] for system in measured}
    hours = sum(_seconds(sweep, runs[system], cost) for system, cost in measured.items()) / 3600
    images, flops = (
        sum(
            budget_fraction(sweep, planned) * cost[key]
            for system, cost in measured.items()
            for planned in runs[system]
        )
        for key in ("images", "flops")
    )
    device = next(iter(measured.values()))["device"]
    unmeasured = [system for system in costs if system not in measured]
    without = f", without {', '.join(unmeasured)}" if unmeasured else ""
    return (
        f"total: {quantity(images)} images, {flops / 1e15:,.2f} PFLOP, {hours:,.1f} hours on {device}{without};"
        f" {hours / workers:,.1f} hours with {count_workers(workers)} on one such device each."
        " Reading images, evaluation and checkpoints are not included"
    )
