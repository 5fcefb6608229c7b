"""The three ways to spread a step: equal bits on one device, and their rates."""

import dataclasses
from concurrent.futures import Future

import jax
import numpy as np

from benchmarks import network_steps
from benchmarks.device_parts.bench import Bench, Part
from benchmarks.device_parts.numerics import relative_error
from benchmarks.device_parts.steps import equal_bits
from imagenet_repro.training import parallel
from imagenet_repro.training.state import TrainState
from imagenet_repro.training.systems import NetworkSystem

MODES = ("pmap", "shard_map", "fsdp")
STEPS = 3


def _floats(state: TrainState) -> dict[str, np.ndarray]:
    """Return the parameters, statistics and optimizer state by their places in the state."""
    leaves = jax.tree_util.tree_flatten_with_path(state)[0]
    return {jax.tree_util.keystr(path): leaf for path, leaf in leaves if np.issubdtype(leaf.dtype, np.floating)}


class Spreads(Part):
    """The main network's step under `pmap`, `shard_map` and `fsdp`, deterministic, from one state."""

    name, title = "spreads", "pmap, shard_map and fsdp: the same bits, and their rates"
    compiles = True

    def __init__(self):
        self._spreads: dict[str, parallel.Spread] = {}
        self._programs: dict[str, Future] = {}

    def estimate(self, bench: Bench) -> float:
        """See `Part`."""
        tracing = 2 * bench.scale.trace_seconds
        return tracing + bench.compile_time(len(MODES)) + len(MODES) * (bench.scale.seconds + 2)

    def prepare(self, bench: Bench) -> None:
        """See `Part`."""
        network = bench.scale.main
        self._batch = network_steps.resident_batch(network.batch * jax.device_count(), network.image_size)
        config = network_steps.create_config(
            network.name,
            network.image_size,
            network.batch * jax.device_count(),
            bench.scale.precision,
            network.options,
            deterministic=True,
        )
        with bench.matmul_precision(config.precision):
            system = NetworkSystem.create(config, 1000)
            self._state = jax.device_get(system.initial_state())
            for mode in MODES:
                bench.say(f"tracing {network.title} under {mode}")
                spread = parallel.create(mode, deterministic=True)
                one = dataclasses.replace(system, spread=spread)
                lowered = spread.lower_training(
                    one.train_step(1), spread.put_state(self._state), spread.put_batch(self._batch)
                )
                self._spreads[mode] = spread
                self._programs[mode] = bench.compiler.submit(
                    f"{network.title}, {mode}", lowered, spread.compiler_options
                )

    def run(self, bench: Bench) -> None:
        """See `Part`."""
        reference = None
        images = len(self._batch["label"])
        for mode in MODES:
            compiled, spread = bench.result_of(self._programs[mode]), self._spreads[mode]
            state, batch = spread.put_state(self._state), spread.put_batch(self._batch)
            for _ in range(STEPS):
                state, _measures = compiled(state, batch, np.float32(0.1))
            result = jax.device_get(state)
            reference = reference or result
            with bench.timing():
                rate, _ = network_steps.measure(compiled, state, batch, images, bench.scale.seconds)
            equal = equal_bits(reference, result)
            error = relative_error(_floats(reference), _floats(result))
            bench.record(
                "spread",
                mode=mode,
                network=bench.scale.main.title,
                devices=jax.device_count(),
                batch=images,
                steps=STEPS,
                images_per_second=rate.median,
                spread=rate.spread,
                equal_bits_to_pmap=equal,
                state_error=error,
            )
            bench.say(
                f"{mode}: {rate.median:,.1f} images/s, {'the bits' if equal else f'{error:.1e} from the bits'} of pmap"
            )
