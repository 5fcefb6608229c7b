"""Time of RandAugment and AutoAugment on a batch of 64 images of 224 px: here, or on devices that are not here.

    python benchmarks/augmentation.py                            # seconds of this device, and processor seconds
    python benchmarks/augmentation.py --topology=v5e:2x2|h200:1 [--level=O1]

Both forms of data/augment/operations.py are measured: the batched form, which was the only one, and that for the
platform. Without a topology they run in turns.

With one, they are compiled for a TPU, and the result is the sum of the cycles that its compiler expects of each
instruction: that of a loop as often as it runs, that of a branch weighted with the share of the layers that draw it.
The compiler has no estimate for gathers and scatters, so their number is given beside the sum, which leaves them out.
The branches are listed, in microseconds. For a GPU, the result is the traffic of its memory. Needs libtpu or the CUDA
plugin: pip install -r requirements/plan-tpu.txt -r requirements/plan-gpu.txt
"""

import argparse
import json
import statistics
import sys
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path

REPOSITORY = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(REPOSITORY))

from imagenet_repro.planning import hlo, topology  # noqa: E402  the path comes first

if any(argument.startswith("--topology") for argument in sys.argv):
    topology.silence()

import jax  # noqa: E402  JAX is silenced first
import jax.numpy as jnp  # noqa: E402
import numpy as np  # noqa: E402

from imagenet_repro.config import AutoAugment, Policy, RandAugment, TimmRandAugment  # noqa: E402
from imagenet_repro.data.augment import operations, policy  # noqa: E402
from imagenet_repro.data.augment.access import BY_INDEX, BY_PRODUCT  # noqa: E402
from imagenet_repro.planning.traffic import count_traffic  # noqa: E402

BATCH, SIDE, MEAN = 64, 224, (0.485, 0.456, 0.406)
POLICIES: dict[str, Policy] = {
    "randaugment": RandAugment(),
    "randaugment_timm": TimmRandAugment(),
    "autoaugment": AutoAugment(),
}
FORMS = {
    "batched": operations.apply_batched,
    "by branch, by index": partial(operations.apply_by_branch, access=BY_INDEX),
    "by branch, by product": partial(operations.apply_by_branch, access=BY_PRODUCT),
}
FORM_OF = {"cpu": ["by branch, by index"], "tpu": ["by branch, by product"]}  # elsewhere batched
CLOCK = {"v4": 1.05e9, "v5e": 1.5e9, "v5p": 1.75e9, "v6e": 1.75e9}  # Hz: peak FLOP/s over twice the MACs of a cycle


def main() -> None:
    """Read the command line, and print a line of JSON for each policy and form."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--topology", help="such as v5e:2x2; without it, this device")
    parser.add_argument("--level", default="O1", choices=("O0", "O1", "O2", "O3"), help="effort of the compiler")
    parser.add_argument("--policies", nargs="+", default=list(POLICIES), choices=list(POLICIES))
    parser.add_argument("--forms", nargs="+", choices=list(FORMS), help="by default batched and that for the device")
    parser.add_argument("--rounds", type=int, default=5)
    arguments = parser.parse_args()
    platform = topology.parse_topology(arguments.topology)[0].platform if arguments.topology else jax.default_backend()
    forms = arguments.forms or ["batched", *FORM_OF.get(platform, ())]
    for name in arguments.policies:
        if arguments.topology:
            jax.config.update("jax_optimization_level", arguments.level)
            rows = [estimate(name, form, arguments.topology) for form in forms]
        else:
            rows = measure(name, forms, arguments.rounds)
        for row in rows:
            print(json.dumps(row), flush=True)


def change(chosen: Policy, form: str, images: jax.Array, key: jax.Array) -> jax.Array:
    """Draw and apply a policy's operations."""
    draws = jax.vmap(lambda key: policy.draw(chosen, key, (SIDE, SIDE)))(jax.random.split(key, len(images)))
    return FORMS[form](images, draws, options=policy.options(chosen, MEAN))


def measure(name: str, forms: list[str], rounds: int) -> list[dict]:
    """Return the median seconds of each form on this device, the forms in turns."""
    images = jnp.asarray(np.random.default_rng(0).integers(0, 256, (BATCH, SIDE, SIDE, 3), dtype=np.uint8))
    programs = {form: jax.jit(partial(change, POLICIES[name], form)) for form in forms}
    results = {form: np.asarray(program(images, jax.random.key(0))) for form, program in programs.items()}
    times: dict[str, list[tuple[float, float]]] = {form: [] for form in forms}
    for number in range(rounds):
        for form, program in programs.items():
            times[form].append(timed(partial(program, images, jax.random.key(number))))
    return [
        {
            "policy": name,
            "form": form,
            "device": jax.devices()[0].device_kind,
            "seconds": round(statistics.median(wall for wall, _ in times[form]), 4),
            "cpu_seconds": round(statistics.median(cpu for _, cpu in times[form]), 4),
            "values_unlike_batched": int((results[form] != results[forms[0]]).sum()),
        }
        for form in forms
    ]


def timed(run: Callable[[], jax.Array]) -> tuple[float, float]:
    """Return the seconds of a run and the processor seconds of this process."""
    wall, cpu = time.perf_counter(), time.process_time()
    run().block_until_ready()
    return time.perf_counter() - wall, time.process_time() - cpu


def estimate(name: str, form: str, topology_name: str) -> dict:
    """Return what the compiler for a TPU expects of one form, in milliseconds; for a GPU, its memory traffic."""
    opened = topology.open_topology(topology_name)
    sharding = jax.sharding.SingleDeviceSharding(opened.devices[0])
    images = jax.ShapeDtypeStruct((BATCH, SIDE, SIDE, 3), jnp.uint8, sharding=sharding)
    seed = jax.ShapeDtypeStruct((), jnp.uint32, sharding=sharding)
    chosen = POLICIES[name]
    began = time.perf_counter()
    program = jax.jit(lambda images, seed: change(chosen, form, images, jax.random.key(seed)))
    options = {"xla_gpu_exclude_nondeterministic_ops": True} if opened.platform == "gpu" else None
    module = hlo.parse(program.lower(images, seed).compile(compiler_options=options).as_text())
    opcodes = [each.opcode for part in module.computations.values() for each in part.instructions.values()]
    row = {
        "policy": name,
        "form": form,
        "device": topology_name,
        "compile_seconds": round(time.perf_counter() - began, 1),
        "gathers_and_scatters": opcodes.count("gather") + opcodes.count("scatter"),
    }
    if opened.platform == "gpu":
        return row | {"gigabytes": round(count_traffic(module).total_bytes / 1e9, 3), "sorts": opcodes.count("sort")}
    clock = CLOCK[opened.facts.kind]
    shares = dict(zip(policy.names(chosen), drawn_shares(chosen), strict=True))
    branches: dict[str, float] = {}
    total = cycles(module, module.entry, shares, branches)
    return row | {
        "milliseconds": round(total / clock * 1e3, 2),
        "branches_us": {branch: round(value / clock * 1e6, 1) for branch, value in branches.items()},
    }


def drawn_shares(chosen: Policy) -> np.ndarray:
    """Return the share of the layers that draw each operation, from 20,000 images."""
    keys = jax.random.split(jax.random.key(1), 20000)
    operation = np.asarray(jax.vmap(lambda key: policy.draw(chosen, key, (SIDE, SIDE)).operation)(keys))
    return np.bincount(operation.ravel(), minlength=len(policy.names(chosen))) / operation.size


def cycles(
    module: hlo.Module, computation: hlo.Computation, shares: dict[str, float], branches: dict[str, float]
) -> float:
    """Return the cycles expected of a computation; `branches` receives those of each operation."""
    total = 0.0
    for instruction in computation.instructions.values():
        called = [cycles(module, each, shares, branches) for each in module.called(instruction)]
        if instruction.opcode == "while":
            total += called[0] * (module.trip_count(computation, instruction) or 1)
        elif instruction.opcode == "conditional" and len(called) == len(shares):
            branches.update(zip(shares, called, strict=True))
            total += float(np.dot(called, list(shares.values())))
        elif instruction.opcode in ("call", "conditional"):
            total += max(called)
        else:
            total += instruction.cycles
    return total


if __name__ == "__main__":
    main()
