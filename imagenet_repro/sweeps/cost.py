"""`main.py sweep --dry_run`: what would run, where, and what it would cost, from measured steps of every system."""

import dataclasses
import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from rich import box
from rich.console import Console
from rich.table import Table
from rich.text import Text

from imagenet_repro.config import AnyConfig, config_to_dict
from imagenet_repro.config.amount import Amount
from imagenet_repro.config.sweep import SweepConfig
from imagenet_repro.errors import EXIT_FINISHED, EXIT_USER_ERROR
from imagenet_repro.report.result_table import quantity
from imagenet_repro.sweeps.launch import Launcher
from imagenet_repro.sweeps.plan import PlannedRun, plan_runs
from imagenet_repro.sweeps.status import format_settings

HEADINGS = ("system", "runs", "images", "TFLOP", "compile", "train", "memory", "all")


def show(sweep: SweepConfig, configs: Mapping[str, AnyConfig], launcher: Launcher, workers: int) -> int:
    """Prints the trainings and their cost, and starts none of them; returns the exit code.

    Args:
      sweep: what is planned.
      configs: of one training of each system.
      launcher: where workers would run.
      workers: how many.
    """
    planned, console = plan_runs(sweep), Console(highlight=False, emoji=False)
    for one in planned:
        console.print(_line(one), markup=False, soft_wrap=True)
    workers = min(workers, len(planned))
    console.print(
        f"\n{len(planned)} trainings by {workers} workers on {launcher.description}", markup=False, soft_wrap=True
    )
    console.print("a few steps of each system, on this machine:", markup=False)
    costs = {}
    for name, config in configs.items():
        console.print(f"  {name} …", markup=False)
        costs[name] = _measured(dataclasses.replace(config, budget=sweep.budget))  # of a run, not of a trial
    console.print(_table(sweep, planned, costs))
    for name, cost in costs.items():
        if isinstance(cost, str):
            console.print(f"{name}: {cost}", markup=False, soft_wrap=True)
    console.print(_sum(sweep, planned, costs, workers), markup=False, soft_wrap=True)
    return EXIT_FINISHED


def _line(one: PlannedRun) -> str:
    if one.settings is None:
        return f"{one.name}  {'as the sampler says' if one.is_trial else 'as selected'}"
    return f"{one.name}  {format_settings(one.settings)}".rstrip()


def _measured(config: AnyConfig) -> dict[str, Any] | str:
    """What `runs/probe.py` measures, or why it cannot."""
    root = str(Path(__file__).parents[2])
    environment = os.environ | {"PYTHONPATH": os.pathsep.join(filter(None, (root, os.environ.get("PYTHONPATH"))))}
    with tempfile.NamedTemporaryFile("w", suffix=".json") as file:
        json.dump(config_to_dict(config), file)
        file.flush()
        command = [sys.executable, "-m", "imagenet_repro.runs.probe", file.name]
        done = subprocess.run(command, capture_output=True, text=True, check=False, env=environment)
    lines = done.stdout.strip().splitlines()
    if done.returncode == 0 and lines:
        return json.loads(lines[-1])
    message = "\n\n" if done.returncode == EXIT_USER_ERROR else "\n"  # else a traceback's last line
    return done.stderr.strip().split(message)[-1] or f"ended with code {done.returncode}"


def _share(sweep: SweepConfig, one: PlannedRun) -> float:
    """Of a run's cost, what a trial with a budget of its own takes."""
    if not (one.is_trial and sweep.search.budget):
        return 1.0
    whole, part = Amount.parse(sweep.budget), Amount.parse(sweep.search.budget)
    return part.value / whole.value if whole.unit == part.unit else 1.0


def _table(sweep: SweepConfig, planned: list[PlannedRun], costs: Mapping[str, Any]) -> Table:
    table = Table(box=box.SIMPLE_HEAD, pad_edge=False, padding=(0, 1, 0, 0), show_edge=False)
    for number, heading in enumerate(HEADINGS):
        table.add_column(heading, justify="right" if number else "left", no_wrap=number > 0, overflow="fold")
    for name, cost in costs.items():
        trainings = [one for one in planned if one.system == name]
        cells = [name, str(len(trainings)), *([""] * 5 if isinstance(cost, str) else _cells(cost))]
        hours = "" if isinstance(cost, str) else _time(_seconds(sweep, trainings, cost))
        table.add_row(*map(Text, [*cells, hours]))
    return table


def _cells(cost: Mapping[str, Any]) -> list[str]:
    memory = f"{cost['peak_memory']['bytes'] / 2**30:.1f} GiB"
    flops = f"{cost['flops'] / 1e12:,.1f}"
    return [quantity(cost["images"]), flops, _time(cost["compilation_seconds"]), _time(cost["seconds"]), memory]


def _time(seconds: float) -> str:
    """In the largest unit that leaves a number above one."""
    unit, size = next(((u, s) for u, s in (("h", 3600), ("min", 60)) if seconds >= s), ("s", 1))
    return f"{seconds / size:,.1f} {unit}"


def _seconds(sweep: SweepConfig, trainings: list[PlannedRun], cost: Mapping[str, Any]) -> float:
    return sum(_share(sweep, one) * cost["seconds"] + cost["compilation_seconds"] for one in trainings)


def _sum(sweep: SweepConfig, planned: list[PlannedRun], costs: Mapping[str, Any], workers: int) -> str:
    known = {name: cost for name, cost in costs.items() if not isinstance(cost, str)}
    if not known:
        return "no system could be measured"
    each = {name: [one for one in planned if one.system == name] for name in known}
    seconds = sum(_seconds(sweep, each[name], cost) for name, cost in known.items())
    images, flops = (
        sum(_share(sweep, one) * cost[key] for name, cost in known.items() for one in each[name])
        for key in ("images", "flops")
    )
    device = next(iter(known.values()))["device"]
    missing = f", without {', '.join(name for name in costs if name not in known)}" if len(known) < len(costs) else ""
    return (
        f"in all {quantity(images)} images, {flops / 1e15:,.2f} PFLOP, {seconds / 3600:,.1f} hours on {device}"
        f"{missing}; {seconds / 3600 / workers:,.1f} hours with {workers} workers that have as much each. Reading"
        " images, evaluation and saving come on top"
    )
