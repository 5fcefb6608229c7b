"""Forecast of a sweep (`main.py sweep --dry_run`): what will run, and its cost, measured on a few steps of systems.

Systems whose runs cost the same share one measurement, such as those that differ only in a learning rate.
"""

import dataclasses
import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Mapping, Sequence

from rich.console import Console
from rich.table import Table

from imagenet_repro.config import AnyConfig, config_to_dict, crossing, flatten_settings
from imagenet_repro.config.amount import Amount
from imagenet_repro.config.sweep import SweepConfig
from imagenet_repro.errors import EXIT_FINISHED, EXIT_USER_ERROR
from imagenet_repro.planning.show import format_bytes
from imagenet_repro.planning.step_key import run_key
from imagenet_repro.report.text import enumerated, quantity
from imagenet_repro.runs.estimate_cost import RunCost
from imagenet_repro.scoring.terminal import duration, ruled_table, widen_for_file
from imagenet_repro.sweeps.launch import Launcher
from imagenet_repro.sweeps.plan import PlannedRun, plan_runs
from imagenet_repro.sweeps.status import count_workers, format_settings
from imagenet_repro.sweeps.worker import python_path

PLAN_HEADINGS = ("system", "trials", "seeds", "runs")
# All are those of one final run, but the number of runs and the time of all runs of the system.
HEADINGS = ("system", "runs", "images", "operations", "start", "train", "evaluate", "memory", "all runs")
FILE_WIDTH = 120  # columns, where the output is a file
MOST_SEEDS = 6  # that are named one by one
COMPILATION = ("compilation_seconds", "evaluation_compilation_seconds")
LARGE = ((1e9, "billion"), (1e6, "million"), (1e3, "thousand"))
DIFFERING_SETTINGS = 4  # named in a sentence


def print_cost(sweep: SweepConfig, configs: Mapping[str, AnyConfig], launcher: Launcher, workers: int) -> int:
    """Print the runs of a sweep and their cost without starting any, and return the exit code.

    Args:
      sweep: the sweep.
      configs: one configuration of each system.
      launcher: the launcher that would start the workers.
      workers: the number of workers.
    """
    planned_runs, console = plan_runs(sweep), Console(highlight=False, emoji=False)
    widen_for_file(console, FILE_WIDTH)
    workers = min(workers, len(planned_runs))
    for planned in planned_runs:
        if planned.is_trial:
            console.print(_line(planned), markup=False, soft_wrap=True)
    console.print(_plan_table(sweep, planned_runs))
    has_one_budget = not sweep.smaller_budgets and not (sweep.search.trials and sweep.search.budget)
    budget = f"each with a budget of {sweep.budget}" if has_one_budget else f"budget {sweep.budget}"
    heading = f"\n{len(planned_runs)} runs, {budget}, by {count_workers(workers)} on {launcher.description}"
    console.print(heading, markup=False, soft_wrap=True)
    final = {system: dataclasses.replace(config, budget=sweep.budget) for system, config in configs.items()}
    costs = _measure_all(final, console)
    console.print(_table(sweep, planned_runs, costs))
    for systems, cost in _groups(costs):
        if isinstance(cost, str):
            console.print(f"{_describe_group(systems)}: {cost}", markup=False, soft_wrap=True)
    for line in (_total(sweep, planned_runs, costs, workers), *_notes(costs)):
        console.print(line, markup=False, soft_wrap=True)
    return EXIT_FINISHED


def _plan_table(sweep: SweepConfig, planned_runs: Sequence[PlannedRun]) -> Table:
    """Return what will run: a row for each system."""
    headings = [heading for heading in PLAN_HEADINGS if heading != "trials" or sweep.search.trials]
    rows = []
    for system in sweep.systems:
        of_system = [planned for planned in planned_runs if planned.system == system]
        trials = sum(planned.is_trial for planned in of_system)
        seeds = list(dict.fromkeys(planned.seed for planned in of_system if not planned.is_trial))
        counts = [str(trials)] if sweep.search.trials else []
        rows.append([crossing.title(system), *counts, _describe_seeds(seeds), str(len(of_system))])
    return ruled_table(headings, rows, left=(0, headings.index("seeds")))


def _describe_seeds(seeds: Sequence[int]) -> str:
    shown = ", ".join(map(str, seeds[:MOST_SEEDS]))
    return shown if len(seeds) <= MOST_SEEDS else f"{shown} … {seeds[-1]} ({len(seeds)})"


def _line(planned: PlannedRun) -> str:
    if planned.settings is None:
        return f"{planned.name}  settings from the sampler"
    return f"{planned.name}  {format_settings(planned.settings)}".rstrip()


def _measure_all(configs: Mapping[str, AnyConfig], console: Console) -> dict[str, RunCost | str]:
    """Return the cost of each system's run, or why it could not be measured; equal runs are measured once."""
    groups: dict[str, list[str]] = {}
    for system, config in configs.items():
        groups.setdefault(run_key(config), []).append(system)
    console.print(_describe_groups(configs, list(groups.values())), markup=False, soft_wrap=True)
    costs: dict[str, RunCost | str] = {}
    for systems in groups.values():
        console.print(f"  {_describe_group(systems)} …", markup=False, soft_wrap=True)
        costs |= dict.fromkeys(systems, measure_run(configs[systems[0]]))
    return {system: costs[system] for system in configs}


def _groups(costs: Mapping[str, RunCost | str]) -> list[tuple[list[str], RunCost | str]]:
    """Return the systems that share a measurement, with it."""
    groups: dict[int, tuple[list[str], RunCost | str]] = {}
    for system, cost in costs.items():
        groups.setdefault(id(cost), ([], cost))[0].append(system)
    return list(groups.values())


def _describe_group(systems: Sequence[str]) -> str:
    more = f" and {len(systems) - 1} more" if len(systems) > 1 else ""
    return f"{crossing.title(systems[0])}{more}"


def _describe_groups(configs: Mapping[str, AnyConfig], groups: Sequence[Sequence[str]]) -> str:
    """Return a line that says how many systems are measured, and which settings the others alone differ in."""
    if len(groups) == len(configs):
        return "measuring a few steps of each system on this machine:"
    keys: dict[str, None] = {}
    for group in groups:
        first, *others = (flatten_settings(config_to_dict(configs[system])) for system in group)
        keys |= {key: None for other in others for key in {**first, **other} if first.get(key) != other.get(key)}
    names = _without_variants([key for key in keys if key not in ("name", "seed")])
    more = f" and {len(names) - DIFFERING_SETTINGS} more" if len(names) > DIFFERING_SETTINGS else ""
    shown = f"{enumerated(names[:DIFFERING_SETTINGS]) if not more else ', '.join(names[:DIFFERING_SETTINGS])}{more}"
    alone = f" only in {shown}, which" if names else " in nothing that"
    changes = "changes no cost" if names else "changes the cost"
    return (
        f"measuring a few steps of {len(groups)} of {len(configs)} systems on this machine; the others differ from one"
        f" of them{alone} {changes}:"
    )


def _without_variants(keys: Sequence[str]) -> list[str]:
    """Return dotted keys, with a section whose `name` is among them in place of all its keys."""
    sections = [key.removesuffix(".name") for key in keys if key.endswith(".name")]
    whole = (next((section for section in sections if key.startswith(f"{section}.")), key) for key in keys)
    return list(dict.fromkeys(whole))


def measure_run(config: AnyConfig) -> RunCost | str:
    """Return the cost of a run that finds its steps compiled, as all do that follow, or why it cannot be measured.

    Where the first measurement has compiled them, a second one in a new process loads them, as runs do.
    """
    first = _measure(config)
    if isinstance(first, str) or not first.has_compiled:
        return first
    second = _measure(config)
    if isinstance(second, str):
        return first
    compilation = {key: getattr(first, key) for key in COMPILATION}
    return dataclasses.replace(second, **compilation, has_compiled=True)


def _measure(config: AnyConfig) -> RunCost | str:
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
        return RunCost(**json.loads(lines[-1]))
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


def _table(sweep: SweepConfig, planned_runs: Sequence[PlannedRun], costs: Mapping[str, RunCost | str]) -> Table:
    """Return a row for each measurement, with the costs of one final run and the time of all that it stands for."""
    rows = []
    for systems, cost in _groups(costs):
        runs = [planned for planned in planned_runs if planned.system in systems]
        cells = [""] * (len(HEADINGS) - 2) if isinstance(cost, str) else _cells(sweep, runs, cost)
        rows.append([_describe_group(systems), str(len(runs)), *cells])
    return ruled_table(HEADINGS, rows, one_line=range(1, len(HEADINGS)))


def _cells(sweep: SweepConfig, runs: Sequence[PlannedRun], cost: RunCost) -> list[str]:
    # Coding all images takes more memory than the steps of SVMs on hand-made features, which are what is measured.
    bound = ">" if cost.step_memory is None else ""
    return [
        quantity(cost.images),
        f"{quantity(cost.flops)}FLOP",
        duration(cost.startup_seconds),
        duration(cost.seconds),
        duration(cost.evaluation_seconds) if cost.evaluation_seconds else "",
        f"{bound}{format_bytes(cost.peak_memory['bytes'])}",
        duration(sum(_run_seconds(sweep, planned, cost) for planned in runs)),
    ]


def _run_seconds(sweep: SweepConfig, planned: PlannedRun, cost: RunCost) -> float:
    """Return the time of a run from its start to its end, but for checkpoints."""
    share = budget_fraction(sweep, planned)
    return cost.startup_seconds + share * (cost.seconds + cost.evaluation_seconds)


def _total(
    sweep: SweepConfig, planned_runs: Sequence[PlannedRun], costs: Mapping[str, RunCost | str], workers: int
) -> str:
    """Return a sentence about the cost of all runs whose system could be measured."""
    measured = {system: cost for system, cost in costs.items() if isinstance(cost, RunCost)}
    if not measured:
        return "no system could be measured"
    runs = [(planned, measured[planned.system]) for planned in planned_runs if planned.system in measured]
    seconds = [_run_seconds(sweep, planned, cost) for planned, cost in runs]
    images = sum(budget_fraction(sweep, planned) * cost.images for planned, cost in runs)
    flops = sum(budget_fraction(sweep, planned) * cost.flops for planned, cost in runs)
    unmeasured = [crossing.title(system) for system in costs if system not in measured]
    without = f", without {enumerated(unmeasured)}" if unmeasured else ""
    shared = ""
    if workers > 1:  # which share the runs, but none ends before the longest run has
        left = duration(max(sum(seconds) / workers, *seconds))
        shared = f"; {left} with {count_workers(workers)} on one such device each"
    return (
        f"total: {describe_count(images)} images, {quantity(flops)}FLOP, {duration(sum(seconds))} on"
        f" {runs[0][1].device}{without}{shared}. Checkpoints are not included"
    )


def describe_count(number: float) -> str:
    """Return a number of images in the unit that suits it, such as "24.0 thousand" or "1.28 million"."""
    size, unit = next(((size, unit) for size, unit in LARGE if number >= size), (1.0, ""))
    return f"{number / size:.3g} {unit}" if unit else f"{number:.0f}"


def _notes(costs: Mapping[str, RunCost | str]) -> list[str]:
    """Return lines about what was compiled for the measurement, and about a machine that is busy."""
    distinct = {id(cost): cost for cost in costs.values() if isinstance(cost, RunCost)}.values()
    compiled = sum(getattr(cost, key) for cost in distinct if cost.has_compiled for key in COMPILATION)
    lines = []
    if compiled:
        lines.append(f"compiling took {duration(compiled)}; the programs are kept, and the runs load them")
    cores = os.cpu_count() or 1
    load = os.getloadavg()[0] if hasattr(os, "getloadavg") else 0.0
    if load > cores + 1 and any("cpu" in cost.device.lower() for cost in distinct):
        lines.append(
            f"this machine was busy ({load:.0f} processes on {cores} cores): runs take less time when it is not"
        )
    return lines
