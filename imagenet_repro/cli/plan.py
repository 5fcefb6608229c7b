"""`main.py plan`: what a run would need and reach on accelerators that are not here."""

from imagenet_repro.cli.command import Command, Option, Settings
from imagenet_repro.errors import UserError

HELP = """Say what a run would need on accelerators that are not here, and how fast it could be there.

  python main.py plan --config=configs/resnet.py:50 --topology=h200:1
  python main.py plan --config=configs/vit.py:augreg --topology=v5e:4x4 --config.parallel=fsdp --level=O1

The training step is compiled by the compiler of those devices, which needs neither a device nor a driver, only its
packages (pip install '.[plan-tpu]' or '.[plan-gpu]'). Nothing runs, and no parameter is allocated. The plan says
whether the step fits into the memory of each device and what takes it, counts the operations, the traffic to the main
memory and the messages between devices, and derives a bound: the images per second that no run can exceed, since one
of the three would need more time at the device's published rate.

Topologies: slices of TPUs (v4:2x2x1, v5e:4x4, v5p:2x2x1, v6e:4x4), the GPUs of a host (a100:8, h100:8, h200:1) or of
several (h100:2x8). Compilation takes from half a minute to several minutes; --level=O1 is faster for TPUs.
"""


def run(
    *,
    config: str,
    topology: str,
    level: str | None,
    find_batch: bool,
    efficiency: float,
    price: float,
    num_classes: int,
    num_examples: int,
    json_file: str | None,
    hlo_file: str | None,
    overrides: dict[str, str],
) -> int:
    """Plan a configuration on a topology and print the plan; return the exit code."""
    if not 0 < efficiency <= 1:
        raise UserError(f"--efficiency={efficiency}: a share of the bound in (0, 1] is needed, such as 0.5")
    from imagenet_repro.config import load_config

    loaded_config = load_config(config, overrides)
    from imagenet_repro.planning import topology as topologies

    topologies.silence()  # before JAX is imported
    from imagenet_repro.planning.command import PlanOptions, plan_run

    options = PlanOptions(
        level=level or "",
        find_batch=find_batch,
        efficiency=efficiency,
        price=price,
        num_classes=num_classes,
        num_examples=num_examples,
        json_file=json_file,
        hlo_file=hlo_file,
    )
    return plan_run(loaded_config, topology, options)


COMMAND = Command(
    name="plan",
    help=HELP,
    run=run,
    options=(
        Option("--config", required=True, metavar="FILE[:ARGUMENT]", help="a recipe, such as configs/resnet.py:50"),
        Option("--topology", required=True, metavar="DEVICES", help="the devices, such as v5e:4x4 or h100:8"),
        Option(
            "--level",
            choices=("O0", "O1", "O2", "O3"),
            help="the compiler's effort (default: the compiler's own, as for a run)",
        ),
        Option(
            "--find_batch",
            is_switch=True,
            help="try batches in powers of two times the configuration's, and plan the largest that fits",
        ),
        Option(
            "--efficiency",
            type=float,
            default=0.5,
            metavar="SHARE",
            help="the share of the bound that a run reaches, for the time of the budget (default: 0.5)",
        ),
        Option(
            "--price",
            type=float,
            low=0,
            default=0.0,
            metavar="X",
            help="of one device for an hour, for the budget's price",
        ),
        Option(
            "--num_classes",
            type=int,
            low=0,
            default=0,
            metavar="N",
            help="classes of the data set (default: its own number)",
        ),
        Option(
            "--num_examples",
            type=int,
            low=0,
            default=0,
            metavar="N",
            help="images of the training split (default: its own number)",
        ),
        Option("--json", metavar="FILE", writes="file", parameter="json_file", help="write the plan's numbers there"),
        Option("--hlo", metavar="FILE", writes="file", parameter="hlo_file", help="write the compiled program there"),
    ),
    settings=(Settings("config", "any key of the configuration", parameter="overrides"),),
)
