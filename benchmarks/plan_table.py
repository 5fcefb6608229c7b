"""Plan ten networks on four topologies, and the largest ViTs on a pod of TPUs, without a device: results/plan.md.

    python benchmarks/plan_table.py                 # every plan that is missing, then the table
    python benchmarks/plan_table.py --plans=1       # one more plan, then the table
    python benchmarks/plan_table.py --plans=0       # the table alone

Each plan is a line of results/plan.jsonl, written when it is made, so that the command can be stopped at any time and
continues where it was. A network starts on a kind of device with the per-device batch that FIRST has for it. From then
on, memory is taken to grow in proportion to the batch, and the batch doubles or halves until the next power of two is
expected not to fit.

Needs libtpu and the CUDA plugin: pip install -r requirements/plan-tpu.txt -r requirements/plan-gpu.txt
"""

import argparse
import dataclasses
import json
import os
import sys
import time
from pathlib import Path

REPOSITORY = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(REPOSITORY))

from imagenet_repro.planning import topology  # noqa: E402  the path comes first

topology.silence()

from imagenet_repro.config import load_config  # noqa: E402  JAX is silenced first
from imagenet_repro.planning.plan import plan_step  # noqa: E402
from imagenet_repro.storage import provenance  # noqa: E402

PLANS, TABLE = REPOSITORY / "results" / "plan.jsonl", REPOSITORY / "results" / "plan.md"
TOPOLOGIES = ("h200:1", "v5e:2x2", "h100:8", "v5p:2x2x1")
# Recipe, and the first batch of a device: v5e, v5p, h100, h200.
NETWORKS = {
    "alexnet_2012": ("configs/alexnet.py", (2048, 4096, 4096, 4096)),
    "vgg16": ("configs/vgg.py:16", (256, 1024, 1024, 1024)),
    "googlenet": ("configs/googlenet.py", (512, 2048, 2048, 4096)),
    "resnet50": ("configs/resnet.py:50", (256, 2048, 1024, 2048)),
    "seresnet50": ("configs/senet.py:seresnet50", (256, 1024, 1024, 1024)),
    "efficientnet_b0": ("configs/efficientnet.py:b0", (256, 1024, 1024, 2048)),
    "efficientnetv2_s": ("configs/efficientnetv2.py:s", (128, 512, 512, 1024)),
    "convnext_tiny": ("configs/convnext.py:tiny", (128, 1024, 512, 1024)),
    "vit_base_patch16": ("configs/vit.py:augreg", (64, 512, 512, 1024)),
    "deit_small_patch16": ("configs/deit.py:small", (128, 1024, 1024, 2048)),
}
KINDS = ("v5e", "v5p", "h100", "h200")
LARGEST = 4096  # images of a device; more make no difference to the bound
ROOM = 0.97  # of the memory that a larger batch may be expected to take
# The largest networks: their parameters and optimizer state are split over 128 chips.
LARGE = {"vit_giant_patch14": 8, "vit_gigantic_patch14": 8}
LARGE_TOPOLOGY = "v5e:8x16"
LARGE_SETTINGS = {"parallel": "fsdp", "model.options.remat": "True", "model.options.scan": "True"}
LEVELS = {"v5e": "O1", "v5p": "O1", "h100": "", "h200": ""}  # GPUs compile quickly at the default level


@dataclasses.dataclass(frozen=True)
class Case:
    """One network on one topology."""

    network: str
    config: str
    topology: str
    first: int
    settings: dict[str, str] = dataclasses.field(default_factory=dict)

    @property
    def kind(self) -> str:
        """The kind of device, such as "v5e"."""
        return self.topology.partition(":")[0]


def main():
    """Make the plans that are missing, and write the table."""
    arguments = _arguments()
    n_plans = 0
    while n_plans != arguments.plans:
        plans = _read()
        todo = next(((case, batch) for case in _cases() for batch in _missing(case, plans)), None)
        if todo is None:
            break
        _make(*todo)
        n_plans += 1
    TABLE.write_text(_page(_read()), encoding="utf-8")


def _arguments():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--plans", type=int, default=-1, metavar="N", help="how many plans to make (default: all)")
    return parser.parse_args()


def _cases():
    """Return every case, those first that say most: one GPU, one host of TPUs, the largest networks, then the rest."""
    by_topology = {
        name: [
            Case(network, config, name, first[KINDS.index(name.partition(":")[0])])
            for network, (config, first) in NETWORKS.items()
        ]
        for name in TOPOLOGIES
    }
    large = [
        Case(name, f"configs/modern.py:{name}", LARGE_TOPOLOGY, batch, LARGE_SETTINGS) for name, batch in LARGE.items()
    ]
    h200, v5e, *rest = by_topology.values()
    return [*h200, *v5e, *large, *(case for cases in rest for case in cases)]


def _missing(case, plans):
    """Yield the batch of a device to plan next: the first one, then one twice or half as large where that may fit."""
    mine = {plan["per_device"]: plan for plan in plans if _is_of(plan, case)}
    if not mine:
        yield case.first
        return
    if case.settings:  # a batch that is given
        return
    fitting = [batch for batch, plan in mine.items() if plan["fits"]]
    if not fitting:
        if min(mine) > 1:
            yield min(mine) // 2
        return
    best = max(fitting)
    if 2 * best <= LARGEST and 2 * best not in mine and _expected(mine[best]) <= ROOM * mine[best]["memory"]:
        yield 2 * best


def _expected(plan):
    """Return the bytes that a step is expected to take with twice the batch of a plan."""
    state = sum(size for name, size in plan["arguments"].items() if name != "batch")
    return 2 * plan["needed_bytes"] - state


def _is_of(plan, case):
    return plan["network"] == case.network and plan["topology"] == case.topology


def _read():
    return [json.loads(line) for line in PLANS.read_text(encoding="utf-8").splitlines()] if PLANS.exists() else []


def _make(case, batch):
    """Make one plan and append it to the file."""
    devices = topology.open_topology(case.topology)
    size = batch * len(devices.devices)
    config = load_config(case.config, {"batch_size": str(size), **case.settings})
    print(f"{time.strftime('%H:%M:%S')} {case.network} on {case.topology}, {batch} a device", file=sys.stderr)
    plan = plan_step(config, devices, level=LEVELS[case.kind])
    source = provenance.collect()
    line = {
        **plan.to_dict(),
        "config": case.config,
        "per_device": batch,
        "jax": source["packages"]["jax"],
        "commit": source["commit"][:12],
    }
    with PLANS.open("a", encoding="utf-8") as file:
        file.write(json.dumps(line) + "\n")
        file.flush()
        os.fsync(file.fileno())


def _page(plans):
    versions = sorted({f"jax {plan['jax']}, commit {plan['commit']}" for plan in plans})
    lines = [
        "# What the networks need on accelerators that were not at hand",
        "",
        "Compiled by `python benchmarks/plan_table.py` for devices that are not here; nothing was run. Each row is a"
        " network's own recipe under `pmap`, bfloat16, with the largest batch per device, in powers of two up to"
        f" {LARGEST:,}, that fits into the memory. A GPU's memory counts by the 75 % that JAX reserves. `at most` is"
        " the roofline: no run can be faster on one device, and a run reaches a part of it. TPUs were compiled at O1,"
        " so a run's own compilation may need less memory and traffic. `expected` is the estimate of the TPU's"
        " compiler itself. Rematerialisation is what the run would choose: `none` where the step fits without it."
        " [The guide](../docs/plan.md) says how each number is found.",
        "",
        f"Versions: {'; '.join(versions)}.",
        "",
        "| network | topology | images a device | rematerialisation | memory, GB | of GB | traffic, GB | TFLOP"
        " | at most, images/s a device | limited by | expected, images/s a device |",
        "|---|---|---:|---|---:|---:|---:|---:|---:|---|---:|",
    ]
    order = sorted(_cases(), key=lambda case: (list(NETWORKS | LARGE).index(case.network), KINDS.index(case.kind)))
    lines += [_row(case, plans) for case in order]
    lines += ["", _left_out(plans)]
    return "\n".join(lines) + "\n"


def _row(case, plans):
    mine = [plan for plan in plans if _is_of(plan, case)]
    fitting = [plan for plan in mine if plan["fits"]]
    if not mine:
        return f"| {case.network} | {case.topology} | not compiled | | | | | | | | |"
    if not fitting:
        smallest = min(mine, key=lambda plan: plan["per_device"])
        peak, memory = smallest["needed_bytes"] / 1e9, smallest["memory"] / 1e9
        batch = f"{smallest['per_device']:,} does not fit | {smallest['remat']}"
        return f"| {case.network} | {case.topology} | {batch} | {peak:.1f} | {memory:.1f} | | | | | |"
    plan = max(fitting, key=lambda plan: plan["per_device"])
    devices = plan["devices"]
    mark = " ⁺" if any(True for _ in _missing(case, plans)) else ""
    estimate = plan["estimated_seconds"]
    cells = (
        case.network,
        case.topology + (" `fsdp`" if case.settings else ""),
        f"{plan['per_device']:,}{mark}",
        "blocks" if case.settings else plan["remat"],
        f"{plan['needed_bytes'] / 1e9:.1f}",
        f"{plan['memory'] / 1e9:.1f}",
        f"{plan['traffic_bytes'] / 1e9:.1f}",
        f"{plan['flops'] / 1e12:.1f}",
        f"{plan['images_per_second'] / devices:,.0f}",
        plan["limiter"],
        f"{plan['batch_size'] / devices / estimate:,.0f}" if estimate else "",
    )
    return f"| {' | '.join(cells)} |"


def _left_out(plans):
    cases = _cases()
    done = sum(any(_is_of(plan, case) for plan in plans) for case in cases)
    larger = "⁺ A larger batch is expected to fit and was not compiled."
    return f"{done} of {len(cases)} cells are compiled. {larger}"


if __name__ == "__main__":
    main()
