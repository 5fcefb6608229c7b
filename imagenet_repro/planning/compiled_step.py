"""A configuration's training step, lowered and compiled for the devices of a topology."""

import contextlib
import dataclasses
import time
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import jax
from jax.sharding import NamedSharding, PartitionSpec

from imagenet_repro.config import Config
from imagenet_repro.models.nn import target
from imagenet_repro.planning.topology import Topology
from imagenet_repro.scoring import class_names
from imagenet_repro.training import fitting, step_memory, teachers
from imagenet_repro.training.parallel import Pmap
from imagenet_repro.training.state import TrainState
from imagenet_repro.training.step import AXIS, TrainStep
from imagenet_repro.training.step_memory import StepMemory
from imagenet_repro.training.systems.network import NetworkSystem
from imagenet_repro.training.systems.system import step_flops

LEVELS = ("O0", "O1", "O2", "O3")


@dataclasses.dataclass(frozen=True, kw_only=True)
class CompiledStep(StepMemory):
    """A compiled step in figures; sizes are bytes on one device.

    Attributes:
      text: the optimised HLO; empty where the step does not fit.
      remat: what the backward pass computes again, one of `stack.POLICIES`.
      donated: the number of arrays of the state, whose buffers are donated.
      memory_limit: bytes of the device as the compiler knows them, where it says so; else None.
      xla_flops: the compiler's count of operations on one device; None where it has none (GPU).
      xla_bytes: the compiler's count of bytes that are read and written; None where it has none (GPU).
      trace_seconds: time to trace and lower the step.
      compile_seconds: time to compile it.
    """

    text: str
    remat: str
    donated: int
    memory_limit: float | None = None
    xla_flops: float | None = None
    xla_bytes: float | None = None
    trace_seconds: float = 0.0
    compile_seconds: float = 0.0

    @property
    def is_compiled(self) -> bool:
        """Whether there is a program; a TPU's compiler gives none where the memory does not suffice."""
        return bool(self.text)


@dataclasses.dataclass(frozen=True)
class AbstractStep:
    """A training step whose arrays are shapes with shardings.

    Attributes:
      system: the network, spread over the topology's devices.
      state: the state before the first step.
      batch: one batch over all devices.
    """

    system: NetworkSystem
    state: TrainState
    batch: dict[str, Any]

    @property
    def policies(self) -> Sequence[str]:
        """Return the rematerialisation that a run may choose, of `stack.POLICIES`, cheapest first."""
        return fitting.policies(self.system.train_step(1))

    def train_step(self, policy: str) -> TrainStep:
        """Return one device's step with a policy of `policies`."""
        step = self.system.train_step(1)
        return dataclasses.replace(step, network=step.network.with_remat(policy))

    def flops(self, policy: str) -> int:
        """Return the floating point operations of a step over the whole batch."""
        size = self.system.config.batch_size
        blank = self.system.blank_batch(1)
        batch = {name: jax.ShapeDtypeStruct((size, *x.shape[1:]), x.dtype) for name, x in blank.items()}
        return step_flops(self.train_step(policy), self.state, batch, taps=self.system.config.flops)


def abstract_step(config: Config, num_classes: int, topology: Topology) -> AbstractStep:
    """Return the step of a configuration on a topology, in shapes.

    Raises:
      UserError: the network cannot be built, or the batch does not divide among the devices.
    """
    system = NetworkSystem.abstract(config, num_classes, topology.devices)
    system = teachers.attach(system, class_names.numbered(num_classes))
    spread = system.spread
    spread.check_batch_size(config.batch_size, config.accumulate, "batch_size")
    state = system.abstract_state()
    state = jax.tree.map(
        lambda x, sharding: jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=sharding),
        state,
        spread.state_sharding(state),
    )
    devices, size = len(topology.devices), config.batch_size
    leading = (devices, size // devices) if isinstance(spread, Pmap) else (size,)
    share = NamedSharding(spread.mesh, PartitionSpec(AXIS))
    batch = {
        name: jax.ShapeDtypeStruct((*leading, *x.shape[1:]), x.dtype, sharding=share)
        for name, x in system.blank_batch(1).items()
    }
    return AbstractStep(system, state, batch)


def compile_step(
    step: AbstractStep,
    topology: Topology,
    policy: str,
    *,
    level: str = "",
    options: dict[str, Any] | None = None,
    say: Callable[[str], None] = lambda stage: None,
) -> CompiledStep:
    """Compile a step for a topology.

    Args:
      step: as `abstract_step` returns it.
      topology: the devices.
      policy: one of `AbstractStep.policies`.
      level: one of `LEVELS`; empty: the compiler's default, with which a run is compiled.
      options: more options of XLA.
      say: called with the name of each stage when it begins: "tracing", "compiling".
    """
    arguments = step_memory.argument_sizes(step.state, step.batch)
    common: dict[str, Any] = {"arguments": arguments, "remat": policy, "donated": len(jax.tree.leaves(step.state))}
    say("tracing")
    began = time.perf_counter()
    with target.compile_for(topology.platform), _precision(step.system.config.precision):
        lowered = step.system.spread.lower_training(step.train_step(policy), step.state, step.batch)
    traced = time.perf_counter()
    say("compiling" if policy == "none" else f"compiling with rematerialisation '{policy}'")
    try:
        with _optimization_level(level):
            compiled = lowered.compile(compiler_options=_options(step, topology, options))
    except jax.errors.JaxRuntimeError as error:
        used = fitting.memory_in(str(error))
        if used is None:
            raise
        needed, limit = used
        return CompiledStep(
            **common,
            text="",
            needed_bytes=round(needed),
            memory_limit=limit or None,
            trace_seconds=traced - began,
            compile_seconds=time.perf_counter() - traced,
        )
    compiled_at = time.perf_counter()
    cost: Any = compiled.cost_analysis()
    cost = (cost[0] if isinstance(cost, list) else cost) or {}
    return CompiledStep(
        **common,
        **step_memory.measure(compiled, arguments),
        text=compiled.as_text() or "",
        xla_flops=cost.get("flops"),
        xla_bytes=cost.get("bytes accessed"),
        trace_seconds=traced - began,
        compile_seconds=compiled_at - traced,
    )


def _options(step: AbstractStep, topology: Topology, more: dict[str, Any] | None) -> dict[str, Any] | None:
    options: dict[str, Any] = dict(step.system.spread.compiler_options or {})
    if topology.platform == "gpu" and step.system.config.deterministic:
        # Without a device, the compiler cannot time a Triton product against cuBLAS's, and determinism forbids the
        # default choice: it stops. On a device this option is not needed, so a run does not set it.
        options["xla_gpu_enable_triton_gemm"] = False
    return options | (more or {}) or None


@contextlib.contextmanager
def _optimization_level(level: str) -> Iterator[None]:
    if not level:
        yield
        return
    before = getattr(jax.config, "jax_optimization_level")  # noqa: B009 (jax.config's options are without stubs)
    jax.config.update("jax_optimization_level", level)
    try:
        yield
    finally:
        jax.config.update("jax_optimization_level", before)


@contextlib.contextmanager
def _precision(precision: str) -> Iterator[None]:
    """Trace products as a run computes them: in float32 with full precision, not with bfloat16 or TF32 passes."""
    with jax.default_matmul_precision("highest") if precision == "float32" else contextlib.nullcontext():
        yield
