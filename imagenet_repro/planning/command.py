"""The command `main.py plan`: plan one configuration, print the plan, and write it to files."""

import dataclasses
from pathlib import Path

from rich.console import Console

from imagenet_repro.config import AnyConfig, Config
from imagenet_repro.errors import EXIT_FINISHED
from imagenet_repro.planning import show
from imagenet_repro.planning.advice import advise, find_batch
from imagenet_repro.planning.budget_cost import budget_cost
from imagenet_repro.planning.dataset import dataset_size
from imagenet_repro.planning.plan import Plan, plan_step, require_network
from imagenet_repro.planning.topology import open_topology
from imagenet_repro.scoring.terminal import print_lines, show_stages
from imagenet_repro.storage import files
from imagenet_repro.storage.json_files import write_json


@dataclasses.dataclass(frozen=True)
class PlanOptions:
    """Options of a plan.

    Attributes:
      level: as for `compile_step`.
      find_batch: whether to search the largest batch that fits.
      efficiency: the share of the bound that a run reaches, in (0, 1].
      price: of one device for an hour.
      num_classes: of the data set; 0: its own number.
      num_examples: of the training split; 0: its own number.
      json_file: receives the plan's numbers; None: nothing is written.
      hlo_file: receives the compiled program; None: nothing is written.
    """

    level: str = ""
    find_batch: bool = False
    efficiency: float = 0.5
    price: float = 0.0
    num_classes: int = 0
    num_examples: int = 0
    json_file: str | None = None
    hlo_file: str | None = None


def plan_run(config: AnyConfig, topology: str, options: PlanOptions) -> int:
    """Plan a configuration on a topology, print the plan, and return the exit code.

    Raises:
      UserError: the topology, the configuration or its data set is not valid.
      SaveError: a file cannot be written.
    """
    network_config = require_network(config)
    size = dataset_size(network_config, options.num_classes, options.num_examples)
    devices, console = open_topology(topology), Console(highlight=False, emoji=False)

    def plan(tried: Config) -> Plan:
        with show_stages(console, f"{tried.model.name}, batch {tried.batch_size:,}, on {topology}") as say:
            result = plan_step(tried, devices, num_classes=size.num_classes, level=options.level, say=say)
        if options.find_batch:
            print_lines([show.summary(result)], console)
        return result

    result = find_batch(network_config, len(devices.devices), plan) if options.find_batch else plan(network_config)
    network_config = dataclasses.replace(network_config, batch_size=result.batch_size)
    show.print_plan(result, console, advise(result, network_config))
    record = result.to_dict()
    if result.bound:
        cost = budget_cost(
            result, network_config, size.num_examples, efficiency=options.efficiency, price=options.price
        )
        show.print_cost(cost, network_config, options.efficiency, console)
        record |= {"budget": {"amount": network_config.budget, **dataclasses.asdict(cost)}}
    _write(result, record, options)
    return EXIT_FINISHED


def _write(plan: Plan, record: dict, options: PlanOptions) -> None:
    if options.json_file:
        write_json(Path(options.json_file), record)
    if options.hlo_file:
        with files.atomic_write(Path(options.hlo_file), "the compiled program") as file:
            file.write(plan.compiled.text.encode())
