"""Plan of a sweep on accelerators that are not here (`main.py sweep --dry_run --topology=…`)."""

import dataclasses
from collections.abc import Mapping

from rich.console import Console
from rich.table import Table

from imagenet_repro.config import AnyConfig, crossing
from imagenet_repro.config.sweep import SweepConfig
from imagenet_repro.errors import EXIT_FINISHED, UserError
from imagenet_repro.planning.budget_cost import BudgetCost, budget_cost
from imagenet_repro.planning.dataset import dataset_size
from imagenet_repro.planning.plan import Plan, plan_step, require_network
from imagenet_repro.planning.step_key import step_key
from imagenet_repro.planning.topology import Topology, open_topology
from imagenet_repro.scoring.terminal import duration, print_lines, ruled_table, show_stages
from imagenet_repro.sweeps.cost import budget_fraction
from imagenet_repro.sweeps.plan import plan_runs

EFFICIENCY = 0.5  # share of the bound that a run is taken to reach, as by default in `main.py plan`
TPU_LEVEL = "O1"  # the compiler's own level takes several times as long
HEADINGS = ("system", "runs", "images\na device", "memory\nof a device", "at most,\nimages/s", "limited by", "one run")


@dataclasses.dataclass(frozen=True)
class SystemPlan:
    """The plan of one system's final run, and what its budget costs; None where the step does not fit."""

    plan: Plan
    cost: BudgetCost | None


def print_plans(sweep: SweepConfig, configs: Mapping[str, AnyConfig], topology: str) -> int:
    """Plan each distinct network of a sweep on a topology, print the plans, and return the exit code.

    Args:
      sweep: the sweep.
      configs: one configuration of each system.
      topology: the name of the devices.

    Raises:
      UserError: the topology is not valid, or its compiler is not installed.
    """
    console, devices = Console(highlight=False, emoji=False), open_topology(topology)
    plans: dict[str, Plan] = {}
    results: dict[str, SystemPlan | str] = {}
    for system, config in configs.items():
        try:
            results[system] = _plan(dataclasses.replace(config, budget=sweep.budget), devices, plans, console)
        except UserError as error:
            results[system] = str(error)
    facts = devices.facts
    print_lines([f"each run on {len(devices.devices)} x {facts.name} ({topology}), compiled for them", ""], console)
    console.print(_table(sweep, results))
    console.print()
    print_lines(_notes(sweep, results, devices), console)
    return EXIT_FINISHED


def _plan(config: AnyConfig, devices: Topology, plans: dict[str, Plan], console: Console) -> SystemPlan:
    """Return the plan of a system; systems with equal steps share one compilation, kept in `plans`."""
    network_config = require_network(config)
    size = dataset_size(network_config)
    step = step_key(network_config)
    if step not in plans:
        with show_stages(console, f"{config.system_name} on {devices.name}") as say:
            level = TPU_LEVEL if devices.platform == "tpu" else ""
            plans[step] = plan_step(network_config, devices, num_classes=size.num_classes, level=level, say=say)
    plan = plans[step]
    if not plan.bound or not plan.fits:
        return SystemPlan(plan, None)
    return SystemPlan(plan, budget_cost(plan, network_config, size.num_examples, efficiency=EFFICIENCY))


def _table(sweep: SweepConfig, results: Mapping[str, SystemPlan | str]) -> Table:
    planned_runs = plan_runs(sweep)
    rows = []
    for system, result in results.items():
        runs = sum(planned.system == system for planned in planned_runs)
        rows.append(
            [crossing.title(system), str(runs), *(_cells(result) if isinstance(result, SystemPlan) else [""] * 5)]
        )
    return ruled_table(HEADINGS, rows, left=(0, 5), one_line=range(1, len(HEADINGS)))


def _cells(result: SystemPlan) -> list[str]:
    plan = result.plan
    share = f"{plan.batch_size // len(plan.topology.devices):,}"
    memory = f"{plan.compiled.needed_bytes / 1e9:.1f} of {plan.memory / 1e9:.1f} GB"
    if result.cost is None or plan.bound is None or plan.images_per_second is None:
        return [share, memory, "", "does not fit", ""]
    return [share, memory, f"{plan.images_per_second:,.0f}", plan.bound.limiter, duration(result.cost.seconds)]


def _notes(sweep: SweepConfig, results: Mapping[str, SystemPlan | str], devices: Topology) -> list[str]:
    """Return the messages of systems that cannot be planned, and a sentence about the cost of all others."""
    lines = [f"{crossing.title(system)}: {result}" for system, result in results.items() if isinstance(result, str)]
    costs = {
        system: result.cost
        for system, result in results.items()
        if isinstance(result, SystemPlan) and result.cost is not None
    }
    hours = sum(
        budget_fraction(sweep, planned) * costs[planned.system].device_hours
        for planned in plan_runs(sweep)
        if planned.system in costs
    )
    device_time = f"{duration(3600 * hours)} of device time"
    missing = [crossing.title(system) for system in results if system not in costs]
    without = f", without {', '.join(missing)}" if missing else ""
    level = f" The steps were compiled at {TPU_LEVEL}." if devices.platform == "tpu" else ""
    total = (
        f"total: {device_time}{without}, at {100 * EFFICIENCY:.0f} % of the bound. Reading images,"
        f" evaluation and checkpoints are not included.{level} For more about a system: main.py plan"
    )
    return [*lines, total]
