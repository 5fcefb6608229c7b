"""Three ways to spread the one training step over devices: `pmap`, `shard_map` and `fsdp`.

All three map the same function over the axis "data". `pmap` and `shard_map` keep the state whole on every device.
`fsdp` keeps of each parameter, and of what the optimizer and the average hold for it, one shard per device: the
parameters are gathered inside the step, their gradients scattered back (the transpose of the gathering), and the
optimizer works on the shards, its norms taken over all of them by the compiler.
"""

import contextlib
import functools
import math
from collections.abc import Callable
from typing import Any

import jax
import numpy as np
import optax
from jax import lax
from jax.sharding import Mesh, NamedSharding, PartitionSpec

from imagenet_repro.errors import UserError
from imagenet_repro.training import state as states
from imagenet_repro.training.functional import Tensors
from imagenet_repro.training.schedule import Moment
from imagenet_repro.training.state import TrainState
from imagenet_repro.training.step import AXIS, EvalStep, TrainStep
from imagenet_repro.training.svm_step import SvmStep

WHOLE = PartitionSpec()
SHARE = PartitionSpec(AXIS)
START = Moment(np.float32(0), np.float32(0))  # a step is compiled for the shapes of a moment, whichever it is


def create(mode: str, *, deterministic: bool = True) -> "ShardMap | Pmap | Fsdp":
    """The way of spreading that `config.parallel` names, over all devices of all processes."""
    return {"pmap": Pmap, "shard_map": ShardMap, "fsdp": Fsdp}[mode](deterministic)


class ShardMap:
    """The step mapped explicitly over a mesh of all devices."""

    def __init__(self, deterministic: bool = True):
        self.mesh = Mesh(np.asarray(jax.devices()), (AXIS,))
        # Kernels whose sums depend on timing are excluded, so that a run repeats bit for bit on the same hardware.
        on_gpu = jax.default_backend() == "gpu"
        self._options = {"xla_gpu_exclude_nondeterministic_ops": True} if deterministic and on_gpu else None

    def check_batch_size(self, batch_size: int, accumulate: int, key: str) -> None:
        """Raises UserError when a batch does not divide among the devices and the parts of accumulation."""
        parts = jax.device_count() * accumulate
        if batch_size % parts:
            near = max(parts, round(batch_size / parts) * parts)
            raise UserError(
                f"config.{key}: {batch_size} images do not divide among {jax.device_count()} devices"
                f" in {accumulate} part(s) each; {near} would"
            )

    def state_sharding(self, state: TrainState) -> Any:
        """Where each array of a state lives."""
        return jax.tree.map(lambda _: NamedSharding(self.mesh, WHOLE), state)

    def put_state(self, state: TrainState) -> TrainState:
        """Places a state, the same in every process, on the devices."""
        return jax.tree.map(_put, state, self.state_sharding(state))

    def initial_state(
        self, params: Tensors, stats: Tensors, optimizer: optax.GradientTransformation, *, ema: bool, seed: int
    ) -> TrainState:
        """The state before the first step, on the devices; arguments as for `state.create`.

        The parameters move first, and the rest is made in its place: no device holds more than its share of it.
        """
        create = functools.partial(states.create, optimizer=optimizer, ema=ema, seed=seed)
        places = self.state_sharding(jax.eval_shape(create, params, stats))
        placed = jax.tree.map(_put, (params, stats), (places.params, places.stats))
        return jax.jit(create, out_shardings=places)(*placed)

    def initial_device(self) -> contextlib.AbstractContextManager:
        """Where the network's initial values are drawn: on the default device."""
        return contextlib.nullcontext()

    def put_batch(self, batch: dict[str, np.ndarray]) -> dict[str, jax.Array]:
        """Places this process's share of a batch on its devices."""
        sharding = NamedSharding(self.mesh, SHARE)
        return {name: jax.make_array_from_process_local_data(sharding, value) for name, value in batch.items()}

    def train(self, step: TrainStep | SvmStep, state: TrainState, batch: dict[str, jax.Array]) -> Callable:
        """The compiled step, `(state, batch, moment) -> (state, measures)`; the state's buffers are reused."""
        mapped = jax.shard_map(step, mesh=self.mesh, in_specs=(WHOLE, SHARE, WHOLE), out_specs=WHOLE, check_vma=False)
        return self._compile(jax.jit(mapped, donate_argnums=0), state, batch, START)

    def evaluate(self, step: EvalStep, state: TrainState, batch: dict[str, jax.Array]) -> Callable:
        """The compiled `(params, stats, batch) -> (counts, predictions)`."""
        mapped = jax.shard_map(
            step, mesh=self.mesh, in_specs=(WHOLE, WHOLE, SHARE), out_specs=(WHOLE, SHARE), check_vma=False
        )
        return self._compile(jax.jit(mapped), *state.evaluated, batch)

    def local_rows(self, array: jax.Array) -> np.ndarray:
        """This process's rows of an array that is shared out over the devices, in the order of `put_batch`."""
        shards = sorted(array.addressable_shards, key=lambda shard: shard.index[0].start or 0)
        return np.concatenate([np.asarray(shard.data) for shard in shards])

    def _compile(self, function: Any, *arguments: Any) -> Callable:
        return function.lower(*arguments).compile(compiler_options=self._options)


class Pmap(ShardMap):
    """The step under `jax.pmap`; the state goes in and comes out whole, not stacked by device."""

    def put_batch(self, batch: dict[str, np.ndarray]) -> dict[str, jax.Array]:
        """Places this process's share of a batch on its devices, stacked by device as pmap wants it."""
        devices = jax.local_device_count()
        return super().put_batch({k: value.reshape(devices, -1, *value.shape[1:]) for k, value in batch.items()})

    def train(self, step: TrainStep | SvmStep, state: TrainState, batch: dict[str, jax.Array]) -> Callable:
        """As for `ShardMap`."""
        mapped = jax.pmap(step, axis_name=AXIS, in_axes=(None, 0, None), out_axes=None, donate_argnums=0)
        return self._compile(mapped, state, batch, START)

    def evaluate(self, step: EvalStep, state: TrainState, batch: dict[str, jax.Array]) -> Callable:
        """As for `ShardMap`."""
        mapped = jax.pmap(step, axis_name=AXIS, in_axes=(None, None, 0), out_axes=(None, 0))
        return self._compile(mapped, *state.evaluated, batch)

    def local_rows(self, array: jax.Array) -> np.ndarray:
        """As for `ShardMap`; pmap's arrays have the device in front."""
        return np.concatenate(super().local_rows(array))


class Fsdp(ShardMap):
    """Parameters, optimizer state and averages in shards; for models that do not fit on one device."""

    def initial_device(self) -> contextlib.AbstractContextManager:
        """Where the network's initial values are drawn: in the host's memory, since no device need hold them all."""
        return jax.default_device(jax.local_devices(backend="cpu")[0])

    def state_sharding(self, state: TrainState) -> Any:
        """Where each array of a state lives: cut along its longest axis that divides, whole where none does."""
        return jax.tree.map(lambda x: NamedSharding(self.mesh, cut(x.shape, self.mesh.size)), state)

    def train(self, step: TrainStep | SvmStep, state: TrainState, batch: dict[str, jax.Array]) -> Callable:
        """As for `ShardMap`."""
        shards = Shards({name: cut(x.shape, self.mesh.size) for name, x in state.params.items()})
        whole = jax.tree.map(lambda _: WHOLE, state)
        specs = _with_params(whole, shards.specs)
        gradients = jax.shard_map(
            lambda state, batch: step.gradients(state, batch, shards),
            mesh=self.mesh,
            in_specs=(specs, SHARE),
            out_specs=(shards.specs, WHOLE, WHOLE),
            check_vma=False,
        )
        places = self.state_sharding(state)

        def spread_step(state: TrainState, batch: dict[str, jax.Array], moment: Moment) -> tuple:
            # Only what the gradient needs goes into the mapped part: the rest must never be gathered.
            needed = TrainState(state.step, state.params, state.stats, (), {}, state.rng)
            found = gradients(needed, batch)
            new, measures = step.update(state, *found, moment)
            return lax.with_sharding_constraint(new, places), measures

        return self._compile(jax.jit(spread_step, donate_argnums=0), state, batch, START)

    def evaluate(self, step: EvalStep, state: TrainState, batch: dict[str, jax.Array]) -> Callable:
        """As for `ShardMap`."""
        params, stats = state.evaluated
        shards = Shards({name: cut(x.shape, self.mesh.size) for name, x in params.items()})
        mapped = jax.shard_map(
            lambda params, stats, batch: step(shards.gather(params), stats, batch),
            mesh=self.mesh,
            in_specs=(shards.specs, WHOLE, SHARE),
            out_specs=(WHOLE, SHARE),
            check_vma=False,
        )
        return self._compile(jax.jit(mapped), params, stats, batch)


class Shards:
    """Parameters of which a device holds one shard each.

    Args:
      specs: how each parameter is cut.
    """

    def __init__(self, specs: dict[str, PartitionSpec]):
        self.specs = specs

    def gather(self, params: Tensors) -> Tensors:
        """Whole parameters from this device's shards, by an all-gather whose transpose scatters the gradient."""
        return {name: self._gather(name, value) for name, value in params.items()}

    def reduce(self, gradients: Tensors) -> Tensors:
        """The mean over devices: what was gathered has been summed already, the rest has not."""
        devices = lax.axis_size(AXIS)
        return {
            name: value / devices if self._axis(name) is not None else lax.pmean(value, AXIS)
            for name, value in gradients.items()
        }

    def _gather(self, name: str, value: jax.Array) -> jax.Array:
        axis = self._axis(name)
        return value if axis is None else lax.all_gather(value, AXIS, axis=axis, tiled=True)

    def _axis(self, name: str) -> int | None:
        spec = tuple(self.specs[name])
        return spec.index(AXIS) if AXIS in spec else None


def cut(shape: tuple[int, ...], devices: int) -> PartitionSpec:
    """The longest axis that `devices` divides, cut. Arrays of one axis (scales, biases, statistics), and those of
    fewer than 16,384 numbers, are not worth a message each and stay whole.
    """
    axes = [axis for axis, size in enumerate(shape) if size % devices == 0]
    if not axes or len(shape) < 2 or math.prod(shape) < 2**14:
        return WHOLE
    longest = max(axes, key=lambda axis: shape[axis])
    return PartitionSpec(*[AXIS if axis == longest else None for axis in range(longest + 1)])


def _with_params(specs: TrainState, params: dict[str, PartitionSpec]) -> TrainState:
    return TrainState(specs.step, params, specs.stats, (), {}, specs.rng)


def _put(value: Any, sharding: NamedSharding) -> jax.Array:
    """One array in place, from a value that every process has whole."""
    if isinstance(value, jax.Array) and value.sharding == sharding:
        return value
    host = np.asarray(value)
    return jax.make_array_from_callback(host.shape, sharding, lambda index: host[index])
