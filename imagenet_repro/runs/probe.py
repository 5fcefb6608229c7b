"""What a configuration would cost, from a few of its steps on this machine.

`python -m imagenet_repro.runs.probe FILE` is a process of its own for each configuration, so that its memory and its
devices are free again. FILE holds the configuration as JSON; what was measured is printed as one line of JSON.
"""

import dataclasses
import json
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from imagenet_repro.config import AnyConfig, Config, FeatureConfig, resolve_config
from imagenet_repro.config.amount import Amount
from imagenet_repro.data import sources
from imagenet_repro.errors import UserError
from imagenet_repro.runs.feature_run import FeatureSystem
from imagenet_repro.runs.network_run import System
from imagenet_repro.runs.run import step_flops
from imagenet_repro.training import devices, memory
from imagenet_repro.training.budget import Meter
from imagenet_repro.training.schedule import Moment
from imagenet_repro.training.svm_step import CODES, SvmStep
from imagenet_repro.zoo import counting

STEPS = 3  # timed, after one that is not
MOMENT = Moment(np.float32(0), np.float32(0))


@dataclasses.dataclass(frozen=True)
class Cost:
    """What one run would cost.

    Attributes:
      images: seen in training.
      steps: of training.
      flops: of training, and of coding every image once where a system has hand-made features.
      seconds: of that, as measured, without reading, evaluation and saving; codes without learning vocabularies.
      compilation_seconds: of the step, or until it came from the cache.
      peak_memory: as training/memory.py has it, after these steps.
      device: that it was measured on.
    """

    images: int
    steps: int
    flops: float
    seconds: float
    compilation_seconds: float
    peak_memory: dict[str, Any]
    device: str


def probe(config: AnyConfig) -> Cost:
    """Builds, compiles and takes a few steps on blank images.

    Raises:
      UserError: the data set is not prepared, or the system cannot be built.
    """
    devices.start()
    split = sources.open_split(config.data, config.data.train_split)
    measured = _features(config, split) if isinstance(config, FeatureConfig) else _network(config, split)
    kind = f"{jax.device_count()} x {jax.devices()[0].device_kind}"
    return Cost(**measured, peak_memory=memory.peak(), device=kind)


def _network(config: Config, split: sources.Split) -> dict[str, Any]:
    """Of the last stage where a run has several, whose images are the largest."""
    system = System.create(config, split.num_classes)
    state = system.initial_state()
    flops = system.flops_per_step(state)
    side, size = config.data.image_size, config.batch_size
    blank = {name: np.zeros((size,), np.int32) for name in ("label", "epoch", "index")}
    blank["image"] = np.zeros((size, side, side, 3), np.uint8)
    batch = system.spread.put_batch(blank)
    began = time.perf_counter()
    compiled = system.spread.train(system.train_step, state, batch)
    compilation = time.perf_counter() - began
    seconds = _seconds(compiled, state, batch)
    steps = _steps(config, split, flops, seconds)
    return {
        "images": steps * size,
        "steps": steps,
        "flops": float(steps * flops),
        "seconds": steps * seconds,
        "compilation_seconds": compilation,
    }


def _seconds(compiled: Callable, state: Any, batch: Any) -> float:
    """Of one step."""
    state, measures = compiled(state, batch, MOMENT)
    jax.block_until_ready(measures)
    began = time.perf_counter()
    for _ in range(STEPS):
        state, measures = compiled(state, batch, MOMENT)
    jax.block_until_ready((state, measures))
    return (time.perf_counter() - began) / STEPS


def _steps(
    config: AnyConfig, split: sources.Split, flops: int, seconds: float, before: tuple[float, int] = (0.0, 0)
) -> int:
    """Until the budget is spent, of which `before` (seconds, operations) is gone; of seconds, as many as fit."""
    amount = Amount.parse(config.budget)
    if amount.unit == "s":
        return max(1, int((amount.value - before[0]) / seconds))
    return Meter(config.batch_size, split.num_examples, flops, flops_before=before[1]).steps_to(amount)


def _features(config: FeatureConfig, split: sources.Split) -> dict[str, Any]:
    system = FeatureSystem.create(config, split.num_classes)
    size, side = min(config.batch_size, 32), config.data.image_size
    images = jnp.zeros((size, side, side, 3), jnp.uint8)
    before = flops = compilation = 0.0
    for encoder in system.encoders.values():
        code = jax.jit(encoder.encode)
        blank = {name: jnp.asarray(value) for name, value in encoder.blank().items()}
        began = time.perf_counter()
        compiled = code.lower(images, blank).compile()
        compilation += time.perf_counter() - began
        jax.block_until_ready(compiled(images, blank))
        began = time.perf_counter()
        jax.block_until_ready(compiled(images, blank))
        before += (time.perf_counter() - began) / size * split.num_examples
        flops += counting.flops(encoder.encode, images, blank) / size * split.num_examples
    step = _svm(config, system)
    steps = _steps(config, split, step["flops"], step["seconds"], (before, round(flops)))
    return {
        "images": steps * config.batch_size,
        "steps": steps,
        "flops": flops + steps * step["flops"],
        "seconds": before + steps * step["seconds"],
        "compilation_seconds": compilation + step["compilation"],
    }


def _svm(config: FeatureConfig, system: FeatureSystem) -> dict[str, Any]:
    """What a step of the SVMs costs."""
    state = system.initial_state()
    size = config.batch_size
    blank = {CODES + name: np.zeros((size, count), np.float32) for name, count in system.features.items()}
    batch = system.spread.put_batch(blank | {"label": np.zeros(size, np.int32)})
    step = SvmStep(tuple(config.channels), config.svm, 0)
    shapes = {name: jax.ShapeDtypeStruct((size, *x.shape[x.ndim - 1 :]), x.dtype) for name, x in blank.items()}
    shapes["label"] = jax.ShapeDtypeStruct((size,), jnp.int32)
    flops = step_flops(step, state, shapes)
    began = time.perf_counter()
    compiled = system.spread.train(step, state, batch)
    compilation = time.perf_counter() - began
    return {"flops": flops, "seconds": _seconds(compiled, state, batch), "compilation": compilation}


def main(path: str) -> int:
    """Prints the cost of the configuration in a file; returns the exit code."""
    try:
        found = probe(resolve_config(json.loads(Path(path).read_text())))
    except UserError as error:
        print(f"\n{error}", file=sys.stderr)
        return error.exit_code
    print(json.dumps(dataclasses.asdict(found)))
    return 0


if __name__ == "__main__":
    sys.exit(main(*sys.argv[1:]))
