"""Three ways to spread the one training step over devices: `pmap`, `shard_map` and `fsdp`.

All three map the same function over the axis "data". `pmap` and `shard_map` keep a copy of the state on every device.
`fsdp` keeps one shard of each parameter on each device, and the same shard of its optimizer state and its average. The
parameters are gathered inside the step, those of a `Stack` block by block, and their gradients scattered back. The
optimizer works on the shards, and the compiler takes its norms over all of them.
"""

import abc
import contextlib
import functools
import itertools
import math
from collections.abc import Callable, Sequence
from typing import Any, Protocol, runtime_checkable

import jax
import numpy as np
import optax
from jax import lax
from jax.sharding import Mesh, NamedSharding, PartitionSpec
from jax.stages import Lowered
from jaxtyping import ArrayLike

from imagenet_repro.errors import UserError
from imagenet_repro.models.nn.shards import Shard
from imagenet_repro.training import state
from imagenet_repro.training.functional import Tensors
from imagenet_repro.training.state import TrainState
from imagenet_repro.training.step import AXIS, DeviceStep, EvalStep

REPLICATED = PartitionSpec()
SHARE = PartitionSpec(AXIS)
NO_RATE = np.float32(0)  # a step is compiled for the type of a learning rate; its value does not matter


@runtime_checkable
class Spread(Protocol):
    """A way to spread a step over all devices of all processes.

    Attributes:
      mesh: the devices, along the axis "data".
      compiler_options: options of XLA with which steps are compiled.
    """

    mesh: Mesh
    compiler_options: dict[str, str | bool] | None

    def check_batch_size(self, batch_size: int, accumulate: int, key: str) -> None:
        """Raise UserError, naming `config.<key>`, if a batch does not divide among devices and parts."""
        ...

    def state_sharding(self, state: TrainState) -> Any:
        """Return a tree like `state` with the sharding of each array."""
        ...

    def put_state(self, state: TrainState) -> TrainState:
        """Place a state, the same in every process, on the devices."""
        ...

    def initial_state(
        self, params: Tensors, stats: Tensors, optimizer: optax.GradientTransformation, **options: Any
    ) -> TrainState:
        """Return the state before the first step, on the devices; the arguments are those of `state.create`."""
        ...

    def describe(self, state: TrainState) -> str:
        """Return a sentence about what each device holds; empty where it holds a copy of everything."""
        ...

    def initial_device(self) -> contextlib.AbstractContextManager:
        """Return a context in which a network's initial values are drawn on a device that can hold them."""
        ...

    def put_batch(self, batch: dict[str, np.ndarray]) -> dict[str, jax.Array]:
        """Place this process's share of a batch on its devices."""
        ...

    def lower_training(self, step: DeviceStep, state: TrainState, batch: dict[str, Any]) -> Lowered:
        """Return the step that `compile_training` compiles; shapes may stand for the arrays."""
        ...

    def lower_evaluation(self, step: EvalStep, state: TrainState, batch: dict[str, Any]) -> Lowered:
        """Return the step that `compile_evaluation` compiles; shapes may stand for the arrays."""
        ...

    def compile_training(self, step: DeviceStep, state: TrainState, batch: dict[str, Any]) -> Callable:
        """Return the compiled `(state, batch, learning_rate) -> (state, measures)`; `state` is donated.

        Shapes may stand for the arrays.
        """
        ...

    def compile_evaluation(self, step: EvalStep, state: TrainState, batch: dict[str, jax.Array]) -> Callable:
        """Return the compiled `(params, stats, batch) -> (counts, predictions)`."""
        ...

    def local_rows(self, array: jax.Array) -> np.ndarray:
        """Return this process's rows of an array that is split over the devices, in the order of `put_batch`."""
        ...


def create(mode: str, *, deterministic: bool = True, devices: Sequence[Any] | None = None) -> Spread:
    """Return the spread that `config.parallel` names.

    Args:
      mode: "pmap", "shard_map" or "fsdp".
      deterministic: whether to exclude kernels whose sums depend on timing (GPU), so that a run repeats bit for bit on
        the same hardware.
      devices: all devices of all processes, by default. They may be a description of devices that are not here, for
        which a step can be lowered and compiled, but not run.
    """
    spreads = {"pmap": Pmap, "shard_map": ShardMap, "fsdp": Fsdp}
    return spreads[mode](deterministic, devices)


class _MeshSpread(abc.ABC):
    """The common part of the three ways: the mesh, the placement of states and batches, and the compiler's options."""

    def __init__(self, deterministic: bool = True, devices: Sequence[Any] | None = None):
        self.devices = list(devices or jax.devices())
        check_order(self.devices)
        self.mesh = Mesh(np.asarray(self.devices), (AXIS,))
        on_gpu = self.devices[0].platform in ("gpu", "cuda", "rocm")
        self.compiler_options: dict[str, str | bool] | None = (
            {"xla_gpu_exclude_nondeterministic_ops": True} if deterministic and on_gpu else None
        )

    @abc.abstractmethod
    def state_sharding(self, state: TrainState) -> Any:
        """See `Spread`."""

    def check_batch_size(self, batch_size: int, accumulate: int, key: str) -> None:
        """See `Spread`."""
        parts = len(self.devices) * accumulate
        if batch_size % parts:
            near = max(parts, round(batch_size / parts) * parts)
            raise UserError(
                f"config.{key}: {batch_size} images do not divide among {len(self.devices)} devices"
                f" in {accumulate} part(s) each; {near} would"
            )

    def put_state(self, state: TrainState) -> TrainState:
        """See `Spread`."""
        return jax.tree.map(_put, state, self.state_sharding(state))

    def initial_state(
        self, params: Tensors, stats: Tensors, optimizer: optax.GradientTransformation, **options: Any
    ) -> TrainState:
        """See `Spread`. Other arrays are created where the parameters are: no device holds more than its share."""
        create_state = functools.partial(state.create, optimizer=optimizer, **options)
        shardings = self.state_sharding(jax.eval_shape(create_state, params, stats))
        placed = jax.tree.map(_put, (params, stats), (shardings.params, shardings.stats))
        return jax.jit(create_state, out_shardings=shardings)(*placed)

    def describe(self, state: TrainState) -> str:
        """See `Spread`; empty."""
        del state
        return ""

    def initial_device(self) -> contextlib.AbstractContextManager:
        """See `Spread`; this is the default device."""
        return contextlib.nullcontext()

    def put_batch(self, batch: dict[str, np.ndarray]) -> dict[str, jax.Array]:
        """See `Spread`."""
        sharding = NamedSharding(self.mesh, SHARE)
        return {name: jax.make_array_from_process_local_data(sharding, value) for name, value in batch.items()}

    def local_rows(self, array: jax.Array) -> np.ndarray:
        """See `Spread`."""
        shards = sorted(array.addressable_shards, key=lambda shard: shard.index[0].start or 0)
        return np.concatenate([np.asarray(shard.data) for shard in shards])

    @abc.abstractmethod
    def lower_training(self, step: DeviceStep, state: TrainState, batch: dict[str, Any]) -> Lowered:
        """See `Spread`."""

    @abc.abstractmethod
    def lower_evaluation(self, step: EvalStep, state: TrainState, batch: dict[str, Any]) -> Lowered:
        """See `Spread`."""

    def compile_training(self, step: DeviceStep, state: TrainState, batch: dict[str, Any]) -> Callable:
        """See `Spread`."""
        return self.lower_training(step, state, batch).compile(compiler_options=self.compiler_options)

    def compile_evaluation(self, step: EvalStep, state: TrainState, batch: dict[str, jax.Array]) -> Callable:
        """See `Spread`."""
        return self.lower_evaluation(step, state, batch).compile(compiler_options=self.compiler_options)

    def _replicated(self, state: TrainState) -> Any:
        return jax.tree.map(lambda _: NamedSharding(self.mesh, REPLICATED), state)


class ShardMap(_MeshSpread):
    """The step mapped explicitly over a mesh of all devices; every device holds a copy of the state."""

    def state_sharding(self, state: TrainState) -> Any:
        """See `Spread`; every array is replicated."""
        return self._replicated(state)

    def lower_training(self, step: DeviceStep, state: TrainState, batch: dict[str, Any]) -> Lowered:
        """See `Spread`."""
        mapped = jax.shard_map(
            step,
            mesh=self.mesh,
            in_specs=(REPLICATED, SHARE, REPLICATED),
            out_specs=REPLICATED,
            check_vma=False,
        )
        return jax.jit(mapped, donate_argnums=0).lower(state, batch, NO_RATE)

    def lower_evaluation(self, step: EvalStep, state: TrainState, batch: dict[str, Any]) -> Lowered:
        """See `Spread`."""
        mapped = jax.shard_map(
            step,
            mesh=self.mesh,
            in_specs=(REPLICATED, REPLICATED, SHARE),
            out_specs=(REPLICATED, SHARE),
            check_vma=False,
        )
        return jax.jit(mapped).lower(*state.evaluated, batch)


class Pmap(_MeshSpread):
    """The step under `jax.pmap`; the state goes in and comes out without an axis of devices."""

    def state_sharding(self, state: TrainState) -> Any:
        """See `Spread`; every array is replicated."""
        return self._replicated(state)

    def put_batch(self, batch: dict[str, np.ndarray]) -> dict[str, jax.Array]:
        """See `Spread`; `jax.pmap` needs an axis of devices in front of each array."""
        devices = jax.local_device_count()
        return super().put_batch({k: value.reshape(devices, -1, *value.shape[1:]) for k, value in batch.items()})

    def lower_training(self, step: DeviceStep, state: TrainState, batch: dict[str, Any]) -> Lowered:
        """See `Spread`."""
        mapped = jax.pmap(
            step, axis_name=AXIS, in_axes=(None, 0, None), out_axes=None, donate_argnums=0, devices=self.devices
        )
        return mapped.lower(state, batch, NO_RATE)

    def lower_evaluation(self, step: EvalStep, state: TrainState, batch: dict[str, Any]) -> Lowered:
        """See `Spread`."""
        mapped = jax.pmap(step, axis_name=AXIS, in_axes=(None, None, 0), out_axes=(None, 0), devices=self.devices)
        return mapped.lower(*state.evaluated, batch)

    def local_rows(self, array: jax.Array) -> np.ndarray:
        """See `Spread`; the arrays of `jax.pmap` have an axis of devices in front."""
        return np.concatenate(super().local_rows(array))


class Fsdp(_MeshSpread):
    """Parameters, optimizer state and averages in shards, for models that do not fit on one device."""

    def initial_device(self) -> contextlib.AbstractContextManager:
        """See `Spread`; this is the host's memory, since a device need not be able to hold all values.

        Where JAX has no CPU backend (JAX_PLATFORMS=cuda), it is the default device, which then has to hold them.
        """
        try:
            host = jax.local_devices(backend="cpu")[0]
        except RuntimeError:
            return contextlib.nullcontext()
        return jax.default_device(host)

    def state_sharding(self, state: TrainState) -> Any:
        """See `Spread`; each array is split according to `shard_counts`."""
        return jax.tree.map(lambda x: self._division(x).sharding, state)

    def lower_training(self, step: DeviceStep, state: TrainState, batch: dict[str, Any]) -> Lowered:
        """See `Spread`."""
        layout = self._layout(state.params)
        trained = step.trained(layout.specs)
        replicated = jax.tree.map(lambda _: REPLICATED, state)
        specs = _gradient_inputs(replicated, layout.specs)
        gradients = jax.shard_map(
            lambda state, batch: step.gradients(state, batch, layout),
            mesh=self.mesh,
            in_specs=(specs, SHARE),
            out_specs=(trained, REPLICATED, REPLICATED),
            check_vma=False,
        )
        shardings = self.state_sharding(state)

        def sharded_step(state: TrainState, batch: dict[str, jax.Array], learning_rate: ArrayLike) -> tuple:
            # Only the inputs of the gradient go into the mapped part, because the others must never be gathered.
            reduced, stats, measures = gradients(_gradient_inputs(state, layout.enter(state.params)), batch)
            new, measures = step.update(state, layout.leave(reduced), stats, measures, learning_rate)
            return lax.with_sharding_constraint(new, shardings), measures

        return jax.jit(sharded_step, donate_argnums=0).lower(state, batch, NO_RATE)

    def lower_evaluation(self, step: EvalStep, state: TrainState, batch: dict[str, Any]) -> Lowered:
        """See `Spread`."""
        params, stats = state.evaluated
        layout = self._layout(params)
        mapped = jax.shard_map(
            lambda params, stats, batch: step(layout.wrap(params), stats, batch),
            mesh=self.mesh,
            in_specs=(layout.specs, REPLICATED, SHARE),
            out_specs=(REPLICATED, SHARE),
            check_vma=False,
        )
        return jax.jit(lambda params, *rest: mapped(layout.enter(params), *rest)).lower(params, stats, batch)

    def describe(self, state: TrainState) -> str:
        """See `Spread`; what every device holds, and how much of it is not split."""
        unsplit = total = 0
        for x in jax.tree.leaves(state):
            size = x.size * x.dtype.itemsize
            total += size
            unsplit += size if self._division(x).counts is None else 0
        held = unsplit + (total - unsplit) / self.mesh.size
        return (
            f"fsdp: each of {self.mesh.size} devices holds {held / 1e6:,.1f} of the state's {total / 1e6:,.1f} MB;"
            f" {unsplit / 1e6:,.1f} MB of it are in arrays that stay whole, because they are small or"
            f" {self.mesh.size} does not divide them"
        )

    def _layout(self, params: Tensors) -> "ShardedParameters":
        return ShardedParameters({name: self._division(x) for name, x in params.items()})

    def _division(self, array: Any) -> "Division":
        return Division(shard_counts(array.shape, self.mesh.size), self.mesh)


class Division:
    """The division of an array among the devices.

    Args:
      counts: the number of parts along each axis; None: the array stays whole.
      mesh: the devices, along the axis "data".

    Attributes:
      is_along_one_axis: whether the mesh of one axis can express the division.
    """

    def __init__(self, counts: tuple[int, ...] | None, mesh: Mesh):
        self.counts, self._mesh = counts, mesh
        divided = [axis for axis, n in enumerate(counts or ()) if n > 1]
        self.is_along_one_axis = len(divided) == 1
        if counts is None:
            self.spec = REPLICATED
        elif self.is_along_one_axis:
            self.spec = PartitionSpec(*[AXIS if n > 1 else None for n in counts[: divided[0] + 1]])
        else:
            names = {axis: f"{AXIS}_{axis}" for axis in divided}
            self._mesh = Mesh(mesh.devices.reshape([counts[axis] for axis in divided]), tuple(names.values()))
            self.spec = PartitionSpec(*[names.get(axis) for axis in range(len(counts))])

    @property
    def sharding(self) -> NamedSharding:
        """The placement of the array on the devices."""
        return NamedSharding(self._mesh, self.spec)

    @property
    def entry(self) -> PartitionSpec:
        """The spec, on the mesh of one axis, of what `enter` returns."""
        return self.spec if self.counts is None or self.is_along_one_axis else SHARE

    def enter(self, array: jax.Array) -> jax.Array:
        """Return the array as the mapped part of a step takes it; nothing moves between devices.

        A division along several axes becomes an axis of devices in front.
        """
        if self.counts is None or self.is_along_one_axis:
            return array
        return self._rearrange(lambda part: part[None], self.spec, PartitionSpec(self._mesh.axis_names))(array)

    def leave(self, array: jax.Array) -> jax.Array:
        """Return an array of the mapped part as it is outside; the inverse of `enter`."""
        if self.counts is None or self.is_along_one_axis:
            return array
        return self._rearrange(lambda parts: parts[0], PartitionSpec(self._mesh.axis_names), self.spec)(array)

    def wrap(self, part: jax.Array) -> jax.Array | Shard:
        """Return what a network takes for this device's part of what `enter` returned."""
        if self.counts is None:
            return part
        return Shard(part if self.is_along_one_axis else part[0], self.counts, AXIS, part.dtype)

    def _rearrange(self, function: Callable, before: PartitionSpec, after: PartitionSpec) -> Callable:
        return jax.shard_map(function, mesh=self._mesh, in_specs=before, out_specs=after, check_vma=False)


class ShardedParameters:
    """A `ParameterLayout` in which each device holds one shard of each parameter.

    Args:
      divisions: how each parameter is divided.
    """

    def __init__(self, divisions: dict[str, Division]):
        self._divisions = divisions
        self.specs = {name: division.entry for name, division in divisions.items()}

    def enter(self, params: Tensors) -> Tensors:
        """Return the parameters as the mapped part of a step takes them (`Division.enter`)."""
        return {name: self._divisions[name].enter(value) for name, value in params.items()}

    def leave(self, gradients: Tensors) -> Tensors:
        """Return gradients as the optimizer takes them (`Division.leave`)."""
        return {name: self._divisions[name].leave(value) for name, value in gradients.items()}

    def wrap(self, params: Tensors) -> Tensors:
        """Return a `Shard` for every parameter that is divided, and the others as they are."""
        return {name: self._divisions[name].wrap(value) for name, value in params.items()}

    def reduce(self, gradients: Tensors) -> Tensors:
        """Return the mean over devices: gradients of gathered parameters are summed already, the others are not."""
        devices = lax.axis_size(AXIS)
        return {
            name: lax.pmean(value, AXIS) if self._divisions[name].counts is None else value / devices
            for name, value in gradients.items()
        }


def shard_counts(shape: tuple[int, ...], devices: int) -> tuple[int, ...] | None:
    """Return the number of parts along each axis of an array; each device holds one part. None: it is not split.

    The longest axis that `devices` divides is divided alone. Where no axis is divisible, as many factors of `devices`
    as divide the longest axis go to it, the others to the next: 256 devices divide [1664, 4992] into 2 x 128 parts.

    An array of one axis (scales, biases, statistics) or of fewer than 16,384 numbers stays whole: it is not worth a
    separate message. So does one that `devices` does not divide.
    """
    if len(shape) < 2 or math.prod(shape) < 2**14 or devices == 1:
        return None
    counts = [1] * len(shape)
    longest_first = sorted(range(len(shape)), key=lambda axis: -shape[axis])
    whole = [axis for axis in longest_first if shape[axis] % devices == 0]
    remaining = devices
    for axis in whole[:1] or longest_first:
        counts[axis] = math.gcd(shape[axis], remaining)
        remaining //= counts[axis]
    return tuple(counts) if remaining == 1 else None


def check_order(devices: Sequence[Any]) -> None:
    """Raise UserError if a process's devices are not next to each other: a process loads one range of every batch."""
    ranges = [process for process, _ in itertools.groupby(device.process_index for device in devices)]
    if len(ranges) > len(set(ranges)):
        raise UserError(
            f"the devices of this run belong, in order, to the processes {', '.join(map(str, ranges))}: those of each"
            " process must be next to each other. Start one process for each host"
        )


def _gradient_inputs(state: TrainState, params: Any) -> TrainState:
    """Return the part of a state that its gradient depends on, with `params` in place of its parameters."""
    return TrainState(state.step, params, state.stats, (), {}, state.rng)


def _put(value: Any, sharding: NamedSharding) -> jax.Array:
    """Place an array on the devices; every process has all of its values."""
    if isinstance(value, jax.Array) and value.sharding == sharding:
        return value
    host = np.asarray(value)
    return jax.make_array_from_callback(host.shape, sharding, lambda index: host[index])
