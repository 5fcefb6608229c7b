"""Estimate the cost of a run from a few of its steps on this machine.

`python -m imagenet_repro.runs.estimate_cost FILE` runs in a separate process for each configuration, so that memory
and devices are free afterwards. FILE holds the configuration as JSON; the cost is printed as one line of JSON.
"""

import dataclasses
import json
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import jax

from imagenet_repro.config import AnyConfig, Config, resolve_config
from imagenet_repro.config.amount import Amount
from imagenet_repro.data import sources
from imagenet_repro.errors import UserError
from imagenet_repro.training import cpu_precision, devices, fitting, memory, systems, teachers
from imagenet_repro.training.budget import Meter
from imagenet_repro.training.parallel import NO_RATE
from imagenet_repro.training.step import TrainStep
from imagenet_repro.training.systems.system import PreparationCost

STEPS = 3  # timed steps, after one that is not timed


@dataclasses.dataclass(frozen=True)
class RunCost:
    """The estimated cost of one run.

    Attributes:
      images: number of images seen in training.
      steps: number of training steps.
      flops: floating point operations of training, and of coding every image once if the system has hand-made
        features.
      seconds: measured time of this work, without reading, evaluation and saving, and without learning vocabularies.
      compilation_seconds: time to compile the step, or to load it from the cache.
      peak_memory: the result of `memory.peak` after these steps.
      device: the device of the measurement.
    """

    images: int
    steps: int
    flops: float
    seconds: float
    compilation_seconds: float
    peak_memory: dict[str, Any]
    device: str


def estimate_cost(config: AnyConfig) -> RunCost:
    """Build the system, compile its step and take a few steps on blank images.

    A run in stages is measured at its last stage, whose images are the largest.

    Raises:
      UserError: the data set is not prepared, or the system cannot be built.
    """
    devices.start()
    split = sources.open_splits(config.data).train  # the others are refused here rather than by the run
    if isinstance(config, Config):
        config = dataclasses.replace(config, precision=cpu_precision.choose(config.precision))
    system = systems.create_system(config, split.num_classes)
    preparation = system.measure_preparation(split.num_examples)
    state = system.initial_state()
    if isinstance(system, systems.NetworkSystem):
        system = teachers.attach(system, split.class_names)
        state = system.with_teacher(state)
    flops = system.flops_per_step(state)
    batch = system.spread.put_batch(system.blank_batch(config.batch_size))
    began = time.perf_counter()
    step = system.train_step(split.num_examples)
    if isinstance(step, TrainStep):
        compiled = fitting.compile_training(system.spread, step, state, batch, fitting.device_limit()).compiled
    else:
        compiled = system.spread.compile_training(step, state, batch)
    compilation = time.perf_counter() - began
    seconds = _seconds_per_step(compiled, state, batch)
    steps = _count_steps(config, split, flops, seconds, preparation)
    return RunCost(
        images=steps * config.batch_size,
        steps=steps,
        flops=preparation.flops + steps * flops,
        seconds=preparation.seconds + steps * seconds,
        compilation_seconds=preparation.compilation_seconds + compilation,
        peak_memory=memory.peak(),
        device=f"{jax.device_count()} x {jax.devices()[0].device_kind}",
    )


def _seconds_per_step(compiled: Callable, state: Any, batch: Any) -> float:
    state, measures = compiled(state, batch, NO_RATE)
    jax.block_until_ready(measures)
    began = time.perf_counter()
    for _ in range(STEPS):
        state, measures = compiled(state, batch, NO_RATE)
    jax.block_until_ready((state, measures))
    return (time.perf_counter() - began) / STEPS


def _count_steps(
    config: AnyConfig, split: sources.Split, flops: int, seconds: float, preparation: PreparationCost
) -> int:
    """Return the steps until the budget is spent; for seconds, the number that fits after the preparation."""
    amount = Amount.parse(config.budget)
    meter = Meter(config.batch_size, split.num_examples, flops, flops_before=round(preparation.flops))
    steps = meter.steps_to(amount)
    return max(1, int((amount.value - preparation.seconds) / seconds)) if steps is None else steps


def main(path: str) -> int:
    """Print the cost of the configuration in a file; return the exit code."""
    try:
        cost = estimate_cost(resolve_config(json.loads(Path(path).read_text(encoding="utf-8"))))
    except UserError as error:
        print(f"\n{error}", file=sys.stderr)
        return error.exit_code
    print(json.dumps(dataclasses.asdict(cost)))
    return 0


if __name__ == "__main__":
    sys.exit(main(*sys.argv[1:]))
