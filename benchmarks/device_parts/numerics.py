"""A float32 step on the device against the same step on the CPU, and against itself."""

import dataclasses
from concurrent.futures import Future
from typing import Any

import jax
import numpy as np

from benchmarks import network_steps
from benchmarks.device_parts.bench import Bench, MeasuredNetwork, Part
from benchmarks.device_parts.steps import DETERMINISTIC, FAST, equal_bits
from imagenet_repro.models.nn import target
from imagenet_repro.training import parallel
from imagenet_repro.training.state import TrainState
from imagenet_repro.training.systems import NetworkSystem

LEARNING_RATE = np.float32(0.1)


@dataclasses.dataclass
class _Comparison:
    """One network's step: its initial state on the host, its batch, and its programs by where they run."""

    network: MeasuredNetwork
    state: TrainState
    batch: dict[str, np.ndarray]
    spreads: dict[str, parallel.Spread]
    programs: dict[str, Future]


class Numerics(Part):
    """One step of some networks, in float32.

    Momentum starts at zero and nothing decays, so that the optimizer's state after one step is the gradient.

    Args:
      name, title: as of `Part`.
      choose: returns the networks of a scale.
    """

    compiles = True

    def __init__(self, name: str, title: str, choose: Any):
        self.name, self.title, self._choose = name, title, choose
        self._comparisons: list[_Comparison] = []

    def estimate(self, bench: Bench) -> float:
        """See `Part`."""
        count = len(self._choose(bench.scale))
        programs = count * (3 if bench.platform == "gpu" else 2)
        return count * (1.7 * bench.scale.trace_seconds + 4) + bench.compile_time(programs)

    def prepare(self, bench: Bench) -> None:
        """See `Part`."""
        for network in self._choose(bench.scale):
            bench.say(f"tracing {network.title} in float32, for the device and for the CPU")
            with bench.attempt(f"{network.title} in float32"):
                self._comparisons.append(self._prepare(bench, network))

    def _prepare(self, bench: Bench, network: MeasuredNetwork) -> _Comparison:
        optimizer = {"name": "sgd", "learning_rate": 0.1, "weight_decay": 0.0}
        config = network_steps.create_config(
            network.name, network.image_size, network.batch, "float32", network.options, optimizer=optimizer
        )
        spreads = {
            "device": parallel.create("shard_map", deterministic=False, devices=jax.devices()[:1]),
            "cpu": parallel.create("shard_map", deterministic=False, devices=jax.devices("cpu")[:1]),
        }
        batch = network_steps.resident_batch(network.batch, network.image_size)
        with bench.matmul_precision("float32"):
            system = NetworkSystem.create(config, 1000)
            state = jax.device_get(system.initial_state())
            lowered = {}
            for place, spread in spreads.items():
                platform = "cpu" if place == "cpu" else bench.platform
                with target.compile_for(platform):
                    step = system.train_step(1)
                    lowered[place] = spread.lower_training(step, spread.put_state(state), spread.put_batch(batch))
        title = f"{network.title}, float32"
        programs = {"cpu": bench.compiler.submit(f"{title}, cpu", lowered["cpu"], spreads["cpu"].compiler_options)}
        options = {}
        for variant in (FAST, DETERMINISTIC) if bench.platform == "gpu" else (FAST,):
            spread = parallel.create("shard_map", deterministic=variant == DETERMINISTIC, devices=jax.devices()[:1])
            options[f"{title}, {variant}"] = spread.compiler_options
        futures = bench.compiler.submit_variants(lowered["device"], options)
        programs |= {name.rpartition(", ")[2]: future for name, future in futures.items()}
        return _Comparison(network, state, batch, spreads, programs)

    def run(self, bench: Bench) -> None:
        """See `Part`."""
        while self._comparisons:
            comparison = self._comparisons.pop(0)
            with bench.attempt(f"{comparison.network.title} in float32"):
                self._compare(bench, comparison)

    def _compare(self, bench: Bench, comparison: _Comparison) -> None:
        reference = self._step(bench, comparison, "cpu")
        for variant in (FAST, DETERMINISTIC):
            if variant not in comparison.programs:
                continue
            once, again = (self._step(bench, comparison, variant) for _ in range(2))
            errors = compare(reference, once)
            repeats = equal_bits(once, again)
            bench.record(
                "numerics",
                network=comparison.network.title,
                variant=variant,
                batch=comparison.network.batch,
                image_size=comparison.network.image_size,
                repeats_bit_for_bit=repeats,
                **errors,
            )
            bench.say(
                f"{comparison.network.title}, float32, {variant}: gradient differs from the CPU's by"
                f" {errors['gradient_error']:.1e}, {'repeats' if repeats else 'does not repeat'} bit for bit"
            )

    def _step(self, bench: Bench, comparison: _Comparison, place: str) -> tuple[TrainState, dict[str, Any]]:
        """Return the state and the measures after one step from the initial state, on the host."""
        compiled = bench.result_of(comparison.programs[place])
        spread = comparison.spreads["cpu" if place == "cpu" else "device"]
        state, batch = spread.put_state(comparison.state), spread.put_batch(comparison.batch)
        return jax.device_get(compiled(state, batch, LEARNING_RATE))


def compare(
    reference: tuple[TrainState, dict[str, Any]], result: tuple[TrainState, dict[str, Any]]
) -> dict[str, float | str]:
    """Return relative errors of a step against a reference: of loss, gradient, its norm, parameters and statistics.

    Those of arrays are the norm of the difference over the norm of the reference, over all arrays; `worst_gradient` is
    the parameter whose own gradient differs most.
    """
    (expected, measures), (state, own) = reference, result
    gradients, own_gradients = _gradients(expected), _gradients(state)
    each = {name: relative_error({name: gradients[name]}, {name: own_gradients[name]}) for name in gradients}
    worst = max(each, key=lambda name: each[name])
    return {
        "loss": float(own["loss"]),
        "loss_error": abs(float(own["loss"]) / float(measures["loss"]) - 1),
        "gradient_error": relative_error(gradients, own_gradients),
        "gradient_norm_error": abs(float(own["gradient_norm"]) / float(measures["gradient_norm"]) - 1),
        "worst_gradient": worst,
        "worst_gradient_error": each[worst],
        "parameter_error": relative_error(expected.params, state.params),
        "statistics_error": relative_error(expected.stats, state.stats),
    }


def _gradients(state: TrainState) -> dict[str, np.ndarray]:
    """Return the gradient by parameter: momentum's sum after one step without decay."""
    leaves = jax.tree_util.tree_flatten_with_path(state.opt_state)[0]
    return {str(getattr(path[-1], "key", path[-1])): leaf for path, leaf in leaves}


def relative_error(expected: dict[str, np.ndarray], actual: dict[str, np.ndarray]) -> float:
    """Return ||actual - expected|| / ||expected|| over all arrays, computed in float64; 0 without arrays."""
    difference = sum(float(np.square(actual[n].astype(np.float64) - x).sum()) for n, x in expected.items())
    size = sum(float(np.square(x.astype(np.float64)).sum()) for x in expected.values())
    return float(np.sqrt(difference / size)) if size else float(np.sqrt(difference))
