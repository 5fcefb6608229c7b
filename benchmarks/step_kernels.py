"""Compile training steps for a device that is not here, with and without determinism, and list what moves memory.

    python benchmarks/step_kernels.py --topology=h200:1 configs/resnet.py:50 configs/vgg.py:16
    python benchmarks/step_kernels.py --topology=h200:1 --kernels configs/resnet.py:50

For each configuration it prints the gigabytes that a step moves, and the scatters and sorts that are left. `--kernels`
adds each kind of kernel: the operations that it computes, how many there are, and their gigabytes. Nothing runs.
"""

import argparse
import collections
import re
import sys
import time
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[1]))

from imagenet_repro.planning import topology

topology.silence()

from imagenet_repro.config import load_config  # noqa: E402  JAX is silenced first
from imagenet_repro.planning import hlo, traffic  # noqa: E402
from imagenet_repro.planning.compiled_step import abstract_step, compile_step  # noqa: E402

RARE = ("scatter", "select-and-scatter", "sort")


def main() -> None:
    """Print a row for each configuration and setting as soon as it is compiled."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("configs", nargs="+", metavar="CONFIG")
    parser.add_argument("--topology", default="h200:1", help="as in main.py plan")
    parser.add_argument("--batch_size", default="256")
    parser.add_argument("--level", default="", help="as in main.py plan")
    parser.add_argument("--deterministic", nargs="*", default=["false", "true"], choices=("false", "true"))
    parser.add_argument("--kernels", action="store_true", help="list each kind of kernel")
    options = parser.parse_args()
    devices = topology.open_topology(options.topology)
    print(
        "| configuration | deterministic | GB | scatters | sorts | seconds to compile |\n|---|---|---:|---:|---:|---:|"
    )
    for name in options.configs:
        for deterministic in options.deterministic:
            began = time.perf_counter()
            overrides = {"batch_size": options.batch_size, "deterministic": deterministic, "parallel": "shard_map"}
            step = abstract_step(load_config(name, overrides), 1000, devices)
            module = hlo.parse(compile_step(step, devices, "none", level=options.level).text)
            moved = traffic.count_traffic(module)
            counts = rare_operations(module)
            scatters = counts["scatter"] + counts["select-and-scatter"]
            seconds = time.perf_counter() - began
            row = f"{moved.total_bytes / 1e9:.1f} | {scatters} | {counts['sort']} | {seconds:.0f}"
            print(f"| {name} | {deterministic} | {row} |", flush=True)
            if options.kernels:
                print(*kernel_rows(moved), sep="\n", flush=True)


def rare_operations(module: hlo.Module) -> collections.Counter:
    """Return how many scatters and sorts the step has, in any computation."""
    opcodes = (i.opcode for computation in module.computations.values() for i in computation.instructions.values())
    return collections.Counter(opcode for opcode in opcodes if opcode in RARE)


def kernel_rows(moved: traffic.Traffic) -> list[str]:
    """Return a line for each kind of kernel, largest first: operation of JAX, number, gigabytes."""
    total, number = collections.Counter(), collections.Counter()
    for kernel in moved.kernels:
        way = "backward" if "transpose(" in kernel.instruction.op_name else "forward"
        operation = re.sub(r".*/", "", kernel.instruction.op_name)
        kind = f"{way}: {kernel.instruction.target or kernel.instruction.opcode} {operation}"
        total[kind] += kernel.total_bytes
        number[kind] += kernel.times
    return [f"  {total[kind] / 1e9:8.2f} GB {number[kind]:5} x {kind}" for kind, _ in total.most_common(20)]


if __name__ == "__main__":
    main()
