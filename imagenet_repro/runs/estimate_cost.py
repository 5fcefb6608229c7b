"""Estimate the cost of a run from a few of its steps on this machine.

`python -m imagenet_repro.runs.estimate_cost FILE` runs in a separate process for each configuration, so that memory
and devices are free afterwards. FILE holds the configuration as JSON; the cost is printed as one line of JSON.
"""

import contextlib
import dataclasses
import functools
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
from imagenet_repro.inference.evaluator import Evaluator
from imagenet_repro.planning import evaluation_fit, fit
from imagenet_repro.training import cpu_precision, devices, fitting, memory, systems, teachers
from imagenet_repro.training.budget import Meter
from imagenet_repro.training.parallel import NO_RATE
from imagenet_repro.training.step import TrainStep
from imagenet_repro.training.systems.network import with_image_size
from imagenet_repro.training.systems.system import PreparationCost

MOST_STEPS = 10  # timed steps
SECONDS = 3.0  # of timed steps, at the most, where one takes less


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
      parameters: number of parameters.
      flops_per_step: floating point operations of a step over the whole batch.
      step_seconds: measured time of a step.
      timed_steps: number of steps whose mean that is, after one that is not counted; 0: the first step alone, which
        took so long that no other followed.
      evaluation_compilation_seconds: time to compile the step of evaluations, or to load it from the cache.
      precision: of the computation; empty for a system of hand-made features.
      step_memory: fields of `StepMemory`; None for a system of hand-made features.
      free_memory: bytes that were free on each device once the state was there; None where that is not known.
    """

    images: int
    steps: int
    flops: float
    seconds: float
    compilation_seconds: float
    peak_memory: dict[str, Any]
    device: str
    parameters: int = 0
    flops_per_step: int = 0
    step_seconds: float = 0.0
    timed_steps: int = 0
    evaluation_compilation_seconds: float = 0.0
    precision: str = ""
    step_memory: dict[str, Any] | None = None
    free_memory: int | None = None


def estimate_cost(config: AnyConfig, say: Callable[[str], None] = lambda stage: None) -> RunCost:
    """Build the system, compile its step and take one or a few steps on blank images.

    A run in stages is measured at its last stage, whose images are the largest.

    Args:
      config: the configuration of a run.
      say: called with the name of each stage of this work when it begins.

    Raises:
      UserError: the data set is not prepared, the system cannot be built, or its step or its evaluation needs more
        memory than is free.
    """
    say(f"reading the data set {config.data.name}")
    devices.start()
    splits = sources.open_splits(config.data)  # all of them: what is wrong is refused here rather than by the run
    split = splits.train
    if isinstance(config, Config):
        config = with_image_size(dataclasses.replace(config, precision=cpu_precision.choose(config.precision)))
    say(f"building {config.system_name}")
    system = systems.create_system(config, split.num_classes)
    preparation = system.measure_preparation(split.num_examples)
    state = system.initial_state()
    if isinstance(system, systems.NetworkSystem):
        system = teachers.attach(system, split.class_names)
        state = system.with_teacher(state)
    say("counting the operations of a step")
    flops = system.flops_per_step(state)
    batch = system.spread.put_batch(system.blank_batch(config.batch_size))
    say("compiling the step")
    began = time.perf_counter()
    step = system.train_step(split.num_examples)
    fitted, free, evaluation_seconds = None, None, 0.0
    if isinstance(step, TrainStep):
        fitted = fitting.compile_training(system.spread, step, state, batch, fitting.device_limit())
        compiled = fitted.compiled
    else:
        compiled = system.spread.compile_training(step, state, batch)
    compilation = time.perf_counter() - began
    if isinstance(step, TrainStep) and fitted:
        free = memory.free()
        meter = fit.StepMeter(system.spread, step, state, batch, fitted.record["policy"])
        fit.require_fit(meter, fitted, free, functools.partial(_stage, say))
    if isinstance(config, Config) and fitted:
        evaluator = Evaluator(config, system.score, system.spread, splits.evaluated, say)
        evaluation_fit.require_evaluation_fit(
            evaluator, config, state, fitted.memory, free=memory.free(), stage=functools.partial(_stage, say)
        )
        evaluation_seconds = evaluator.compilation_seconds
    say(f"measuring 1 to {MOST_STEPS} steps")
    parameters = sum(x.size for x in jax.tree.leaves(state.without_teacher().params))
    seconds, timed = _time_steps(_blocking(compiled, state, batch))
    steps = _count_steps(config, split, flops, seconds, preparation)
    return RunCost(
        images=steps * config.batch_size,
        steps=steps,
        flops=preparation.flops + steps * flops,
        seconds=preparation.seconds + steps * seconds,
        compilation_seconds=preparation.compilation_seconds + compilation,
        evaluation_compilation_seconds=evaluation_seconds,
        peak_memory=memory.peak(),
        device=f"{jax.device_count()} x {jax.devices()[0].device_kind}",
        parameters=int(parameters),
        flops_per_step=flops,
        step_seconds=seconds,
        timed_steps=timed,
        precision=config.precision if isinstance(config, Config) else "",
        step_memory=dataclasses.asdict(fitted.memory) if fitted else None,
        free_memory=free,
    )


def _stage(say: Callable[[str], None], name: str) -> contextlib.AbstractContextManager:
    say(name)
    return contextlib.nullcontext()


def _blocking(compiled: Callable, state: Any, batch: Any) -> Callable[[int], None]:
    """Return a function that takes a number of steps, one from the state of the other, and waits for their end."""
    results = state, None

    def take_steps(count: int) -> None:
        nonlocal results
        for _ in range(count):
            results = compiled(results[0], batch, NO_RATE)
        jax.block_until_ready(results)

    return take_steps


def _time_steps(
    take_steps: Callable[[int], None], clock: Callable[[], float] = time.perf_counter
) -> tuple[float, int]:
    """Return the seconds of a step, and the number of steps that were timed after the first, whose time is not usual.

    As many steps are timed as fit into `SECONDS`, going by the first one, up to `MOST_STEPS`. Where it takes longer
    than that by itself, it stands for all, and the number is 0.
    """
    began = clock()
    take_steps(1)
    first = clock() - began
    if first > SECONDS:
        return first, 0
    count = min(MOST_STEPS, max(1, int(SECONDS / max(first, 1e-9))))
    began = clock()
    take_steps(count)
    return (clock() - began) / count, count


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
